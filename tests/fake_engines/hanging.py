import time


def prepare(setup):
    time.sleep(3600)
