"""``bertfast bench``: our engine and its peers side by side, on the same weights, texts and threads.

* ``options``, ``dtypes``, ``command``: the command line, and what it leads to;
* ``engines``: one small module per engine; ``peer_texts``: how those that know ids only get to vectors;
* ``prepare``: exported, converted and quantized models, made once and kept;
* ``worker``: one process per engine, stopped while another runs; ``failure``: why one could not;
* ``workloads``: what is run, and how many FLOP it is; ``random_model``: weights when there are none;
* ``machine``: what the machine is and could do at most.

The modes, each a way of measuring and a report:

* ``run``, ``report``, ``plot``: speed, in interleaved rounds;
* ``latency``, ``open_loop``: queries that arrive at random times;
* ``ops``: the operations of our engine by themselves;
* ``startup``: import time, first vector and memory of our engine in fresh interpreters;
* ``tasks``, ``tokenizing``, ``pretraining``, ``training``: pipelines, tokens, samples and training steps;
* ``cluster``: files and data sets on Ray, beside one process.

``tables`` and ``roofline`` show figures of several of them.
"""
