#!/usr/bin/env python3
"""The gateway's own cost, beside nginx in the same run.

    eval/bench/gateway/run.py [--program target/release/wattroute] [--rounds 3] [--seconds 3] [--out FILE]

Upstream: nginx with one worker and a fixed 460-byte answer. Load: wrk, 1.03 KB chat requests. Everything shares this
machine's cores over loopback, plain HTTP/1.1. Rounds are interleaved and the median is reported. CPU is user + system
time of the measured process (with its children) divided by requests. Installs nginx and wrk through apt when missing.

Scopes: `nginx` proxies with one worker. `pinned` is one wattroute worker with a pinned backend name and the journal
off and `policy.classify_pinned = false`; it still parses, looks at tables, decides and writes the headers. `auto` adds
the classifier, the policy's choice and the journal on disk. `auto, all workers` is the same with one worker per core, as
shipped. These send one query again and again, which the caches and the branch predictor learn; `auto, other query each`
sends 144 different exam questions of the same length in turn to the process of `auto`. Streams: 48 at a time, 20 events
each, 30 ms apart.
"""

import argparse
import asyncio
import gzip
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
KEY = "sk-bench-key-0123456789"
STREAMS, EVENTS, PAUSE = 48, 20, 0.03
ANSWER = json.dumps(
    {
        "id": "chatcmpl-bench", "object": "chat.completion", "created": 1, "model": "static-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 192}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 54, "total_tokens": 254},
    }
)
TEXT = (
    "Explain in plain words why the boiling point of water falls with altitude, how a pressure cooker changes that, "
    "and what it means for somebody who cooks beans at three thousand metres. "
)


def questions():
    """Questions with options of the same length as TEXT's, all different, from the held-out part of the labelled data."""
    with gzip.open(ROOT / "eval/data/domain/mmlu_pro.jsonl.gz", "rt") as lines:
        rows = [row for row in map(json.loads, lines) if row["split"] == "test"]
    texts = ["\n".join([row["prompt"], *(f"{chr(65 + i)}. {o}" for i, o in enumerate(row["options"]))]) for row in rows]
    return [text for text in texts if 800 <= len(text) <= 1060 and text.isascii() and "]==]" not in text]


def body(model, stream=False, text=(TEXT * 6)[:930]):
    value = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 64}
    return json.dumps({**value, "stream": True} if stream else value)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ensure_tools():
    if missing := [tool for tool in ("nginx", "wrk") if not shutil.which(tool)]:
        packages = ["nginx-light" if tool == "nginx" else tool for tool in missing]
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run([*sudo, "apt-get", "update", "-qq"], check=True)
        subprocess.run([*sudo, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], check=True)


def nginx(folder, name, server):
    """Starts one nginx with one worker in its own folder; returns the process."""
    home = folder / name
    home.mkdir()
    (home / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log crit;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 60s; client_body_temp_path {home}/body;
proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
{server} }}
"""
    )
    return subprocess.Popen(["nginx", "-p", str(home), "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")])


def backend(name, place, port):
    return f"""[backends.{name}]
place = "{place}"
base_url = "http://127.0.0.1:{port}/v1"
model = "{name}-1"
key_env = "BENCH_KEY"
max_in_flight = 1000
"""


def wattroute(folder, name, program, backends, workers, journal):
    """Starts the gateway; returns the process and its port."""
    data, admin = free_port(), free_port()
    file = folder / f"{name}.toml"
    file.write_text(
        f"""[server]
listen = "127.0.0.1:{data}"
admin = "127.0.0.1:{admin}"
workers = {workers}
{backends}
[journal]
enabled = {str(journal).lower()}
path = "{folder}/data/{name}.db"
[policy]
classify_pinned = {str(journal).lower()}
"""
    )
    log = open(folder / f"{name}.log", "w")
    command = [str(program), "serve", "--config", str(file)]
    process = subprocess.Popen(command, env={**os.environ, "BENCH_KEY": KEY}, stdout=log, stderr=log)
    return process, data


def await_port(port):
    for _ in range(400):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.025)
    sys.exit(f"nothing listens on {port}")


def children(pid):
    out = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            out += children(int(child))
    return out


def cpu_seconds(pid):
    """Time on a core, user and system, of a process, its threads and its children; nanosecond counters of the kernel."""
    tasks = [task for one in children(pid) for task in Path(f"/proc/{one}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident_mb(pid):
    text = "".join(Path(f"/proc/{one}/smaps_rollup").read_text() for one in children(pid))
    return sum(int(kb) for kb in re.findall(r"^Pss:\s+(\d+) kB", text, re.M)) / 1024


def wrk(folder, port, model, connections, seconds, texts=None):
    script = folder / f"{model.replace('/', '-')}{'-varied' if texts else ''}.lua"
    bodies = [body(model, text=text) for text in texts] if texts else [body(model)]
    list_of = ",\n".join(f"[==[{one}]==]" for one in bodies)
    script.write_text(
        f"""wrk.headers["Content-Type"] = "application/json"
