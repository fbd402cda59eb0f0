"""An upstream for the official clients: answers by the case that the last message names, and counts what it saw.

Standard library only. Prints its port. GET /seen returns the counts.
"""

import asyncio
import json

SEEN = {"requests": 0, "hung_up": 0, "cases": {}}


def chunk(delta, finish=None, **more):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock-1", "choices": [choice], **more}


def event(value):
    return f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode()


def usage():
    return {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


TOOL_CALLS = [
    {"id": f"call_{city}", "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}
    for city in ("Oslo", "Lima")
]


def whole(message, finish="stop"):
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "mock-1", "choices": [choice], "usage": usage()}


async def answer(writer, status, value, headers=()):
    body = json.dumps(value).encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(body)}", *headers]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()


async def stream(writer, events, pause=0.0, whole_stream=True):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for one in events:
        writer.write(f"{len(one):x}\r\n".encode() + one + b"\r\n")
        await writer.drain()
        if pause:
            await asyncio.sleep(pause)
    if whole_stream:
        writer.write(b"0\r\n\r\n")
        await writer.drain()
    else:
        writer.close()


def streamed(case, body):
    if case == "tools":
        yield event(chunk({"role": "assistant", "content": None}))
        for i, call in enumerate(TOOL_CALLS):
            head = {**call, "index": i, "function": {"name": "weather", "arguments": ""}}
            yield event(chunk({"role": "assistant", "tool_calls": [head]}))
            for piece in call["function"]["arguments"]:
                yield event(chunk({"tool_calls": [{"index": i, "function": {"arguments": piece}}]}))
        yield event(chunk({}, "tool_calls"))
    elif case == "endless":
        for i in range(10_000):
            yield event(chunk({"content": f"{i} "}))
    else:
        yield event(chunk({"role": "assistant", "content": ""}))
        for piece in ("zażółć ", "🜂 ", "漢字"):
            yield event(chunk({"content": piece}))
        if case == "cut":
            return
        yield event(chunk({}, "stop"))
    if body.get("stream_options", {}).get("include_usage"):
        yield event({**chunk({}), "choices": [], "usage": usage()})
    yield event("[DONE]")


def text_of(body):
    if "prompt" in body:
        return body["prompt"]
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


async def respond(writer, path, body):
    case = text_of(body).split("case:")[-1].split()[0] if "case:" in text_of(body) else "plain"
    SEEN["requests"] += 1
    SEEN["cases"][case] = SEEN["cases"].get(case, 0) + 1
    failures = {"limit": (429, "rate_limit_exceeded"), "context": (400, "context_length_exceeded"), "down": (503, "overloaded")}
    if case in failures:
        status, code = failures[case]
        error = {"message": case, "type": "x", "param": None, "code": code}
        return await answer(writer, status, {"error": error}, ("retry-after-ms: 5", "retry-after: 1"))
    if case == "silent":
        return await asyncio.sleep(30)
    if body.get("stream"):
        return await stream(writer, streamed(case, body), 0.01 if case == "endless" else 0.0, case != "cut")
    if path.endswith("/completions") and "prompt" in body:
        choice = {"index": 0, "text": "zażółć", "finish_reason": "stop", "logprobs": None}
        return await answer(writer, 200, {"id": "c", "object": "text_completion", "created": 1, "model": "mock-1", "choices": [choice], "usage": usage()})
    if case == "tools":
        return await answer(writer, 200, whole({"content": None, "tool_calls": TOOL_CALLS}, "tool_calls"))
    if case == "echo":
        return await answer(writer, 200, whole({"content": json.dumps(body)}))
    return await answer(writer, 200, whole({"content": "zażółć 🜂 漢字"}))


async def serve(reader, writer):
    """One connection: requests in turn, watching for the peer's close while answering."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode().split("\r\n")
            path = lines[0].split(" ")[1]
            fields = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines[1:] if ":" in line}
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            if path == "/seen":
                await answer(writer, 200, SEEN)
                continue
            assert fields.get("authorization") == "Bearer upstream-key-of-the-gateway", fields
            working = asyncio.create_task(respond(writer, path, json.loads(body)))
            leaving = asyncio.create_task(reader.read(1))
            await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                SEEN["hung_up"] += 1
                working.cancel()
                return
            await working
            if leaving.done() and not leaving.result():
                return
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
