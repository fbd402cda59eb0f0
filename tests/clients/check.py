"""The official Python client against a running gateway. Every line is an assertion; the last one says how many held.

Environment: BASE_URL (with /v1), API_KEY, SEEN_URL (the mock upstream's counts).
"""

import asyncio
import json
import os
import time
import urllib.request

import openai

BASE, KEY = os.environ["BASE_URL"], os.environ["API_KEY"]
client = openai.OpenAI(base_url=BASE, api_key=KEY, max_retries=0, timeout=20)
held = 0


def holds(fact, what):
    global held
    assert fact, what
    held += 1


def seen():
    return json.load(urllib.request.urlopen(os.environ["SEEN_URL"], timeout=5))


def ask(case="plain", using=client, **more):
    return using.chat.completions.create(model="cloud/mock", messages=[{"role": "user", "content": f"case:{case}"}], **more)


def raises(kind, call, **want):
    try:
        call()
    except kind as error:
        for name, value in want.items():
            holds(getattr(error, name) == value, f"{kind.__name__}.{name}: {getattr(error, name)!r} != {value!r}")
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def chats():
    answer = ask()
    holds(answer.choices[0].message.content == "zażółć 🜂 漢字", answer)
    holds(answer.usage.total_tokens == 12, answer.usage)
    raw = client.chat.completions.with_raw_response.create(model="cloud/mock", messages=[{"role": "user", "content": "x"}])
    holds(raw.headers["x-wattroute-backend"] == "cloud/mock", raw.headers)
    holds(raw.headers["x-wattroute-place"] == "cloud", raw.headers)
    holds(raw.parse().choices[0].finish_reason == "stop", raw)
    auto = client.chat.completions.with_raw_response.create(model="auto", messages=[{"role": "user", "content": "x"}])
    holds(auto.headers["x-wattroute-place"] in ("local", "cloud"), auto.headers)
    sent = json.loads(ask("echo", seed=7, top_p=0.5, extra_body={"vendor": {"deep": [1, None]}}).choices[0].message.content)
    holds((sent["seed"], sent["top_p"], sent["vendor"]) == (7, 0.5, {"deep": [1, None]}), sent)
    holds(sent["model"] == "mock-1", sent)
    legacy = client.completions.create(model="cloud/mock", prompt="case:plain")
    holds(legacy.choices[0].text == "zażółć", legacy)


def streams():
    text, finish, counted = "", None, None
    for part in ask(stream=True):
        holds(part.choices, f"an event without choices that nobody asked for: {part}")
        text += part.choices[0].delta.content or ""
        finish = part.choices[0].finish_reason or finish
    holds((text, finish) == ("zażółć 🜂 漢字", "stop"), (text, finish))
    for part in ask(stream=True, stream_options={"include_usage": True}):
        counted = part.usage or counted
    holds(counted and counted.total_tokens == 12, counted)
    with client.chat.completions.stream(model="cloud/mock", messages=[{"role": "user", "content": "case:plain"}]) as helper:
        holds(helper.get_final_completion().choices[0].message.content == "zażółć 🜂 漢字", "stream helper")


def tools():
    given = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    calls = ask("tools", tools=given).choices[0].message.tool_calls
    holds([json.loads(call.function.arguments)["city"] for call in calls] == ["Oslo", "Lima"], calls)
    parts = {}
    for part in ask("tools", tools=given, stream=True):
        for call in part.choices[0].delta.tool_calls or []:
            parts[call.index] = parts.get(call.index, "") + (call.function.arguments or "")
    holds([json.loads(parts[i])["city"] for i in (0, 1)] == ["Oslo", "Lima"], parts)


def models():
    names = [model.id for model in client.models.list()]
    holds({"auto", "auto:private", "cloud/mock"} <= set(names), names)
    holds(client.models.retrieve("auto").id == "auto", "retrieve")


def errors():
    wrong = openai.OpenAI(base_url=BASE, api_key="not-the-right-key-at-all", max_retries=0)
    raises(openai.AuthenticationError, lambda: ask(using=wrong), status_code=401, code="invalid_api_key")
    missing = lambda: client.chat.completions.create(model="nothing", messages=[{"role": "user", "content": "x"}])
    raises(openai.NotFoundError, missing, status_code=404, code="model_not_found")
    raises(openai.NotFoundError, lambda: client.models.retrieve("nothing"), status_code=404)
    bad = lambda: client.chat.completions.create(model="auto", messages=[])
    raises(openai.BadRequestError, bad, status_code=400)
    raises(openai.BadRequestError, lambda: ask("context"), status_code=400, code="context_length_exceeded")
    raises(openai.RateLimitError, lambda: ask("limit"), status_code=429, code="rate_limit_exceeded")
    large = "x" * (11 << 20)
    raises(openai.APIStatusError, lambda: client.chat.completions.create(model="auto", messages=[{"role": "user", "content": large}]), status_code=413)


def retries():
    """A client's own retries: honoured for limits, not multiplied with ours."""
    patient = openai.OpenAI(base_url=BASE, api_key=KEY, max_retries=2)
    before = seen()["cases"].get("limit", 0)
    raises(openai.RateLimitError, lambda: ask("limit", using=patient))
    holds(seen()["cases"]["limit"] - before == 3, "three attempts of the client are three requests upstream")
    before = seen()["cases"].get("down", 0)
    raises(openai.InternalServerError, lambda: ask("down", using=patient))
    holds(seen()["cases"]["down"] - before <= 3, "our attempts multiplied the client's")


def cut():
    """A broken stream raises: it is never a short answer."""
    received = []

    def read():
        for part in ask("cut", stream=True):
            received.append(part.choices[0].delta.content or "")

    raises(openai.APIError, read)
    holds("".join(received).startswith("zażółć"), received)


def aborts():
    before = seen()["hung_up"]
    stream = ask("endless", stream=True)
    next(iter(stream))
    stream.close()
    await_hang_up(before + 1)
    short = client.with_options(timeout=0.3)
    raises(openai.APITimeoutError, lambda: ask("silent", using=short))
    await_hang_up(before + 2)


def await_hang_up(count):
    left = time.monotonic()
    while seen()["hung_up"] < count:
        assert time.monotonic() - left < 2, "the upstream was not closed"
        time.sleep(0.01)
    holds(True, "closed")


async def many():
    async with openai.AsyncOpenAI(base_url=BASE, api_key=KEY, max_retries=0) as fast:
        message = [{"role": "user", "content": "case:plain"}]
        answers = await asyncio.gather(*(fast.chat.completions.create(model="cloud/mock", messages=message) for _ in range(32)))
        holds(all(answer.choices[0].message.content == "zażółć 🜂 漢字" for answer in answers), "32 at a time")


for scenario in (chats, streams, tools, models, errors, retries, cut, aborts):
    scenario()
asyncio.run(many())
print(f"python openai {openai.__version__}: {held} assertions held")