local ready, turn = {{}}, 0
init = function()
  for i, one in ipairs({{{list_of}}}) do ready[i] = wrk.format("POST", nil, nil, one) end
end
request = function()
  turn = turn % #ready + 1
  return ready[turn]
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %f %f %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""
    )
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    out = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url], capture_output=True, text=True, check=True
    ).stdout
    requests, micros, p50, p99, errors = re.search(r"RESULT (\d+) (\d+) ([\d.]+) ([\d.]+) (\d+)", out).groups()
    if int(errors):
        sys.exit(f"{errors} errors at {url} for {model}:\n{out}")
    return {"requests": int(requests), "rps": int(requests) / int(micros) * 1e6, "p50_us": float(p50), "p99_us": float(p99)}


def measure(folder, target, connections, seconds):
    before = cpu_seconds(target["pid"]) if target.get("pid") else None
    result = wrk(folder, target["port"], target["model"], connections, seconds, target.get("texts"))
    if before is not None:
        result["cpu_us"] = (cpu_seconds(target["pid"]) - before) / result["requests"] * 1e6
    return result


async def streaming_upstream():
    event = json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "streaming-1",
                        "choices": [{"index": 0, "delta": {"content": " token"}, "finish_reason": None}]})
    last = event.replace('{"content": " token"}', "{}").replace("null", '"stop"')

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(re.search(rb"content-length: (\d+)", head, re.I).group(1)))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                for i in range(EVENTS):
                    data = f"data: {event if i < EVENTS - 1 else last}\n\n".encode()
                    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
                    await writer.drain()
                    await asyncio.sleep(PAUSE)
                writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def read_streams(port, model, rounds):
    """Reads STREAMS streams at a time; returns events and the gaps between them, seconds."""
    request = body(model, stream=True).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(request)}\r\n\r\n"
    gaps, events = [], 0

    async def one():
        nonlocal events
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(rounds):
            writer.write(head.encode() + request)
            text, last = b"", None
            while b"data: [DONE]" not in text:
                part = await reader.read(65536)
                if not part:
                    sys.exit(f"a stream of {model} was cut: {text[-300:]}")
                now = time.perf_counter()
                if last and b"token" in part:
                    gaps.append(now - last)
                last = now
                text += part
            while not text.endswith(b"0\r\n\r\n"):
                text += await reader.read(65536)
            events += text.count(b"data:")
        writer.close()

    await asyncio.gather(*(one() for _ in range(STREAMS)))
    return events, gaps


