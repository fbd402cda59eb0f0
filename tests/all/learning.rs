//! Learning from traffic: joules, waits and lengths move towards what is seen, within bounds, and outlive a restart.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::answers::json_response;
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
