//! What `train success` learned, in force: a gateway whose backend names an artifact decides by the query, not by its domain alone.

use std::process::Command;

use serde_json::{Value, json};
use wattroute::classify::Classifier;
use wattroute::predict::success::artifact;
use wattroute::predict::success::make::{Outcome, learn};

use crate::support::answers::well;
use crate::support::gateway::{Gateway, Plan, cloud, local};
use crate::support::rude;
use crate::support::upstream::Upstream;

const EASY: &str = "name the colour of thing 7 in the garden";
const HARD: &str = "prove the theorem about thing 7 in the garden";

/// An artifact of a model that names things and proves nothing.
fn artifact() -> Vec<u8> {
    let classifier = Classifier::shipped();
    let mut random = fastrand::Rng::with_seed(6);
    let rows: Vec<Outcome> = (0..400)
        .map(|i| {
            let hard = random.bool();
            let words = if hard { "prove the theorem about" } else { "name the colour of" };
            let text = format!("{words} thing {i} in the garden");
            let right = f64::from(u8::from(random.f64() < if hard { 0.05 } else { 0.97 }));
            Outcome {
                posterior: classifier.posterior(&text),
                text,
                models: vec![(Some(right), Some(if hard { 300.0 } else { 20.0 }))],
            }
        })
        .collect();
    artifact::render(&learn(&["owner/Near-Model".to_owned()], &rows, 7, &|| ()).unwrap())
}

fn near(decision: &Value) -> &Value {
    let all = decision["decision"]["alternatives"].as_array().unwrap();
    all.iter().find(|a| a["backend"] == "local/near").unwrap()
}

async fn routed(gateway: &Gateway, text: &str) -> Value {
    let body = json!({ "model": "auto", "messages": [{ "role": "user", "content": text }] });
    let reply = gateway.ask(&rude::request("POST", "/v1/route", body.to_string().as_bytes())).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

#[tokio::test]
async fn a_backend_with_an_artifact_is_judged_query_by_query() {
    let upstream = Upstream::always(well()).await;
    let plain = local("near", &upstream.base());
    let learned = plain.replace("\nmodel =", "\nsuccess = \"near.success.bin\"\nmodel =");
    let rest = cloud("far", &upstream.base());
    let plan = Plan::new(&format!("{learned}{rest}"));
    std::fs::write(plan.folder.path().join("near.success.bin"), artifact()).unwrap();
    let gateway = plan.start().await;
    let (easy, hard) = (routed(&gateway, EASY).await, routed(&gateway, HARD).await);
    let p = |decision: &Value| near(decision)["p_correct"].as_f64().unwrap();
    assert!(p(&easy) > 0.7 && p(&hard) < 0.25, "{} {}", p(&easy), p(&hard));
    for decision in [&easy, &hard] {
        assert_eq!(near(decision)["chance"]["source"], "predictor", "{decision}");
    }
    let folder = gateway.end().await;

    // Without it both are of one kind.
    let bare = Plan::new(&format!("{plain}{rest}")).start().await;
    let (easy, hard) = (routed(&bare, EASY).await, routed(&bare, HARD).await);
    assert!((p(&easy) - p(&hard)).abs() < 0.2 && near(&easy)["chance"]["source"] != "predictor", "{easy}");
    bare.end().await;

    explained(folder.path(), &learned);
    other_models_are_refused(folder.path(), &learned);
}

/// The command line says the same.
fn explained(folder: &std::path::Path, backends: &str) {
    let file = folder.join("explain.toml");
    std::fs::write(&file, backends).unwrap();
    let p = |text: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattroute"));
        let out = command.arg("--config").arg(&file).args(["explain", "--json", text]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        near(&serde_json::from_slice(&out.stdout).unwrap())["p_correct"].as_f64().unwrap()
    };
    assert!(p(EASY) > 0.7 && p(HARD) < 0.25, "{} {}", p(EASY), p(HARD));
}

fn other_models_are_refused(folder: &std::path::Path, backends: &str) {
    let file = folder.join("other.toml");
    std::fs::write(&file, backends.replace("near-model", "another-model")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattroute"));
    let out = command.arg("--config").arg(&file).args(["explain", "hello"]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(78), "{said}");
    assert!(said.contains("backends.near.success") && said.contains("owner/Near-Model"), "{said}");
}

const EXPLORING: &str = "name = \"curious\"\nabout = \"Looks at the other side at times.\"\n[rule]\nkind = \"all-cloud\"\n\
    [explore]\nshare = 0.1\nmax_quality_loss = 1.0\n";

#[tokio::test]
async fn an_exploring_policy_tells_the_odds_and_the_seed_of_every_choice() {
    let upstream = Upstream::always(well()).await;
    let text = local("near", &upstream.base()) + &cloud("far", &upstream.base());
    let text = text + "\n[policy]\nfolder = \".\"\ndefault = \"curious\"\n";
    let plan = Plan::new(&text);
    std::fs::write(plan.folder.path().join("curious.toml"), EXPLORING).unwrap();
    let gateway = plan.start().await;
    let mut drawn = 0;
    for _ in 0..300 {
        let decision = routed(&gateway, EASY).await;
        let (place, odds) = (&decision["decision"]["place"], decision["decision"]["propensity"].as_f64().unwrap());
        assert!((odds - if *place == "local" { 0.05 } else { 0.95 }).abs() < 1e-9, "{decision}");
        assert!(decision["decision"]["draw"].as_str().is_some_and(|seed| seed.parse::<u64>().is_ok()), "{decision}");
        drawn += i32::from(*place == "local");
    }
    assert!((1..60).contains(&drawn), "{drawn}");
    gateway.end().await;
}
