//! Several queries at a time on one embedded model, through the gateway, on a tiny generated model.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::local_decode::{ask, embedded, ready, request};
use crate::support::gateway::Gateway;
use crate::support::rude::{Leave, Rude};

/// Queries that the model answers at a time unless told otherwise.
const STREAMS: usize = 8;
/// More tokens than any test waits for.
const FOR_EVER: u32 = 15_000;

fn said(body: &Value) -> String {
    body["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// A client that has read the first words of an answer that does not end.
async fn speaking(gateway: &Gateway) -> Rude {
    let mut client = Rude::connect(gateway.data).await;
    client.send(&request(&ask(FOR_EVER, json!({ "stream": true })))).await;
    client.until("\"content\":").await;
    client
}

/// The value of a metric's line with this label.
fn metric(text: &str, name: &str, label: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(name) && line.contains(label));
    line.and_then(|line| line.rsplit(' ').next()).unwrap_or_else(|| panic!("no {name} {label}")).parse().unwrap()
}

#[tokio::test]
async fn eight_answers_at_once_are_those_that_each_gets_alone() {
    let gateway = ready(embedded()).await;
    let bodies: Vec<Value> = (0..STREAMS as u64)
        .map(|seed| {
            let words = format!("question {seed} {}", "and ".repeat(seed as usize * 9));
            ask(24, json!({ "seed": seed, "messages": [{ "role": "user", "content": words }] }))
        })
        .collect();
    let mut alone = Vec::new();
    for body in &bodies {
        alone.push(said(&gateway.post(body).await.json()));
    }
    let together = join_all(bodies.iter().map(|body| gateway.post(body))).await;
    let together: Vec<String> = together.iter().map(|reply| said(&reply.json())).collect();
    assert_eq!(together, alone);
    gateway.finish().await;
}

#[tokio::test]
async fn eight_speak_at_a_time_and_the_ninth_takes_the_place_of_one_that_leaves() {
    let gateway = ready(embedded()).await;
    let mut clients = Vec::new();
    for _ in 0..STREAMS {
        clients.push(speaking(&gateway).await);
    }
    let ninth = async {
        let reply = gateway.post(&ask(3, json!({}))).await;
        (reply, Instant::now())
    };
    let leaving = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let left = Instant::now();
        clients.pop().unwrap().leave(Leave::Reset).await;
        left
    };
    let ((reply, answered), left) = tokio::join!(ninth, leaving);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(answered > left, "the ninth was answered beside eight");
    let at_work = metric(&gateway.metrics().await, "wattroute_queue_depth", "local/tiny");
    assert_eq!(at_work, 7.0, "the others are still at it");
    drop(clients);
    gateway.finish().await;
}

#[tokio::test]
async fn a_short_question_does_not_wait_for_a_long_prompt() {
    let gateway = ready(embedded()).await;
    let long = json!({ "messages": [{ "role": "user", "content": "word ".repeat(1000) }] });
    let reading = async {
        let reply = gateway.post(&ask(1, long)).await;
        (reply, Instant::now())
    };
    let asking = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let reply = gateway.post(&ask(2, json!({}))).await;
        (reply, Instant::now())
    };
    let ((long, read), (short, answered)) = tokio::join!(reading, asking);
    assert_eq!((long.status, short.status), (200, 200), "{long:?} {short:?}");
    assert!(answered < read, "the short question waited for the long prompt");
    gateway.finish().await;
}

#[tokio::test]
async fn memory_for_keys_and_values_is_bounded_and_reported() {
    let plan = embedded().set("backends.tiny.context", "2048").set("backends.tiny.kv_memory", "6MiB");
    let gateway = ready(plan).await;
    // Each may grow to 1,600 tokens, 4 MB: the second waits for the first. On a busy machine the first may have ended before
    // anybody looked; then there is another one.
    let mut tries = 0;
    let (first, bound, promised) = loop {
        let mut first = Rude::connect(gateway.data).await;
        first.send(&request(&ask(1_500, json!({ "stream": true })))).await;
        first.until("\"content\":").await;
        let text = gateway.metrics().await;
        let [bound, promised] = ["bound", "promised"].map(|of| metric(&text, "wattroute_kv_bytes", of));
        tries += 1;
        if promised > 0.0 || tries == 20 {
            break (first, bound, promised);
        }
    };
    assert_eq!(bound, f64::from(6 << 20));
    assert!(promised > bound / 2.0 && promised <= bound, "{promised} of {bound}");
    let second = async {
        let reply = gateway.post(&ask(1_500, json!({}))).await;
        (reply, Instant::now())
    };
    let leaving = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let left = Instant::now();
        first.leave(Leave::Reset).await;
        left
    };
    let ((reply, answered), left) = tokio::join!(second, leaving);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(answered > left);
    gateway.finish().await;
}

#[tokio::test]
async fn a_bound_below_one_context_switches_the_backend_off() {
    let gateway = embedded().set("backends.tiny.kv_memory", "1MiB").start().await;
    let reply = gateway.post(&ask(1, json!({}))).await;
    assert!(reply.status >= 500, "{reply:?}");
    gateway.finish().await;
}