def measure_streams(target, rounds=5):
    before = cpu_seconds(target["pid"])
    events, gaps = asyncio.run(read_streams(target["port"], target["streaming"], rounds))
    if events != STREAMS * rounds * (EVENTS + 1):
        sys.exit(f"{events} events instead of {STREAMS * rounds * (EVENTS + 1)}")
    gaps.sort()
    return {"cpu_us_per_event": (cpu_seconds(target["pid"]) - before) / events * 1e6, "gap_p99_ms": gaps[len(gaps) * 99 // 100] * 1e3}


def cpu_model():
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else platform.machine()


def median(rows, key):
    values = [row[key] for row in rows if key in row]
    return statistics.median(values) if values else None


def table(results):
    direct = results["targets"]["direct"]
    nginx_rps = results["targets"]["nginx"]["c32"]["rps"]
    lines = [
        "| | added p50, c=1 | CPU per request, c=1 | requests/s, c=32 | of nginx | p50 / p99, c=32 | CPU per request, c=32 | CPU per SSE event | resident (PSS) idle / after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in results["targets"].items():
        one, many, sse = row["c1"], row["c32"], row.get("sse", {})
        added = f"{one['p50_us'] - direct['c1']['p50_us']:.0f} µs" if name != "direct" else f"({one['p50_us']:.0f} µs)"
        cpu = lambda value: f"{value:.1f} µs" if value is not None else "–"
        memory = f"{row['idle_mb']:.0f} / {row['after_mb']:.0f} MB" if "after_mb" in row else "–"
        lines.append(
            f"| {name} | {added} | {cpu(one.get('cpu_us'))} | {many['rps']:,.0f} | {many['rps'] / nginx_rps:.2f} | "
            f"{many['p50_us'] / 1e3:.2f} / {many['p99_us'] / 1e3:.2f} ms | {cpu(many.get('cpu_us'))} | {cpu(sse.get('cpu_us_per_event'))} | {memory} |"
        )
    return "\n".join(lines) + f"\n\n{results['machine']}; {results['date']}; {results['rounds']} rounds of {results['seconds']} s, median.\n"


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target_dir = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    args.add_argument("--program", type=Path, default=target_dir / "release/wattroute")
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--seconds", type=int, default=3)
    args.add_argument("--out", type=Path, default=HERE / "results.json")
    args = args.parse_args()
    if not args.program.exists():
        sys.exit(f"{args.program} does not exist: cargo build --release")
    ensure_tools()
    folder = Path(tempfile.mkdtemp(prefix="wattroute-bench-"))
    folder.chmod(0o755)
    running = []
    try:
        results = run(args, folder, running)
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(timeout=40)
        shutil.rmtree(folder, ignore_errors=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(table(results))
    print(table(results))


def run(args, folder, running):
    upstream, proxy = free_port(), free_port()
    running.append(nginx(folder, "upstream", f"server {{ listen 127.0.0.1:{upstream}; location / {{ default_type application/json; return 200 '{ANSWER}'; }} }}"))
    streaming = subprocess.Popen([sys.executable, __file__, "streaming-upstream"], stdout=subprocess.PIPE, text=True)
    running.append(streaming)
    streaming_port = int(streaming.stdout.readline())
    pass_on = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;'
    running.append(nginx(folder, "proxy", f"""
upstream a {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}
upstream b {{ server 127.0.0.1:{streaming_port}; keepalive 64; }}
server {{ listen 127.0.0.1:{proxy}; location / {{ {pass_on} proxy_pass http://a; }} }}
server {{ listen 127.0.0.1:{(proxy_b := free_port())}; location / {{ {pass_on} proxy_pass http://b; }} }}"""))
    targets = {
        "direct": {"port": upstream, "model": "auto"},
        "nginx": {"port": proxy, "pid": running[-1].pid, "model": "auto"},
    }
    pinned = backend("static", "cloud", upstream) + backend("streaming", "cloud", streaming_port)
    choice = backend("near", "local", upstream) + backend("far", "cloud", upstream)
    for name, backends, workers, journal, model in [
        ("pinned", pinned, 1, False, "cloud/static"),
        ("auto", choice, 1, True, "auto"),
        ("auto, all workers", choice, os.cpu_count(), True, "auto"),
    ]:
        process, port = wattroute(folder, re.sub(r"\W+", "-", name), args.program, backends, workers, journal)
        running.append(process)
        targets[name] = {"port": port, "pid": process.pid, "model": model}
    targets["auto, other query each"] = {**targets["auto"], "texts": questions()}
    targets["pinned"]["streaming"] = "cloud/streaming"
    for target in targets.values():
        await_port(target["port"])
    rows = {name: {"c1": [], "c32": []} for name in targets}
    idle = {name: resident_mb(t["pid"]) for name, t in targets.items() if "pid" in t}
    for _ in range(args.rounds):
        for connections in (1, 32):
            for name, target in targets.items():
                rows[name][f"c{connections}"].append(measure(folder, target, connections, args.seconds))
    out = {}
    for name, target in targets.items():
        out[name] = {c: {k: median(rows[name][c], k) for k in rows[name][c][0]} for c in ("c1", "c32")}
        out[name]["rounds"] = rows[name]
        if "streaming" in target:
            out[name]["sse"] = measure_streams(target)
        if name == "nginx":
            out[name]["sse"] = measure_streams({**target, "port": proxy_b, "streaming": "x"})
        if "pid" in target:
            out[name] |= {"idle_mb": idle[name], "after_mb": resident_mb(target["pid"])}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{cpu_model()}, {os.cpu_count()} cores shared by load, upstream and gateway, Linux {platform.release()}",
        "rounds": args.rounds,
        "seconds": args.seconds,
        "answer_bytes": len(ANSWER),
        "request_bytes": len(body("auto")),
        "targets": out,
    }


if __name__ == "__main__":
    if sys.argv[1:] == ["streaming-upstream"]:
        asyncio.run(streaming_upstream())
    else:
        main()
