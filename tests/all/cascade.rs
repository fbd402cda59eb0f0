//! Cascades: a local answer that does not look right is replaced by the cloud's before the first byte of it leaves.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::answers::{
    CHUNKED, DONE, TO_CLOSE, chunk, completion, finish, json_response, once, streams, usage, well,
};
use crate::support::gateway::{Gateway, Plan, cloud, local};
use crate::support::http::End;
use crate::support::rude::{self, LEAVES, Rude};
use crate::support::upstream::{self, Step, Upstream};
use crate::support::{canary, tiny};

/// Weights that look at the mean log-probability only: -0.1 is P = .83, -1.5 is P = .02.
const POLICY: &str = "name = \"mine\"\nabout = \"Mine.\"\n[rule]\nkind = \"coverage-threshold\"\nthreshold = 0.0\n\
    [verify]\nclose = 1.0\nhold_tokens = 3\nhold_ms = 60000\n[verify.model]\nbias = 2.0\nprior = 0.0\nmean_logprob = 4.0\n\
    min_logprob = 0.0\nunknown_logprob = 0.0\nlength = 0.0\n";
const SURE: f64 = -0.1;
const UNSURE: f64 = -1.5;
const NEAR_ANSWER: &str = "canaryanswer from nearby";

/// A local server and a cloud one under a policy with a cascade; both have figures of energy.
fn plan(near: &str, far: &str, policy: &str) -> Plan {
    let mut near = local("near", near).replace("near-model", "smollm2-135m");
    near.push_str("logprobs = true\n");
    let far = cloud("far", far) + "[backends.far.energy]\nactive = [20]\ntotal = [20]\n";
    with_policy(Plan::new(&(near + &far)), policy)
}

fn with_policy(plan: Plan, policy: &str) -> Plan {
    std::fs::write(plan.folder.path().join("mine.toml"), policy).unwrap();
    plan.with("\n[policy]\nfolder = \".\"\ndefault = \"mine\"\n[energy]\nread_meters = false\n")
}

fn probabilities(p: f64) -> Value {
    json!({ "content": [{ "token": "x", "logprob": p, "bytes": [120], "top_logprobs": [] }] })
}

/// A whole local answer whose tokens have this log-probability.
fn answer(p: f64) -> Vec<u8> {
    let mut body = completion();
    body["choices"][0]["message"]["content"] = json!(NEAR_ANSWER);
    body["choices"][0]["logprobs"] = probabilities(p);
    json_response(200, &[("connection", "close")], &body)
}

/// One streamed token of it.
fn token(text: &str, p: f64) -> String {
    let event = json!({
        "id": "chatcmpl-2", "object": "chat.completion.chunk", "created": 1, "model": "near",
        "choices": [{ "index": 0, "delta": { "content": text }, "logprobs": probabilities(p), "finish_reason": null }],
    });
    format!("data: {event}\n\n")
}

/// A stream that stays open after these tokens.
fn held(tokens: &[(&str, f64)]) -> Vec<Step> {
    let text: String = tokens.iter().map(|(text, p)| chunk(&token(text, *p))).collect();
    vec![Step::Request, Step::Send([CHUNKED, &text].concat().into_bytes()), Step::Hold]
}

fn far_stream() -> Vec<Step> {
    let text = [&token("canaryanswer from afar", SURE), &finish("stop"), &usage(), DONE].concat();
    streams(&text.replace("chatcmpl-2", "chatcmpl-3"))
}

fn reason(reply: &crate::support::http::Reply) -> String {
    reply.header("x-wattroute-reason").unwrap().to_owned()
}

