"""llama.cpp through its C interface, from the library inside the Python package `xllamacpp`.

Only functions whose arguments are pointers and numbers are used, and parameter structures only as the library's own
defaults with the first fields changed, so that a newer build with more fields works too (the layout is checked first).
"""

import ctypes
import os
import struct
import time
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int32, c_int8, c_void_p

import numpy


class Blob(ctypes.Structure):
    """A parameter structure of unknown length, passed on as it came."""

    _fields_ = [("raw", ctypes.c_uint8 * 1024)]

    def put(self, index, value):
        struct.pack_into("<i", self.raw, index * 4, value)

    def get(self, index):
        return struct.unpack_from("<i", self.raw, index * 4)[0]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


def library():
    import xllamacpp

    lib = ctypes.CDLL(os.path.join(os.path.dirname(xllamacpp.__file__), "xllamacpp.abi3.so"))
    for name, returns, takes in [
        ("llama_backend_init", None, []),
        ("llama_model_default_params", Blob, []),
        ("llama_context_default_params", Blob, []),
        ("llama_model_load_from_file", c_void_p, [c_char_p, Blob]),
        ("llama_init_from_model", c_void_p, [c_void_p, Blob]),
        ("llama_model_get_vocab", c_void_p, [c_void_p]),
        ("llama_vocab_n_tokens", c_int32, [c_void_p]),
        ("llama_tokenize", c_int32, [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]),
        ("llama_get_memory", c_void_p, [c_void_p]),
        ("llama_memory_clear", None, [c_void_p, c_bool]),
        ("llama_decode", c_int32, [c_void_p, Batch]),
        ("llama_get_logits_ith", POINTER(c_float), [c_void_p, c_int32]),
    ]:
        function = getattr(lib, name)
        function.restype, function.argtypes = returns, takes
    log = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)
    lib.quiet = log(lambda *_: None)
    lib.llama_log_set(lib.quiet, None)
    lib.llama_backend_init()
    return lib


def version():
    import xllamacpp

    return getattr(xllamacpp, "__version__", "unknown")


class Llama:
    """A model with one context, run greedily or over given tokens."""

    def __init__(self, model, threads, context=4096):
        self.lib = library()
        params = self.lib.llama_context_default_params()
        if [params.get(i) for i in (0, 1, 2, 3, 7, 8)] != [512, 2048, 512, 1, 4, 4]:
            raise RuntimeError("the context parameters of this build are laid out otherwise")
        for index, value in [(0, context), (7, threads), (8, threads)]:
            params.put(index, value)
        self.model = self.lib.llama_model_load_from_file(str(model).encode(), self.lib.llama_model_default_params())
        self.context = self.lib.llama_init_from_model(self.model, params)
        if not self.model or not self.context:
            raise RuntimeError(f"llama.cpp cannot load {model}")
        self.vocab = self.lib.llama_model_get_vocab(self.model)
        self.size = self.lib.llama_vocab_n_tokens(self.vocab)

    def tokens(self, text, special=True):
        raw = text.encode()
        out = (c_int32 * (len(raw) + 8))()
        count = self.lib.llama_tokenize(self.vocab, raw, len(raw), out, len(out), False, special)
        return list(out[:count])

    def clear(self):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        self.position = 0

    def run(self, tokens, everywhere=False):
        """Runs tokens after those before; logits of the last one, or of all, are then there."""
        n = len(tokens)
        one = (c_int32 * 1)(0)
        batch = Batch(
            n,
            (c_int32 * n)(*tokens),
            None,
            (c_int32 * n)(*range(self.position, self.position + n)),
            (c_int32 * n)(*[1] * n),
            (POINTER(c_int32) * n)(*[ctypes.cast(one, POINTER(c_int32))] * n),
            (c_int8 * n)(*[1 if everywhere or i == n - 1 else 0 for i in range(n)]),
        )
        code = self.lib.llama_decode(self.context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode failed with {code}")
        self.position += n

    def logits(self, index=-1):
        pointer = self.lib.llama_get_logits_ith(self.context, index)
        return numpy.ctypeslib.as_array(pointer, shape=(self.size,)).copy()

    def greedy(self, prompt, count, one_by_one=False):
        """The continuation, and at each step the two best tokens with their log-probabilities."""
        self.clear()
        for part in [[token] for token in prompt] if one_by_one else [prompt]:
            self.run(part)
        tokens, tops = [], []
        for _ in range(count):
            logprobs = log_softmax(self.logits())
            two = sorted(numpy.argpartition(logprobs, -2)[-2:], key=lambda t: -logprobs[t])
            tops.append([(int(t), float(logprobs[t])) for t in two])
            tokens.append(int(two[0]))
            self.run([tokens[-1]])
        return tokens, tops

    def score(self, tokens):
        """ln P of every token but the first, given those before it, and the best token at each place."""
        self.clear()
        out, best = [], []
        for start in range(0, len(tokens), 512):
            part = tokens[start : start + 512]
            self.run(part, everywhere=True)
            for i in range(len(part)):
                if start + i + 1 < len(tokens):
                    logprobs = log_softmax(self.logits(i))
                    out.append(float(logprobs[tokens[start + i + 1]]))
                    best.append(int(logprobs.argmax()))
        return out, best

    def speed(self, prompt, decode):
        self.clear()
        started = time.perf_counter()
        self.run(prompt)
        token = int(self.logits().argmax())
        middle = time.perf_counter()
        for _ in range(decode):
            self.run([token])
            token = int(self.logits().argmax())
        ended = time.perf_counter()
        return {"prefill_tok_s": len(prompt) / (middle - started), "decode_tok_s": decode / (ended - middle)}


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - numpy.log(numpy.exp(shifted).sum(dtype=numpy.float64))
