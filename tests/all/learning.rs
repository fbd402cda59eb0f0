//! Learning from traffic: joules, waits and lengths move towards what is seen, within bounds, and outlive a restart.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::answers::{CHUNKED, DONE, chunk, delta, finish, json_response, usage};
use crate::support::gateway::{Gateway, Plan, local};
use crate::support::upstream::{Step, Upstream};

/// A server whose answers are far longer than the table's.
async fn chatty() -> Upstream {
    let answer = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "near-model",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "so many words"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 900, "total_tokens": 912}});
    Upstream::always(vec![Step::Request, Step::Send(json_response(200, &[], &answer)), Step::Again]).await
}

fn plan(base: &str, mode: &str, folder: Option<TempDir>) -> Plan {
    let near = local("near", base).replace("\nmodel =", "\ntable = \"smollm2-135m\"\nmodel =");
    let mut plan = Plan::new(&near).set("learning", mode);
    if let Some(folder) = folder {
        plan.folder = folder;
    }
    plan
}

async fn ask(gateway: &Gateway, times: u32) {
    for _ in 0..times {
        assert_eq!(gateway.chat("local/near", false).await.status, 200);
    }
    assert!(gateway.app().journal.flush().await);
}

/// Factors of lengths that moved, by domain.
fn lengths(gateway: &Gateway) -> Vec<f64> {
    let state = gateway.app().state.load();
    state.backends[0].outlook.factors.outputs().filter(|f| (f - 1.0).abs() > 1e-9).collect()
}

#[tokio::test]
async fn lengths_are_learned_kept_over_a_restart_frozen_and_switched_off() {
    let near = chatty().await;
    let gateway = plan(&near.base(), "on", None).start().await;
    ask(&gateway, 30).await;
    let [learned] = lengths(&gateway)[..] else { panic!("one domain was asked") };
    assert!(learned > 1.3 && learned <= 3.0, "{learned}");
    let folder = gateway.end().await;
    let kept: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("journal.db.learned.json")).unwrap()).unwrap();
    assert_eq!(kept["backends"]["local/near"]["joules"]["n"], 0, "a table's figure teaches no joules");

    let frozen = plan(&near.base(), "frozen", Some(folder)).start().await;
    assert_eq!(lengths(&frozen), [learned], "what was learned is in force");
    ask(&frozen, 10).await;
    assert_eq!(lengths(&frozen), [learned], "and stays as it is");
    let folder = frozen.end().await;

    let off = plan(&near.base(), "off", Some(folder)).start().await;
    ask(&off, 5).await;
    assert!(lengths(&off).is_empty(), "the table alone");
    let folder = off.end().await;

    let on = plan(&near.base(), "on", Some(folder)).start().await;
    assert_eq!(lengths(&on), [learned]);
    ask(&on, 200).await;
    assert_eq!(lengths(&on), [3.0], "far beyond the table: at the bound");
    on.end().await;
}

/// A server that thinks for a while and then writes ten tokens at once.
async fn thoughtful(pause: Duration) -> Upstream {
    let words: String = (0..10).map(|_| delta("word")).collect();
    let events = words + &finish("stop") + &usage() + DONE;
    let body = (chunk(&events) + "0\r\n\r\n").into_bytes();
    let steps =
        vec![Step::Request, Step::Gap(pause), Step::Send(CHUNKED.as_bytes().to_vec()), Step::Send(body), Step::Again];
    Upstream::always(steps).await
}

#[tokio::test]
async fn waits_for_the_first_token_are_learned_from_streams() {
    // The table expects a few tokens of prompt to be read within milliseconds.
    let slow = thoughtful(Duration::from_millis(400)).await;
    let gateway = plan(&slow.base(), "on", None).start().await;
    let factor = |gateway: &Gateway| gateway.app().state.load().backends[0].outlook.factors.first();
    assert!((factor(&gateway) - 1.0).abs() < 1e-12);
    for _ in 0..4 {
        assert_eq!(gateway.chat("local/near", true).await.status, 200);
    }
    assert!(gateway.app().journal.flush().await);
    let learned = factor(&gateway);
    assert!(learned > 1.05 && learned <= 3.0, "{learned}");
    let folder = gateway.end().await;
    let kept: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("journal.db.learned.json")).unwrap()).unwrap();
    assert_eq!(kept["backends"]["local/near"]["first"]["n"], 4);
    let again = plan(&slow.base(), "frozen", Some(folder)).start().await;
    assert!((factor(&again) - learned).abs() < 1e-12, "in force after a restart");
    again.end().await;
}