#[tokio::test]
async fn a_low_confidence_is_escalated_and_its_waste_is_charged() {
    let (near, far) = (Upstream::always(once(answer(UNSURE))).await, Upstream::always(well()).await);
    let gateway = plan(&near.base(), &far.base(), POLICY).start().await;
    let reply = gateway.chat("auto", false).await;
    assert_eq!((reply.status, reply.header("x-wattroute-place")), (200, Some("cloud")), "{reply:?}");
    assert!(reply.text().contains(canary::ANSWER) && !reply.text().contains("nearby"));
    let why = reason(&reply);
    assert!(
        why.contains("confidence 0.02 is below 0.50 (mean ln P -1.50, least -1.50): cloud/far answers instead"),
        "{why}"
    );
    assert_eq!(near.requests()[0].json()["logprobs"], true);
    assert_eq!(far.requests()[0].json().get("logprobs"), None);
    assert!(gateway.metrics().await.contains("wattroute_checks_total{verdict=\"escalated\"}"));
    let entries = gateway.finish().await;
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!(
        (&entry["backend"], &entry["attempts"], &entry["outcome"]),
        (&json!("cloud/far"), &json!(2), &json!("ok"))
    );
    assert_eq!(entry["verdict"], "escalated");
    let wasted = entry["wasted_joules"].as_f64().unwrap();
    assert!(wasted > 0.0 && entry["wasted_seconds"].as_f64().unwrap() > 0.0, "{entry}");
    assert!(entry["confidence"].as_f64().unwrap() < 0.1);
    // The baseline itself answered: all that came before is lost, and so is what classifying took, less than a millijoule.
    let beside = -entry["saved_mid"].as_f64().unwrap() - wasted;
    assert!(beside > 0.0 && beside < 1e-3, "{entry}");
    assert!(entry["joules_mid"].as_f64().unwrap() > wasted);
}

#[tokio::test]
async fn a_high_confidence_stays_and_the_client_sees_no_log_probabilities() {
    let (near, far) = (Upstream::always(once(answer(SURE))).await, Upstream::always(well()).await);
    let gateway = plan(&near.base(), &far.base(), POLICY).start().await;
    let reply = gateway.chat("auto", false).await;
    assert_eq!((reply.status, reply.header("x-wattroute-place")), (200, Some("local")), "{reply:?}");
    assert_eq!(reply.json()["choices"][0]["logprobs"], Value::Null);
    assert!(reason(&reply).ends_with("checked: confidence 0.83"), "{}", reason(&reply));
    let asked =
        json!({ "model": "auto", "logprobs": true, "messages": [{ "role": "user", "content": canary::PROMPT }] });
    let reply = gateway.post(&asked).await;
    assert_eq!(reply.json()["choices"][0]["logprobs"]["content"][0]["logprob"], SURE);
    assert_eq!(far.connections(), 0);
    for entry in gateway.finish().await {
        assert_eq!((&entry["verdict"], &entry["backend"]), (&json!("kept"), &json!("local/near")));
        assert_eq!((&entry["wasted_joules"], &entry["wasted_seconds"]), (&json!(0.0), &Value::Null), "{entry}");
    }
}

#[tokio::test]
async fn a_private_query_and_a_named_backend_are_never_escalated() {
    let (near, far) = (Upstream::always(once(answer(UNSURE))).await, Upstream::always(well()).await);
    let gateway = plan(&near.base(), &far.base(), POLICY).start().await;
    let body = |model: &str| json!({ "model": model, "messages": [{ "role": "user", "content": canary::PROMPT }] });
    let mut private = body("auto");
    private["wattroute"] = json!({ "private": true });
    for (body, key) in [
        (private, canary::CLIENT_KEY),
        (body("auto"), canary::PRIVATE_KEY),
        (body("auto:private"), canary::CLIENT_KEY),
        (body("local/near"), canary::CLIENT_KEY),
    ] {
        let request = rude::request("POST", "/v1/chat/completions", body.to_string().as_bytes());
        let request = String::from_utf8(request).unwrap().replace(canary::CLIENT_KEY, key);
        let reply = gateway.ask(request.as_bytes()).await;
        assert_eq!((reply.status, reply.header("x-wattroute-place")), (200, Some("local")), "{reply:?}");
        assert!(reply.text().contains("nearby") && !reason(&reply).contains("checked"), "{}", reason(&reply));
    }
    assert_eq!(far.connections(), 0);
    assert!(near.requests().iter().all(|request| request.json().get("logprobs").is_none()));
    assert_eq!(gateway.finish().await.len(), 4);
}

