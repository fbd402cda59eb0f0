// The official Node client against a running gateway. Every line is an assertion; the last one says how many held.
// Environment: BASE_URL (with /v1), API_KEY, SEEN_URL (the mock upstream's counts).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const baseURL = process.env.BASE_URL;
const apiKey = process.env.API_KEY;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20_000 });
const TEXT = "zażółć 🜂 漢字";
let held = 0;

function holds(fact, what) {
  assert.ok(fact, what);
  held += 1;
}

const seen = async () => (await fetch(process.env.SEEN_URL)).json();
const ask = (name = "plain", more = {}, using = client) =>
  using.chat.completions.create({ model: "cloud/mock", messages: [{ role: "user", content: `case:${name}` }], ...more });

async function raises(kind, call, want = {}) {
  try {
    await call();
  } catch (error) {
    holds(error instanceof kind, `${error?.constructor?.name}: ${error?.message}`);
    for (const [name, value] of Object.entries(want)) holds(error[name] === value, `${name}: ${error[name]}`);
    return;
  }
  assert.fail(`${kind.name} was not raised`);
}

async function hungUp(count) {
  const end = Date.now() + 2000;
  while ((await seen()).hung_up < count) {
    assert.ok(Date.now() < end, "the upstream was not closed");
    await new Promise((wake) => setTimeout(wake, 10));
  }
  held += 1;
}

// chat
const answer = await ask();
holds(answer.choices[0].message.content === TEXT && answer.usage.total_tokens === 12, JSON.stringify(answer));
const { response } = await ask().withResponse();
holds(response.headers.get("x-wattroute-backend") === "cloud/mock", "decision headers");
holds(response.headers.get("x-request-id"), "request id");

// stream
let text = "";
let finish;
for await (const part of await ask("plain", { stream: true })) {
  holds(part.choices.length === 1, "an event that nobody asked for");
  text += part.choices[0].delta.content ?? "";
  finish = part.choices[0].finish_reason ?? finish;
}
holds(text === TEXT && finish === "stop", `${text} ${finish}`);
let usage;
for await (const part of await ask("plain", { stream: true, stream_options: { include_usage: true } })) usage = part.usage ?? usage;
holds(usage?.total_tokens === 12, "usage in a stream");

// tools
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];
const cities = (calls) => calls.map((call) => JSON.parse(call.function.arguments).city).join();
holds(cities((await ask("tools", { tools })).choices[0].message.tool_calls) === "Oslo,Lima", "tools");
const final = await client.chat.completions
  .stream({ model: "cloud/mock", messages: [{ role: "user", content: "case:tools" }], tools })
  .finalChatCompletion();
holds(cities(final.choices[0].message.tool_calls) === "Oslo,Lima", "tools in a stream");

// models
const names = [];
for await (const model of client.models.list()) names.push(model.id);
holds(["auto", "auto:private", "cloud/mock"].every((name) => names.includes(name)), names.join());

// errors
const wrong = new OpenAI({ baseURL, apiKey: "not-the-right-key-at-all", maxRetries: 0 });
await raises(OpenAI.AuthenticationError, () => ask("plain", {}, wrong), { status: 401, code: "invalid_api_key" });
const unknown = () => client.chat.completions.create({ model: "nothing", messages: [{ role: "user", content: "x" }] });
await raises(OpenAI.NotFoundError, unknown, { status: 404, code: "model_not_found" });
await raises(OpenAI.BadRequestError, () => client.chat.completions.create({ model: "auto", messages: [] }), { status: 400 });
await raises(OpenAI.BadRequestError, () => ask("context"), { status: 400, code: "context_length_exceeded" });
await raises(OpenAI.RateLimitError, () => ask("limit"), { status: 429, code: "rate_limit_exceeded" });
let partial = "";
await raises(OpenAI.APIError, async () => {
  for await (const part of await ask("cut", { stream: true })) partial += part.choices[0].delta.content ?? "";
});
holds(partial.startsWith("zażółć"), "what came before the cut was passed on");

// abort
const before = (await seen()).hung_up;
const endless = await ask("endless", { stream: true });
for await (const _ of endless) break;
endless.controller.abort();
await hungUp(before + 1);
const stop = new AbortController();
const silent = client.chat.completions.create(
  { model: "cloud/mock", messages: [{ role: "user", content: "case:silent" }] },
  { signal: stop.signal },
);
setTimeout(() => stop.abort(), 100);
await raises(OpenAI.APIUserAbortError, () => silent);
await hungUp(before + 2);

const { version } = JSON.parse(readFileSync("node_modules/openai/package.json", "utf8"));
console.log(`node openai ${version}: ${held} assertions held`);
