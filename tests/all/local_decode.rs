//! The embedded engine behind the gateway: answers, refusals, hang-ups, on a tiny generated model.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Plan, cloud};
use crate::support::http::End;
use crate::support::rude::{self, LEAVES, Leave, Rude};
use crate::support::upstream::Upstream;
use crate::support::{answers, canary, tiny};

/// The promise for local decode: one step and 50 ms, here the same limit as everywhere.
const LIMIT: Duration = Duration::from_millis(100);
const SAMPLES: usize = 8;

pub fn embedded() -> Plan {
    let plan = Plan::new(&format!(
        "\n[backends.tiny]\nplace = \"local\"\nkind = \"embedded\"\nmodel = \"./tiny.gguf\"\ncontext = {}\nthreads = 1\n",
        tiny::CONTEXT
    ));
    tiny::write(plan.folder.path());
    plan
}

/// One that answers one query at a time.
fn narrow() -> Plan {
    embedded().set("backends.tiny.streams", "1")
}

pub async fn ready(plan: Plan) -> Gateway {
    let gateway = plan.start().await;
    let end = Instant::now() + crate::support::PATIENCE;
    while gateway.post(&ask(1, json!({}))).await.status != 200 {
        assert!(Instant::now() < end, "the model did not load");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway
}

pub fn ask(tokens: u32, more: Value) -> Value {
    let mut body = json!({
        "model": "local/tiny", "messages": [{ "role": "user", "content": canary::PROMPT }], "max_tokens": tokens, "temperature": 1.0,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

pub fn request(body: &Value) -> Vec<u8> {
    rude::request("POST", "/v1/chat/completions", body.to_string().as_bytes())
}

#[tokio::test]
async fn an_answer_and_its_stream_are_the_same_text_and_the_same_count() {
    let gateway = ready(embedded()).await;
    let whole = gateway.post(&ask(24, json!({ "seed": 5 }))).await;
    assert_eq!(whole.status, 200, "{whole:?}");
    let body = whole.json();
    let text = body["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert_eq!(
        (&body["choices"][0]["finish_reason"], &body["usage"]["completion_tokens"]),
        (&json!("length"), &json!(24))
    );
    let streamed =
        gateway.post(&ask(24, json!({ "seed": 5, "stream": true, "stream_options": { "include_usage": true } }))).await;
    assert_eq!((streamed.status, streamed.end), (200, End::Whole), "{streamed:?}");
    let events = streamed.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let events: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let pieces: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(pieces, text);
    assert_eq!(events.last().unwrap()["usage"], body["usage"]);
    let quiet = gateway.post(&ask(4, json!({ "stream": true }))).await;
    assert!(!quiet.text().contains("\"usage\":{"), "usage that nobody asked for");
    let other = gateway.post(&ask(24, json!({ "seed": 6 }))).await.json();
    assert_ne!(other["choices"][0]["message"]["content"], text.as_str(), "another seed, the same text");
    let entries = gateway.finish().await;
    let entry = entries.iter().find(|entry| entry["output_tokens"] == 24).unwrap();
    assert_eq!(
        (&entry["token_source"], &entry["place"], &entry["outcome"]),
        (&json!("engine"), &json!("local"), &json!("ok"))
    );
}

#[tokio::test]
async fn what_the_engine_cannot_do_is_a_400_that_names_the_field() {
    let gateway = ready(embedded()).await;
    let tool = json!([{ "type": "function", "function": { "name": "x", "parameters": {} } }]);
    for (field, value) in [
        ("tools", tool),
        ("n", json!(2)),
        ("response_format", json!({ "type": "json_object" })),
        ("logit_bias", json!({ "5": 1 })),
        ("presence_penalty", json!(0.5)),
        ("temperature", json!(-1)),
        ("temperature", json!(2.5)),
        ("top_p", json!(0)),
        ("max_tokens", json!(0)),
        ("stop", json!(["1", "2", "3", "4", "5"])),
        ("top_logprobs", json!(99)),
    ] {
        let reply = gateway.post(&ask(4, json!({ field: value }))).await;
        assert_eq!(reply.status, 400, "{field} = {value}: {reply:?}");
        reply.code();
        let param = reply.json()["error"]["param"].as_str().unwrap_or_default().to_owned();
        assert!(param.starts_with(field), "{field}: {param}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_query_that_the_engine_cannot_serve_goes_to_a_backend_that_can() {
    let far = Upstream::always(answers::well()).await;
    let gateway = ready(embedded().with(&cloud("far", &far.base()))).await;
    let tool = json!([{ "type": "function", "function": { "name": "x", "parameters": {} } }]);
    let reply = gateway.post(&ask(4, json!({ "model": "auto", "tools": tool }))).await;
    assert_eq!((reply.status, reply.header("x-wattroute-place")), (200, Some("cloud")), "{reply:?}");
    let long = "word ".repeat(8000);
    let body = json!({ "model": "auto", "messages": [{ "role": "user", "content": long }] });
    let reply = gateway.post(&body).await;
    assert_eq!((reply.status, reply.header("x-wattroute-place")), (200, Some("cloud")), "{reply:?}");
    let reply =
        gateway.post(&json!({ "model": "local/tiny", "messages": [{ "role": "user", "content": long }] })).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "context_length_exceeded"), "{reply:?}");
    // By its bytes this one would fit; the engine's own count decides, before anybody is asked.
    let dense =
        json!({ "model": "auto", "messages": [{ "role": "user", "content": "7~".repeat(tiny::CONTEXT as usize) }] });
    let reply = gateway.post(&dense).await;
    assert_eq!((reply.status, reply.header("x-wattroute-place")), (200, Some("cloud")), "{reply:?}");
    let entries = gateway.finish().await;
    assert!(entries.iter().all(|entry| entry["attempts"].as_u64() <= Some(1)), "{entries:?}");
}

/// Leaves, then measures how long until the engine has answered somebody else.
async fn sample(gateway: &Gateway, how: Leave, streaming: bool) -> Duration {
    let mut client = Rude::connect(gateway.data).await;
    client.send(&request(&ask(15_000, json!({ "stream": streaming })))).await;
    if streaming {
        client.until("\"content\":").await;
    } else {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = Instant::now();
    let stays = client.leave(how).await;
    let reply = gateway.post(&ask(1, json!({}))).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    drop(stays);
    left.elapsed()
}

/// How long a short question takes when nobody else asks anything.
async fn alone(gateway: &Gateway) -> Duration {
    let began = Instant::now();
    assert_eq!(gateway.post(&ask(1, json!({}))).await.status, 200);
    began.elapsed()
}

/// That decoding stops, by steps, is tested in the engine (`who_leaves_is_gone_after_one_turn_and_the_others_stay`); here,
/// that hang-ups reach it. An answer that went on would hold the next question up for seconds. Every sample has another
/// beside it of the same question without a hang-up before it, so that a busy machine lengthens both.
#[tokio::test]
async fn a_hang_up_stops_decoding() {
    let gateway = ready(narrow()).await;
    let (mut delays, mut usual) = (Vec::new(), Vec::new());
    for streaming in [true, false] {
        for how in LEAVES {
            for _ in 0..SAMPLES {
                usual.push(alone(&gateway).await);
                delays.push(sample(&gateway, how, streaming).await);
            }
        }
    }
    delays.sort();
    usual.sort();
    let middle = |all: &[Duration]| all[all.len() / 2];
    let longest = usual[usual.len() - 1];
    let p99 = delays[(delays.len() * 99).div_ceil(100) - 1];
    assert!(middle(&delays) <= middle(&usual) + LIMIT, "{delays:?}, beside {usual:?}");
    assert!(p99 <= 2 * longest + LIMIT, "p99 {p99:?} of {delays:?}, beside {usual:?}");
    let entries = gateway.finish().await;
    let gone = entries.iter().filter(|entry| entry["outcome"] == "hangup");
    assert_eq!(gone.count(), 2 * LEAVES.len() * SAMPLES);
}

#[tokio::test]
async fn a_hang_up_in_the_queue_gives_the_place_back() {
    let gateway = ready(narrow().with("\n[limits]\nin_flight = 2\n")).await;
    let mut first = Rude::connect(gateway.data).await;
    first.send(&request(&ask(15_000, json!({ "stream": true })))).await;
    first.until("\"content\":").await;
    let busy = async || gateway.ask(&rude::request("GET", "/v1/models", b"")).await.status == 503;
    let mut delays = Vec::new();
    for how in LEAVES {
        for _ in 0..SAMPLES / 2 {
            let mut queued = Rude::connect(gateway.data).await;
            queued.send(&request(&ask(5, json!({})))).await;
            let end = Instant::now() + crate::support::PATIENCE;
            while !busy().await {
                assert!(Instant::now() < end, "never queued");
            }
            let left = Instant::now();
            let stays = queued.leave(how).await;
            while busy().await {
                assert!(Instant::now() < end, "the place never came back");
            }
            delays.push(left.elapsed());
            drop(stays);
        }
    }
    delays.sort();
    assert!(delays[delays.len() - 1] <= LIMIT, "{delays:?}");
    drop(first);
    let entries = gateway.finish().await;
    let gone = entries.iter().filter(|entry| entry["outcome"] == "hangup").count();
    assert_eq!(gone, 1 + LEAVES.len() * (SAMPLES / 2));
}

#[tokio::test]
async fn a_full_queue_is_a_503_and_a_fall_back_where_there_is_one() {
    let gateway = ready(narrow().set("backends.tiny.queue", "1")).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Rude::connect(gateway.data).await;
        client.send(&request(&ask(15_000, json!({ "stream": true })))).await;
        clients.push(client);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let reply = gateway.post(&ask(1, json!({}))).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    drop(clients);
    gateway.finish().await;
}

#[tokio::test]
async fn a_broken_model_file_switches_its_backend_off_and_says_why() {
    let far = Upstream::always(answers::well()).await;
    let whole = tiny::bytes();
    for (what, bytes) in
        [("cut", whole[..whole.len() / 2].to_vec()), ("other", b"not a model".to_vec()), ("head", whole[..64].to_vec())]
    {
        let plan = embedded().with(&cloud("far", &far.base()));
        std::fs::write(plan.folder.path().join("tiny.gguf"), bytes).unwrap();
        let gateway = plan.start().await;
        let reply = gateway.chat("auto", false).await;
        assert_eq!((reply.status, reply.header("x-wattroute-place")), (200, Some("cloud")), "{what}: {reply:?}");
        let reply = gateway.chat("local/tiny", false).await;
        assert!(reply.status >= 500, "{what}: {reply:?}");
        assert!(reply.text().contains("gguf") || reply.text().contains("model"), "{what}: {reply:?}");
        gateway.finish().await;
    }
}
