#!/usr/bin/env python3
"""A llama.cpp server for make.sh, from the Python package xllamacpp: server.py MODEL.gguf PORT [THREADS]

Any OpenAI-compatible server does as well; this one needs nothing but pip.
"""
import os
import signal
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.port = int(sys.argv[2])
threads = int(sys.argv[3]) if len(sys.argv) > 3 else os.cpu_count()
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.n_ctx = 4096
params.n_parallel = 1
params.warmup = True
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
signal.pause()
