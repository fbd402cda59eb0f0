//! A policy that learns: scores move its choices, exactly once each, over a restart, and can be frozen and taken back.

use serde_json::{Value, json};

use crate::support::answers::well;
use crate::support::canary;
use crate::support::gateway::{Gateway, Plan, cloud, local};
use crate::support::http::Reply;
use crate::support::rude::{self, Rude};
use crate::support::upstream::Upstream;

/// Fewest joules; the local backend is a little too bad for it by its table.
const POLICY: &str = "name = \"mine\"\nabout = \"Mine.\"\n[rule]\nkind = \"objective\"\nminimise = \"energy\"\nmax_quality_loss = 0.26\n\
    [bandit]\nshare = 0.0\nmax_shift = 0.5\n";

fn plan(near: &Upstream, far: &Upstream) -> Plan {
    let near = local("near", &near.base()).replace("\nmodel =", "\ntable = \"smollm2-135m\"\nmodel =");
    let far = cloud("far", &far.base()) + "[backends.far.energy]\nactive = [20]\ntotal = [20]\n";
    let plan = Plan::new(&(near + &far));
    std::fs::write(plan.folder.path().join("mine.toml"), POLICY).unwrap();
    plan.with("\n[policy]\nfolder = \".\"\ndefault = \"mine\"\n[energy]\nread_meters = false\n")
}

async fn ask(gateway: &Gateway) -> (String, String) {
    let reply = gateway.chat("auto", false).await;
    let told = |name: &str| reply.header(&format!("x-wattroute-{name}")).unwrap().to_owned();
    (told("backend"), told("decision-id"))
}

async fn score(gateway: &Gateway, id: &str, score: f64) {
    let body = json!({ "decision_id": id, "score": score }).to_string();
    let reply = gateway.ask(&rude::request("POST", "/v1/feedback", body.as_bytes())).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

async fn admin(gateway: &Gateway, method: &str, path: &str) -> Reply {
    let mut client = Rude::connect(gateway.admin).await;
    client.send(format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").as_bytes()).await;
    client.reply().await
}

async fn judgements(gateway: &Gateway) -> Value {
    admin(gateway, "GET", "/admin/bandit").await.json()["backends"]["cloud/far"]["judgements"].clone()
}

#[tokio::test]
async fn bad_scores_move_queries_away_over_a_restart_until_they_are_taken_back() {
    let (near, far) = (Upstream::always(well()).await, Upstream::always(well()).await);
    let gateway = plan(&near, &far).start().await;
    let mut ids = Vec::new();
    for _ in 0..25 {
        let (backend, id) = ask(&gateway).await;
        assert_eq!(backend, "cloud/far");
        ids.push(id);
    }
    for id in &ids {
        score(&gateway, id, 0.0).await;
    }
    assert_eq!(judgements(&gateway).await, 25);
    score(&gateway, &ids[0], 0.0).await;
    assert_eq!(judgements(&gateway).await, 25, "the same score again teaches nothing");
    assert_eq!(ask(&gateway).await.0, "local/near", "the cloud turned out to be bad here");
    let folder = gateway.end().await;

    let mut later = plan(&near, &far);
    later.folder = folder;
    let gateway = later.start().await;
    assert_eq!(ask(&gateway).await.0, "local/near", "what was learned outlives a restart");
    let frozen = admin(&gateway, "POST", "/admin/bandit/freeze").await;
    assert_eq!((frozen.status, &frozen.json()["frozen"]), (200, &json!(true)));
    let (_, id) = ask(&gateway).await;
    score(&gateway, &id, 0.0).await;
    let facts = admin(&gateway, "GET", "/admin/bandit").await.json();
    assert!(facts["backends"]["local/near"].is_null(), "frozen: {facts}");
    assert_eq!(admin(&gateway, "GET", "/admin/bandit/rollback").await.status, 405);
    let back = admin(&gateway, "POST", "/admin/bandit/rollback").await;
    assert_eq!((back.status, &back.json()["backends"]), (200, &json!({})));
    assert_eq!(ask(&gateway).await.0, "cloud/far", "as before all of it");
    let entries = gateway.finish().await;
    let last = entries.last().unwrap();
    assert_eq!((&last["policy"], &last["propensity"]), (&json!("mine"), &json!(1.0)));
    assert!(!json!(entries).to_string().contains(canary::PROMPT));
}

#[tokio::test]
async fn a_damaged_file_is_put_aside_and_other_policies_learn_nothing() {
    let (near, far) = (Upstream::always(well()).await, Upstream::always(well()).await);
    let plan = plan(&near, &far).set("policy.default", "balanced");
    let file = plan.folder.path().join("journal.db.bandit.json");
    std::fs::write(&file, "{\"version\":1,\"blake3\":\"00\",\"state\":{}}").unwrap();
    let gateway = plan.start().await;
    assert!(!file.exists() && gateway.folder.path().join("journal.db.bandit.bad").exists());
    let (_, id) = ask(&gateway).await;
    score(&gateway, &id, 0.0).await;
    let facts = admin(&gateway, "GET", "/admin/bandit").await.json();
    assert_eq!(facts, json!({ "frozen": false, "backends": {}, "points_unix_ms": [] }));
    gateway.finish().await;
}
