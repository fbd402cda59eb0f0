//! A conversation stays where it was answered last, if the policy says what switching costs.

use serde_json::{Value, json};

use crate::support::answers::well;
use crate::support::canary;
use crate::support::gateway::{Gateway, Plan, cloud};
use crate::support::upstream::Upstream;

const POLICY: &str =
    "name = \"mine\"\nabout = \"Mine.\"\n[rule]\nkind = \"objective\"\nminimise = \"cost\"\nmax_quality_loss = 1.0\n";

async fn gateway(upstream: &Upstream, sticky: &str) -> Gateway {
    let priced = |name: &str, price: f64| {
        cloud(name, &upstream.base()) + &format!("[backends.{name}.price]\ninput = {price}\noutput = {price}\n")
    };
    let text = priced("cheap", 1.0) + &priced("dear", 1.2) + "\n[policy]\nfolder = \".\"\ndefault = \"mine\"\n";
    let plan = Plan::new(&text);
    std::fs::write(plan.folder.path().join("mine.toml"), format!("{POLICY}{sticky}")).unwrap();
    plan.start().await
}

fn turn(model: &str, more: Value) -> Value {
    let mut body = json!({ "model": model, "messages": [{ "role": "user", "content": canary::PROMPT }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_conversation_stays_by_its_key_its_user_or_its_beginning_and_only_if_it_is_worth_it() {
    let upstream = Upstream::always(well()).await;
    let keys = [
        json!({ "wattroute": { "session": "one" } }),
        json!({ "user": "two" }),
        json!({ "metadata": { "session": "three" } }),
        json!({}),
    ];
    let on = "[sticky]\nswitching = 0.5\nuser = true\nprefix = true\n";
    let too_cheap = on.replace("0.5", "0.1");
    for (sticky, stays) in [(on, true), (too_cheap.as_str(), false), ("", false)] {
        let gateway = gateway(&upstream, sticky).await;
        for key in &keys {
            assert_eq!(gateway.post(&turn("cloud/dear", key.clone())).await.status, 200);
            let reply = gateway.post(&turn("auto", key.clone())).await;
            let want = if stays { "cloud/dear" } else { "cloud/cheap" };
            assert_eq!(reply.header("x-wattroute-backend"), Some(want), "{sticky} {key}: {reply:?}");
            let why = reply.header("x-wattroute-reason").unwrap();
            assert_eq!(why.contains("its conversation is there"), stays, "{why}");
        }
        let stranger = gateway.post(&turn("auto", json!({ "wattroute": { "session": "other" } }))).await;
        assert_eq!(stranger.header("x-wattroute-backend"), Some("cloud/cheap"), "{stranger:?}");
        gateway.finish().await;
    }
}
