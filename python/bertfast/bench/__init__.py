"""``bertfast bench``: our engine and its peers side by side, on the same weights, texts and threads.

* ``options``, ``command``: the command line, and what it leads to;
* ``engines``: one small module per engine;
* ``worker``: one process per engine, stopped while another runs;
* ``workloads``: what is run, and how many FLOP it is; ``random_model``: weights when there are none;
* ``run``: the interleaved rounds; ``report``, ``plot``: what is shown of them;
* ``startup``: import time, first vector and memory of our engine in fresh interpreters.
"""
