//! Feedback: kept once for an answer of one's own, in the journal, its sums and its export.

use serde_json::{Value, json};
use wattroute::journal::stats::{Filter, stats};

use crate::support::answers::well;
use crate::support::canary;
use crate::support::gateway::{Gateway, Plan, cloud};
use crate::support::http::Reply;
use crate::support::rude;
use crate::support::upstream::Upstream;

async fn give(gateway: &Gateway, key: &str, body: &Value) -> Reply {
    let request = rude::request("POST", "/v1/feedback", body.to_string().as_bytes());
    gateway.ask(String::from_utf8(request).unwrap().replace(canary::CLIENT_KEY, key).as_bytes()).await
}

async fn answered(gateway: &Gateway) -> String {
    let reply = gateway.chat("cloud/far", false).await;
    reply.header("x-wattroute-decision-id").unwrap().to_owned()
}

#[tokio::test]
async fn a_score_is_kept_once_for_an_answer_of_the_same_tenant() {
    let far = Upstream::always(well()).await;
    let gateway = Gateway::before(&far.base()).await;
    let (first, second) = (answered(&gateway).await, answered(&gateway).await);
    let score = |id: &str, score: f64| json!({ "decision_id": id, "score": score });
    for _ in 0..2 {
        let reply = give(&gateway, canary::CLIENT_KEY, &score(&first, 0.25)).await;
        assert_eq!((reply.status, reply.json()["score"].as_f64()), (200, Some(0.25)), "{reply:?}");
    }
    assert_eq!(
        give(&gateway, canary::CLIENT_KEY, &json!({ "decision_id": second, "rating": "bad" })).await.status,
        200
    );
    assert_eq!(
        give(&gateway, canary::CLIENT_KEY, &json!({ "decision_id": second, "rating": "good" })).await.status,
        200
    );
    // Another tenant's answer and one that never was look alike.
    let foreign = give(&gateway, canary::OTHER_KEY, &score(&first, 1.0)).await;
    let unknown = give(&gateway, canary::CLIENT_KEY, &score(&wattroute::clock::id().to_string(), 1.0)).await;
    assert_eq!((foreign.status, foreign.code()), (unknown.status, unknown.code()));
    assert_eq!(foreign.status, 404, "{foreign:?}");
    assert_eq!(foreign.json()["error"], unknown.json()["error"]);
    assert_eq!(give(&gateway, "wr-no-such-key", &score(&first, 1.0)).await.status, 401);
    let sums = stats(&gateway.folder.path().join("journal.db"), &Filter::default()).await.unwrap();
    assert_eq!((sums.scored, sums.score), (2, Some(0.625)));
    assert_eq!((sums.backends[0].scored, sums.backends[0].score), (2, Some(0.625)));
    let entries = gateway.finish().await;
    let scores: Vec<&Value> = entries.iter().map(|entry| &entry["feedback"]).collect();
    assert_eq!(scores, [&json!(0.25), &json!(1.0)]);
}

#[tokio::test]
async fn another_request_id_cannot_pose_as_a_decision() {
    let far = Upstream::always(well()).await;
    let gateway = Gateway::before(&far.base()).await;
    let victim = answered(&gateway).await;
    let body = rude::chat("cloud/far", false);
    let request = String::from_utf8(rude::request("POST", "/v1/chat/completions", &body)).unwrap();
    let posing = request.replace(canary::CLIENT_KEY, canary::OTHER_KEY).replacen(
        "\r\n",
        &format!("\r\nx-request-id: {victim}\r\n"),
        1,
    );
    assert_eq!(gateway.ask(posing.as_bytes()).await.status, 200);
    let reply = give(&gateway, canary::OTHER_KEY, &json!({ "decision_id": victim, "rating": "bad" })).await;
    assert_eq!(reply.status, 404, "{reply:?}");
    assert!(gateway.finish().await.iter().all(|entry| entry["feedback"].is_null()));
}

#[tokio::test]
async fn wrong_methods_bodies_and_a_journal_that_is_off_are_told() {
    let far = Upstream::always(well()).await;
    let plan = Plan::new(&cloud("far", &far.base())).set("journal.enabled", "false");
    let gateway = plan.start().await;
    let get = gateway.ask(&rude::request("GET", "/v1/feedback", b"")).await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")), "{get:?}");
    assert_eq!(give(&gateway, canary::CLIENT_KEY, &json!({ "decision_id": "7", "score": 1 })).await.status, 400);
    assert_eq!(give(&gateway, canary::CLIENT_KEY, &json!([1, 2])).await.status, 400);
    let id = answered(&gateway).await;
    let reply = give(&gateway, canary::CLIENT_KEY, &json!({ "decision_id": id, "score": 1 })).await;
    assert!([429, 503].contains(&reply.status), "{reply:?}");
    gateway.finish().await;
}