#[tokio::test]
async fn a_stream_is_held_for_its_tokens_and_then_sent_on() {
    let tokens = [("canaryanswer", SURE), (" one", SURE), (" two", SURE)];
    let near = Upstream::always(held(&tokens[..2])).await;
    let far = Upstream::always(well()).await;
    let gateway = plan(&near.base(), &far.base(), POLICY).start().await;
    let request = rude::request("POST", "/v1/chat/completions", &rude::chat("auto", true));
    let mut waiting = Rude::connect(gateway.data).await;
    waiting.send(&request).await;
    near.await_requests(1).await;
    let early = waiting.reply_within(Duration::from_millis(40)).await;
    assert_eq!((early.status, early.end), (0, End::Silent), "two of three tokens are not enough: {early:?}");
    near.now(held(&tokens));
    let mut client = Rude::connect(gateway.data).await;
    client.send(&request).await;
    client.until(" two").await;
    drop((waiting, client));
    assert_eq!(far.connections(), 0);
    let entries = gateway.finish().await;
    assert_eq!(entries.len(), 2);
    assert_eq!((&entries[0]["verdict"], &entries[0]["outcome"]), (&Value::Null, &json!("hangup")));
    assert_eq!(entries[1]["verdict"], "kept");
}

#[tokio::test]
async fn a_stream_is_held_no_longer_than_its_time_and_then_judged_by_what_is_there() {
    let policy = POLICY.replace("60000", "30");
    let near = Upstream::always(held(&[("canaryanswer", SURE)])).await;
    let far = Upstream::always(far_stream()).await;
    let gateway = plan(&near.base(), &far.base(), &policy).start().await;
    let mut client = Rude::connect(gateway.data).await;
    client.send(&rude::request("POST", "/v1/chat/completions", &rude::chat("auto", true))).await;
    client.until("canaryanswer").await;
    drop(client);
    near.now(held(&[("canaryanswer", UNSURE)]));
    let reply = gateway.chat("auto", true).await;
    assert_eq!((reply.header("x-wattroute-place"), reply.end), (Some("cloud"), End::Whole), "{reply:?}");
    gateway.finish().await;
}

