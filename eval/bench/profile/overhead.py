#!/usr/bin/env python3
"""What profiling adds to a query: overhead.py WATTROUTE [QUESTIONS] [MILLISECONDS]

A server here answers every question with the same stream, a piece every few milliseconds, MILLISECONDS in all. It is asked by
`wattroute profile` (meters on, every answer recorded and graded) and by a bare loop over one kept socket, in turns, and takes
the time from one question to the next itself, in the same way for both. Printed: the medians and their difference.
"""
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PIECES = 50
program = os.path.abspath(sys.argv[1])
questions = int(sys.argv[2]) if len(sys.argv) > 2 else 40
total_s = (float(sys.argv[3]) if len(sys.argv) > 3 else 300.0) / 1000.0
arrivals = []


def read_request(stream):
    """One request with its body; none at the end."""
    length = 0
    line = stream.readline()
    if not line:
        return False
    while line not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        line = stream.readline()
    stream.read(length)
    return True


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return chunk(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")


def answer(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb") as stream:
        while read_request(stream):
            begun = time.monotonic()
            arrivals.append(begun)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for piece in range(PIECES):
                left = begun + total_s * (piece + 1) / PIECES - time.monotonic()
                time.sleep(max(left, 0.0))
                connection.sendall(event({"content": "Paris "}))
            usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": PIECES}}).encode()
            connection.sendall(event({}, "stop") + chunk(b"data: " + usage + b"\n\n") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


def serve(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def bare(port):
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "Capital?"}]}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as to:
        to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(questions):
            to.sendall(head % len(body) + body)
            heard = b""
            while not heard.endswith(b"0\r\n\r\n"):
                heard = heard[-16:] + to.recv(65536)


def profile(port):
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "wattroute.toml"), "w") as file:
            file.write(f'[backends.near]\nplace = "local"\nbase_url = "http://127.0.0.1:{port}/v1"\nmodel = "m"\n')
        with open(os.path.join(folder, "s.jsonl"), "w") as file:
            for i in range(questions):
                row = {"id": str(i), "domain": "None", "kind": "short", "prompt": f"Capital, {i}?", "accepted": ["Paris"]}
                file.write(json.dumps(row) + "\n")
        command = [program, "profile", "--backend", "local/near", "--suite", "s.jsonl", "--out", "t.json", "--settle", "2s", "--warm-up", "0"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def periods(ask, port):
    arrivals.clear()
    ask(port)
    return [b - a for a, b in zip(arrivals, arrivals[1:])]


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
port = listener.getsockname()[1]
found = {"bare": [], "profile": []}
for _ in range(2):
    for name, ask in (("bare", bare), ("profile", profile)):
        found[name] += periods(ask, port)
medians = {name: statistics.median(times) for name, times in found.items()}
for name, median in medians.items():
    print(f"{name:8} {len(found[name])} queries, median {median * 1000:.3f} ms from one to the next")
added = medians["profile"] - medians["bare"]
print(f"profiling adds {added * 1e6:.0f} us, {added / medians['bare'] * 100:.2f} % of a query of {total_s * 1000:.0f} ms")
