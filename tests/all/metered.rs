//! A gateway on a machine with an energy counter: the journal has what answers took, not what a table expects.

use std::time::Duration;

use serde_json::json;

use crate::support::answers::{CHUNKED, DONE, chunk, delta, finish, usage};
use crate::support::counter::{Counter, WATTS};
use crate::support::gateway::{Plan, cloud, local};
use crate::support::upstream::{Step, Upstream};

/// A streamed answer of ten tokens and a usage event that takes about half a second.
fn slow() -> Vec<Step> {
    let words: String = (0..10).map(|_| delta("word")).collect();
    let events = words + &finish("stop") + &usage() + DONE;
    let body: Vec<u8> = [CHUNKED, &chunk(&events), "0\r\n\r\n"].concat().into_bytes();
    let piece = body.len() / 10;
    vec![Step::Request, Step::Drip(body, piece, Duration::from_millis(50)), Step::Again]
}

#[tokio::test]
async fn an_answer_of_this_machine_is_charged_what_the_counter_counted() {
    let (near, far) = (Upstream::always(slow()).await, Upstream::always(slow()).await);
    let counter = Counter::start();
    let text = local("near", &near.base()) + &cloud("far", &far.base()) + &counter.config();
    let gateway = Plan::new(&text).start().await;
    for model in ["local/near", "cloud/far"] {
        assert_eq!(gateway.chat(model, true).await.status, 200);
    }
    let entries = gateway.finish().await;
    let entry = |place: &str| entries.iter().find(|e| e["place"] == place).unwrap();
    let (here, there) = (entry("local"), entry("cloud"));
    assert_eq!((&here["outcome"], &here["joules_basis"]), (&json!("ok"), &json!("counter")), "{here}");
    let joules = here["joules_mid"].as_f64().unwrap();
    let most = WATTS * here["total_ms"].as_f64().unwrap() / 1e3;
    // What was counted while it ran; the counter steps every few milliseconds and is read every fifty.
    assert!(joules > 0.7 * most && joules < 1.1 * most + 2.0, "{joules} of {most}");
    assert_ne!(there["joules_basis"], "counter", "nobody here meters the cloud");
}

#[tokio::test]
async fn what_the_counter_counts_teaches_the_gateway_its_own_joules() {
    let near = Upstream::always(slow()).await;
    let counter = Counter::start();
    let text =
        local("near", &near.base()).replace("\nmodel =", "\ntable = \"smollm2-135m\"\nmodel =") + &counter.config();
    let gateway = Plan::new(&text).set("learning", "on").start().await;
    let factor = || gateway.app().state.load().backends[0].outlook.factors.joules();
    assert!((factor() - 1.0).abs() < 1e-12);
    for _ in 0..4 {
        assert_eq!(gateway.chat("local/near", true).await.status, 200);
    }
    assert!(gateway.app().journal.flush().await);
    // A hundred watts for half a second are far more than the table's joules for a few tokens of a small model.
    let learned = factor();
    assert!(learned > 1.05, "{learned}");
    let said = gateway.metrics().await;
    assert!(said.contains("wattroute_learned_factor{backend=\"local/near\",figure=\"joules\"}"), "{said}");
    assert_eq!(gateway.finish().await.len(), 4);
}

#[tokio::test]
async fn a_gateway_told_not_to_read_meters_keeps_to_its_tables() {
    let near = Upstream::always(slow()).await;
    let counter = Counter::start();
    let text = local("near", &near.base()) + &counter.config() + "read_meters = false\n";
    let gateway = Plan::new(&text).start().await;
    assert_eq!(gateway.chat("local/near", true).await.status, 200);
    let entries = gateway.finish().await;
    assert_ne!(entries[0]["joules_basis"], "counter", "{}", entries[0]);
}