#[tokio::test]
async fn an_unsure_stream_is_replaced_whole_and_its_connection_closed() {
    let tokens = [("canaryanswer near", UNSURE), (" one", UNSURE), (" two", UNSURE)];
    let (near, far) = (Upstream::always(held(&tokens)).await, Upstream::always(far_stream()).await);
    let gateway = plan(&near.base(), &far.base(), POLICY).start().await;
    let reply = gateway.chat("auto", true).await;
    assert_eq!((reply.status, reply.end), (200, End::Whole), "{reply:?}");
    assert!(reply.text().contains("from afar") && !reply.text().contains("chatcmpl-2"), "{reply:?}");
    assert_eq!(reply.events().last().unwrap(), "[DONE]");
    near.closed(0).await;
    let entries = gateway.finish().await;
    assert_eq!((entries.len(), &entries[0]["verdict"]), (1, &json!("escalated")));
    assert!(entries[0]["wasted_joules"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn a_hang_up_in_the_hold_or_in_the_escalation_stops_all_work() {
    let near = Upstream::always(held(&[("canaryanswer", SURE)])).await;
    let far = Upstream::always(vec![Step::Request, Step::Hold]).await;
    let gateway = plan(&near.base(), &far.base(), POLICY).start().await;
    let unsure = [("canaryanswer", UNSURE), (" one", UNSURE), (" two", UNSURE)];
    let mut delays = Vec::new();
    for (escalates, script) in [(false, held(&unsure[..1])), (true, held(&unsure))] {
        near.now(script);
        for how in LEAVES {
            let (before, beyond) = (near.connections(), far.connections());
            let mut client = Rude::connect(gateway.data).await;
            client.send(&rude::request("POST", "/v1/chat/completions", &rude::chat("auto", true))).await;
            near.await_requests(before + 1).await;
            if escalates {
                far.await_requests(beyond + 1).await;
            }
            let left = Instant::now();
            let stays = client.leave(how).await;
            delays.push(near.closed(before).await.saturating_duration_since(left));
            if escalates {
                delays.push(far.closed(beyond).await.saturating_duration_since(left));
            }
            drop(stays);
        }
    }
    assert!(delays.iter().all(|delay| *delay <= Duration::from_millis(100)), "{delays:?}");
    let entries = gateway.finish().await;
    assert_eq!(entries.len(), 2 * LEAVES.len(), "one entry per request");
    assert!(entries.iter().all(|entry| entry["outcome"] == "hangup"), "{entries:#?}");
}

#[tokio::test]
async fn when_the_cloud_cannot_answer_the_local_answer_is_given() {
    let tokens: String = ["canaryanswer", " one", " two"].iter().map(|text| token(text, UNSURE)).collect();
    let stream = [TO_CLOSE, &tokens, &finish("stop"), &usage(), DONE].concat();
    let near = Upstream::always(vec![Step::Request, Step::Fitting(stream.into_bytes(), answer(UNSURE))]).await;
    let (_nobody, dead) = upstream::refused();
    let gateway = plan(&near.base(), &format!("http://{dead}/v1"), POLICY).start().await;
    for stream in [false, true] {
        let reply = gateway.chat("auto", stream).await;
        assert_eq!((reply.status, reply.header("x-wattroute-backend")), (200, Some("local/near")), "{reply:?}");
        let why = reason(&reply);
        assert!(
            why.ends_with("but cloud/far could not answer (upstream_unreachable): the local answer is given"),
            "{why}"
        );
        assert_eq!(reply.end, End::Whole);
        assert!(!reply.text().contains("-1.5"), "{reply:?}");
    }
    let entries = gateway.finish().await;
    assert_eq!(entries.len(), 2);
    for entry in &entries {
        assert_eq!((&entry["backend"], &entry["place"]), (&json!("local/near"), &json!("local")));
        assert_eq!(
            (&entry["verdict"], &entry["attempts"], &entry["outcome"]),
            (&json!("given"), &json!(2), &json!("ok"))
        );
        assert_eq!(entry["wasted_joules"], 0.0, "nothing was thrown away: {entry}");
    }
}

#[tokio::test]
async fn a_cloud_that_refuses_leaves_the_local_answer_too() {
    let near = Upstream::always(once(answer(UNSURE))).await;
    let error =
        |status| once(json_response(status, &[("connection", "close")], &json!({ "error": { "message": "no" } })));
    let far = Upstream::each(vec![error(500), error(401), error(429)]).await;
    let gateway = plan(&near.base(), &far.base(), POLICY).start().await;
    // What the cloud says of our key is our trouble: 502.
    for status in [500, 502, 429] {
        let reply = gateway.chat("auto", false).await;
        assert_eq!((reply.status, reply.header("x-wattroute-place")), (200, Some("local")), "{reply:?}");
        assert!(reason(&reply).contains(&format!("could not answer (status {status})")), "{}", reason(&reply));
    }
    assert_eq!(gateway.finish().await.len(), 3);
}

#[tokio::test]
async fn a_stream_cut_in_the_hold_goes_to_the_cloud_or_fails_honestly() {
    let cut = streams(&token("canaryanswer near", SURE));
    let (near, far) = (Upstream::always(cut).await, Upstream::always(far_stream()).await);
    let gateway = plan(&near.base(), &far.base(), POLICY).start().await;
    let reply = gateway.chat("auto", true).await;
    assert_eq!(
        (reply.status, reply.header("x-wattroute-place"), reply.end),
        (200, Some("cloud"), End::Whole),
        "{reply:?}"
    );
    assert!(reply.text().contains("from afar") && !reply.text().contains("canaryanswer near"), "{}", reply.text());
    let entries = gateway.finish().await;
    assert_eq!((entries.len(), &entries[0]["verdict"]), (1, &Value::Null));
    let alone = format!("fallback = \"never\"\n{POLICY}");
    let gateway = plan(&near.base(), &far.base(), &alone).start().await;
    let reply = gateway.chat("auto", true).await;
    assert_eq!((reply.status, reply.code()), (502, "upstream_cut".into()), "{reply:?}");
    let entries = gateway.finish().await;
    assert_eq!((entries.len(), &entries[0]["outcome"]), (1, &json!("fault")));
}

#[tokio::test]
async fn a_server_that_refuses_log_probabilities_is_asked_without_them() {
    let no = json!({ "error": { "message": "logprobs are not supported" } });
    let refusing = once(json_response(400, &[("connection", "close")], &no));
    let plain = once(json_response(200, &[("connection", "close")], &completion()));
    let near = Upstream::each(vec![refusing, plain]).await;
    let far = Upstream::always(well()).await;
    let gateway = plan(&near.base(), &far.base(), POLICY).start().await;
    for _ in 0..2 {
        let reply = gateway.chat("auto", false).await;
        assert_eq!((reply.status, reply.header("x-wattroute-place")), (200, Some("local")), "{reply:?}");
        assert!(reason(&reply).ends_with("checked: confidence 0.88"), "{}", reason(&reply));
    }
    let asked: Vec<bool> = near.requests().iter().map(|r| r.json().get("logprobs").is_some()).collect();
    assert_eq!(asked, [true, false, false]);
    gateway.finish().await;
}

/// The embedded engine tells its probabilities without being asked; random weights are never sure.
#[tokio::test]
async fn the_embedded_engine_is_checked_without_the_clients_request_for_log_probabilities() {
    let far = Upstream::always(far_stream()).await;
    let text = format!(
        "\n[backends.tiny]\nplace = \"local\"\nkind = \"embedded\"\nmodel = \"./tiny.gguf\"\ncontext = {}\nthreads = 1\n{}",
        tiny::CONTEXT,
        cloud("far", &far.base())
    );
    let plan = with_policy(Plan::new(&text), POLICY);
    tiny::write(plan.folder.path());
    let gateway = crate::local_decode::ready(plan).await;
    let body = json!({ "model": "auto", "stream": true, "max_tokens": 400, "messages": [{ "role": "user", "content": canary::PROMPT }] });
    let reply = gateway.post(&body).await;
    assert_eq!((reply.status, reply.header("x-wattroute-place")), (200, Some("cloud")), "{reply:?}");
    assert!(reason(&reply).contains("mean ln P -") && reply.text().contains("from afar"), "{}", reason(&reply));
    let trusting = POLICY.replace("bias = 2.0", "bias = 100.0");
    let gateway2: Gateway = {
        let plan = with_policy(Plan::new(&text), &trusting);
        tiny::write(plan.folder.path());
        crate::local_decode::ready(plan).await
    };
    let reply = gateway2.post(&body).await;
    assert_eq!((reply.header("x-wattroute-place"), reply.end), (Some("local"), End::Whole), "{reply:?}");
    assert!(!reply.text().contains("\"logprob\""));
    let entries = gateway2.finish().await;
    let entry = entries.iter().find(|entry| entry["verdict"] == "kept").unwrap();
    assert_eq!((&entry["output_tokens"], &entry["outcome"]), (&json!(400), &json!("ok")));
    gateway.finish().await;
}

/// With second answers: agreement decides alone.
const SAMPLED: &str = "\n[verify.samples]\ncount = 2\ntokens = 8\nweight = 8.0\n";

fn says(words: &str) -> Vec<u8> {
    let mut body = completion();
    body["choices"][0]["message"]["content"] = json!(words);
    json_response(200, &[("connection", "close")], &body)
}

#[tokio::test]
async fn second_answers_that_disagree_escalate_and_are_charged() {
    let policy =
        POLICY.replace("bias = 2.0", "bias = 0.0").replace("mean_logprob = 4.0", "mean_logprob = 0.0") + SAMPLED;
    for (second, place, verdict) in [(NEAR_ANSWER, "local", "kept"), ("something else entirely", "cloud", "escalated")]
    {
        let near =
            Upstream::by(move |connection| once(if connection == 0 { says(NEAR_ANSWER) } else { says(second) })).await;
        let far = Upstream::always(well()).await;
        let gateway = plan(&near.base(), &far.base(), &policy).start().await;
        let reply = gateway.chat("auto", false).await;
        assert_eq!((reply.status, reply.header("x-wattroute-place")), (200, Some(place)), "{reply:?}");
        assert!(reason(&reply).contains("second answers agree by"), "{}", reason(&reply));
        let asked = near.requests();
        assert_eq!(asked.len(), 3);
        let (one, two) = (asked[1].json(), asked[2].json());
        assert_eq!((&one["max_tokens"], &one["messages"]), (&json!(8), &asked[0].json()["messages"]));
        assert!(one["seed"] != two["seed"] && one["temperature"] == json!(0.7), "{one}");
        let entries = gateway.finish().await;
        assert_eq!(entries[0]["verdict"], verdict);
        assert!(
            entries[0]["wasted_joules"].as_f64().unwrap() > 0.0 && entries[0]["wasted_seconds"].as_f64().unwrap() > 0.0
        );
    }
}
