//! Shadows: some queries are asked again of the other place once the client has its answer, and only the journal hears of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::answers::{completion, json_response, once};
use crate::support::canary;
use crate::support::gateway::{Gateway, Plan, cloud, local};
use crate::support::upstream::Upstream;

const LOCAL_FIRST: &str =
    "name = \"mine\"\nabout = \"Mine.\"\n[rule]\nkind = \"coverage-threshold\"\nthreshold = 0.0\n";
const PRICE: &str = "[backends.far.price]\ninput = 1.0\noutput = 2.0\n";
const ALL: &str = "[shadow]\nshare = 1.0\n";

fn says(words: &str) -> Vec<u8> {
    let mut body = completion();
    body["choices"][0]["message"]["content"] = json!(format!("canaryanswer {words}"));
    json_response(200, &[], &body)
}

/// A gateway that answers locally, a cloud server beside it.
async fn gateway(near: &Upstream, far: &Upstream, price: &str, more: &str) -> Gateway {
    let near = local("near", &near.base()).replace("near-model", "smollm2-135m");
    let far = cloud("far", &far.base()) + "[backends.far.energy]\nactive = [20]\ntotal = [20]\n" + price;
    let plan = Plan::new(&(near + &far));
    std::fs::write(plan.folder.path().join("mine.toml"), LOCAL_FIRST).unwrap();
    let policy = "\n[policy]\nfolder = \".\"\ndefault = \"mine\"\n[energy]\nread_meters = false\n";
    plan.with(&format!("{policy}{more}")).start().await
}

/// Until the shadow was asked, and its answer read.
async fn settled(upstream: &Upstream, requests: usize) {
    for _ in 0..200 {
        if upstream.requests().len() >= requests {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn of(entries: &[Value], endpoint: &str) -> Vec<Value> {
    entries.iter().filter(|entry| entry["endpoint"] == endpoint).cloned().collect()
}

#[tokio::test]
async fn the_other_place_is_asked_after_the_answer_and_only_the_journal_hears_of_it() {
    let near = Upstream::always(once(says("is four"))).await;
    let far = Upstream::always(once(says("is five"))).await;
    let gateway = gateway(&near, &far, PRICE, ALL).await;
    let reply = gateway.chat("auto", false).await;
    assert!(reply.text().contains("is four") && !reply.text().contains("five"));
    settled(&far, 1).await;
    let entries = gateway.finish().await;
    let (given, shadows) = (of(&entries, "chat"), of(&entries, "shadow"));
    assert_eq!((given.len(), shadows.len()), (1, 1), "{entries:?}");
    assert_eq!(shadows[0]["decision_id"], given[0]["decision_id"]);
    assert_eq!((&shadows[0]["backend"], &shadows[0]["outcome"]), (&json!("cloud/far"), &json!("ok")));
    let agreement = shadows[0]["confidence"].as_f64().unwrap();
    assert!((agreement - 2.0 / 3.0).abs() < 1e-9, "two words of three: {agreement}");
    assert!(shadows[0]["joules_mid"].as_f64().unwrap() > 0.0 && shadows[0]["usd"].as_f64().unwrap() > 0.0);
    assert_eq!(shadows[0]["saved_mid"], Value::Null, "nothing is saved by asking twice");
    assert!(!json!(entries).to_string().contains("canaryanswer"));
    assert_eq!(far.requests()[0].json()["messages"][0]["content"], canary::PROMPT);
}

#[tokio::test]
async fn private_and_pinned_queries_are_never_asked_again_nor_what_has_no_price_or_no_budget() {
    for (price, more, model, private) in [
        (PRICE, ALL, "auto", true),
        (PRICE, ALL, "local/near", false),
        ("", ALL, "auto", false),
        (PRICE, "[shadow]\nshare = 1.0\njoules_per_hour = 0.1\n", "auto", false),
        (PRICE, "[shadow]\nshare = 1.0\nusd_per_hour = 0.0\n", "auto", false),
        (PRICE, "", "auto", false),
    ] {
        let near = Upstream::always(once(says("is four"))).await;
        let far = Upstream::always(once(says("is five"))).await;
        let gateway = gateway(&near, &far, price, more).await;
        let mut body = json!({ "model": model, "messages": [{ "role": "user", "content": canary::PROMPT }] });
        if private {
            body["wattroute"] = json!({ "private": true });
        }
        assert_eq!(gateway.post(&body).await.status, 200);
        settled(&near, 1).await;
        let entries = gateway.finish().await;
        assert_eq!((entries.len(), far.requests().len()), (1, 0), "{price} {more} {model} {private}");
    }
}

#[tokio::test]
async fn a_shadow_that_fails_is_written_down_and_harms_nobody() {
    let near = Upstream::always(once(says("is four"))).await;
    let far = Upstream::always(once(json_response(500, &[], &json!({ "error": { "message": "no" } })))).await;
    let gateway = gateway(&near, &far, PRICE, ALL).await;
    for _ in 0..3 {
        assert_eq!(gateway.chat("auto", false).await.status, 200);
    }
    settled(&far, 1).await;
    let entries = gateway.finish().await;
    let shadows = of(&entries, "shadow");
    assert_eq!(of(&entries, "chat").len(), 3);
    assert!(!shadows.is_empty() && shadows.iter().all(|shadow| shadow["confidence"].is_null()), "{shadows:?}");
}

#[tokio::test]
async fn a_judge_reads_both_answers_in_both_orders_within_the_budget() {
    for (verdicts, judged) in [(["[[A]]", "[[B]]"], json!(1.0)), (["[[A]]", "[[A]]"], Value::Null)] {
        let near = Upstream::always(once(says("is four"))).await;
        let far = Upstream::always(once(says("is five"))).await;
        let wise = Upstream::by(move |n| once(says(verdicts[n.min(1)]))).await;
        let judge = local("wise", &wise.base()).replace("\nmodel =", "\ntable = \"smollm2-135m\"\nmodel =");
        let gateway = gateway(&near, &far, PRICE, &format!("{ALL}judge = \"local/wise\"\n{judge}")).await;
        let body = json!({ "model": "auto", "messages": [{ "role": "user", "content": canary::PROMPT }] });
        assert_eq!(gateway.post(&body).await.status, 200);
        settled(&wise, 2).await;
        let asked: Vec<String> =
            wise.requests().iter().map(|r| r.json()["messages"][0]["content"].to_string()).collect();
        assert_eq!(asked.len(), 2);
        let place = |text: &str, of: &str| text.find(of).unwrap();
        assert!(place(&asked[0], "is five") < place(&asked[0], "is four"), "the shadow's first");
        assert!(place(&asked[1], "is four") < place(&asked[1], "is five"));
        let shadows = of(&gateway.finish().await, "shadow");
        assert_eq!(shadows[0]["judged"], judged, "{shadows:?}");
        assert!(shadows[0]["wasted_joules"].as_f64().unwrap() > 0.0, "the judge is charged");
    }
}
