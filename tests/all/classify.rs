//! `[classify]` in a running gateway: which tier decided is told, its energy is charged, and without the encoder the fast tier
//! serves.

use serde_json::{Value, json};
use wattroute::classify::topics::{Head, Topics, VECTOR, file};
use wattroute::models::{self, Progress, Store};

use crate::support::answers::well;
use crate::support::gateway::{Gateway, Plan, cloud, local};
use crate::support::rude;
use crate::support::upstream::Upstream;

/// The shipped labels, with a head that says law whatever the encoder gives.
fn artifact() -> Vec<u8> {
    let topics = Topics::shipped("mmlu-pro").unwrap();
    let labels = topics.labels();
    let mut bias = vec![0.0; labels];
    bias[topics.taxonomy.label("law").unwrap()] = 9.0;
    let head = Head { weights: vec![0.0; (labels + VECTOR) * labels], bias, temperature: 1.0, threshold: 0.0 };
    file::render(&Topics { encoder: Some(head), ..Topics::clone(&topics) })
}

fn plan(near: &Upstream, far: &Upstream, section: &str) -> Plan {
    let far = cloud("far", &far.base()) + "[backends.far.energy]\nactive = [20]\ntotal = [20]\n";
    let near = local("near", &near.base()).replace("\nmodel =", "\ntable = \"smollm2-135m\"\nmodel =");
    let plan = Plan::new(&(near + &far)).with(&format!("\n[energy]\nread_meters = false\n[classify]\n{section}"));
    std::fs::write(plan.folder.path().join("mine.bin"), artifact()).unwrap();
    plan
}

async fn route(gateway: &Gateway) -> Value {
    let reply = gateway.ask(&rude::request("POST", "/v1/route", &rude::chat("auto", false))).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

#[tokio::test]
async fn the_encoder_decides_where_it_is_asked_and_its_joules_are_charged() {
    let store = Store::of_user().unwrap();
    models::pull(&store, &models::resolve("minilm", None).unwrap(), &Progress::stderr()).await.unwrap();
    let (near, far) = (Upstream::always(well()).await, Upstream::always(well()).await);
    let section = "tier = \"encoder\"\ntaxonomy = \"mine.bin\"\nbudget = \"10s\"\n";
    let gateway = plan(&near, &far, section).start().await;
    let reply = gateway.chat("cloud/far", false).await;
    let told = |name: &str| reply.header(&format!("x-wattroute-{name}")).map(str::to_owned);
    assert_eq!((told("tier").as_deref(), told("domain").as_deref()), (Some("encoder"), Some("Legal services")));
    let again = gateway.chat("cloud/far", false).await;
    assert_eq!(again.header("x-wattroute-tier"), Some("encoder"), "kept as what it was");
    let metrics = gateway.metrics().await;
    assert!(metrics.contains("wattroute_posteriors_total{result=\"kept\"}"), "{metrics}");
    assert!(metrics.contains("wattroute_encoder_total{result=\"answered\"}"), "{metrics}");
    let entries = gateway.finish().await;
    let spent = entries[0]["router_joules"].as_f64().unwrap();
    assert_eq!((&entries[0]["tier"], &entries[1]["tier"]), (&json!("encoder"), &json!("encoder")));
    assert!(spent > 1e-3, "an encoder is not free: {spent}");
    assert!(entries[1]["router_joules"].is_null(), "what was kept is");
    let more = entries[0]["joules_mid"].as_f64().unwrap() - entries[1]["joules_mid"].as_f64().unwrap();
    assert!((more - spent).abs() < 1e-9, "{more} and {spent}");
    assert!(
        (entries[0]["saved_mid"].as_f64().unwrap() + spent).abs() < 1e-9,
        "the baseline itself answered: {entries:?}"
    );
}

#[tokio::test]
async fn without_a_head_for_the_encoder_the_fast_tier_serves() {
    let (near, far) = (Upstream::always(well()).await, Upstream::always(well()).await);
    let bare = Topics { encoder: None, ..Topics::clone(&Topics::shipped("mmlu-pro").unwrap()) };
    let plan = plan(&near, &far, "tier = \"auto\"\ntaxonomy = \"bare.bin\"\n");
    std::fs::write(plan.folder.path().join("bare.bin"), file::render(&bare)).unwrap();
    let gateway = plan.start().await;
    let lacks = gateway.app().state.load().domains.lacks().unwrap().to_string();
    assert!(lacks.starts_with("classify.tier: ") && lacks.contains("train domain"), "{lacks}");
    let reply = gateway.chat("auto", false).await;
    assert_eq!((reply.status, reply.header("x-wattroute-tier")), (200, None));
    assert!(reply.header("x-wattroute-domain").is_some());
    gateway.finish().await;
}

#[tokio::test]
async fn the_fast_tier_charges_itself_too() {
    let (near, far) = (Upstream::always(well()).await, Upstream::always(well()).await);
    let gateway = plan(&near, &far, "kept = 100\n").start().await;
    let first = route(&gateway).await;
    let spent = first["decision"]["router_joules"].as_f64().unwrap();
    assert!(spent > 0.0 && spent < 1e-3, "{first}");
    assert_eq!(first["decision"]["tier"], Value::Null);
    let again = route(&gateway).await;
    assert_eq!(again["decision"]["router_joules"], 0.0, "kept: {again}");
    let saved = |told: &Value| told["decision"]["saved_joules"]["mid"].as_f64().unwrap();
    assert!((saved(&again) - saved(&first) - spent).abs() < 1e-9);
    gateway.finish().await;
}
