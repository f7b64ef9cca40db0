import importlib


def prepare(setup):
    return importlib.import_module("no_such_library")
