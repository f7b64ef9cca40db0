"""Its version is what it finds in its environment."""

import os

from fake_engines.working import Working


def prepare(setup):
    engine = Working()
    names = ("BERTFAST_ISA", "BERTFAST_NUM_THREADS")
    engine.version = " ".join(f"{name}={os.environ.get(name)}" for name in names)
    return engine
