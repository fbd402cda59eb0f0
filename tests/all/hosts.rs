//! Clients can never name a host: not by target, header, body, model name, nor through an upstream's redirect.

use serde_json::json;

use crate::support::answers::{json_response, once, well};
use crate::support::canary;
use crate::support::gateway::{Gateway, Plan, cloud, local};
use crate::support::rude;
use crate::support::upstream::Upstream;

/// Spellings of one address that some parser somewhere reads as a host.
fn spellings(evil: &str) -> Vec<String> {
    let port = evil.rsplit(':').next().unwrap();
    vec![
        format!("http://{evil}/v1"),
        format!("//{evil}/v1"),
        format!("http:\\\\{evil}\\v1"),
        format!("http://api.openai.com@{evil}/v1"),
        format!("http://{evil}#@api.openai.com/v1"),
        format!("http://[::ffff:127.0.0.1]:{port}/v1"),
        format!("http://localhost:{port}/v1"),
        format!("http://2130706433:{port}/v1"),
        format!("http://0x7f.1:{port}/v1"),
        format!("http://127.1:{port}/v1"),
        format!("http://127.0.0.1.:{port}/v1"),
        format!("http://①②⑦.0.0.1:{port}/v1"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "file:///etc/passwd".to_owned(),
        "unix:/var/run/docker.sock".to_owned(),
        format!("gopher://{evil}/_x"),
    ]
}

/// Body fields that other gateways have read a host from.
const FIELDS: [&str; 16] = [
    "base_url",
    "api_base",
    "api_url",
    "url",
    "endpoint",
    "host",
    "upstream",
    "proxy",
    "target",
    "custom_host",
    "azure_endpoint",
    "api_key",
    "headers",
    "extra_headers",
    "litellm_params",
    "metadata",
];

/// Headers that other gateways have read a host or a provider from.
const HEADERS: [&str; 18] = [
    "x-portkey-custom-host",
    "x-portkey-config",
    "x-bf-base-url",
    "x-litellm-api-base",
    "x-base-url",
    "x-api-base",
    "x-target-url",
    "x-forwarded-host",
    "x-forwarded-server",
    "x-original-host",
    "x-upstream",
    "x-envoy-original-path",
    "forwarded",
    "x-real-host",
    "proxy",
    "x-rewrite-url",
    "helicone-target-url",
    "x-wattroute-base-url",
];

fn attempts(evil: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let chat = |more: serde_json::Value| {
        let mut body = json!({ "model": "cloud/far", "messages": [{ "role": "user", "content": canary::PROMPT }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string().into_bytes()
    };
    let post = |body: &[u8]| rude::request("POST", "/v1/chat/completions", body);
    let url = format!("http://{evil}/v1");
    for spelling in spellings(evil) {
        all.push((format!("model {spelling}"), post(&chat(json!({ "model": spelling })))));
        all.push((
            format!("model under a place {spelling}"),
            post(&chat(json!({ "model": format!("cloud/{spelling}") }))),
        ));
    }
    for field in FIELDS {
        let value = if field.contains("headers") || field.contains("params") || field == "metadata" {
            json!({ "host": evil, "base_url": url, "api_base": url, "authorization": "x" })
        } else {
            json!(url)
        };
        all.push((format!("field {field}"), post(&chat(json!({ field: value })))));
        if field != "metadata" {
            let ours = json!({ "wattroute": { field: value }, "model": "auto" });
            all.push((format!("our field {field}"), post(&chat(ours))));
        }
    }
    for header in HEADERS {
        let request = rude::request_with("POST", "/v1/chat/completions", &[(header, &url)], &chat(json!({})));
        all.push((format!("header {header}"), request));
    }
    for target in [
        format!("http://{evil}/v1/chat/completions"),
        format!("https://{evil}/v1/chat/completions"),
        format!("//{evil}/v1/chat/completions"),
        format!("/v1/chat/completions@{evil}"),
        format!("/v1/../{evil}/chat/completions"),
        format!("/http://{evil}/v1/chat/completions"),
        format!("/v1/chat/completions?base_url={url}&api_base={url}"),
        evil.to_owned(),
    ] {
        all.push((format!("target {target}"), rude::request("POST", &target, &chat(json!({})))));
    }
    let mut hosted = String::from_utf8(post(&chat(json!({})))).unwrap();
    hosted = hosted.replacen("host: 127.0.0.1", &format!("host: {evil}"), 1);
    all.push(("Host".to_owned(), hosted.into_bytes()));
    let image =
        json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": url } }] }] });
    all.push(("image".to_owned(), post(&chat(image))));
    all
}

#[tokio::test]
async fn no_attempt_of_a_client_reaches_a_host_that_it_named() {
    let (evil, far, near) =
        (Upstream::always(well()).await, Upstream::always(well()).await, Upstream::always(well()).await);
    let plan = Plan::new(&(cloud("far", &far.base()) + &local("near", &near.base())));
    let gateway = plan.start().await;
    let attempts = attempts(&evil.address.to_string());
    assert!(attempts.len() >= 80, "{}", attempts.len());
    let mut answered = 0;
    for (name, request) in &attempts {
        let reply = gateway.ask(request).await;
        assert!(reply.status == 200 || (400..500).contains(&reply.status) || reply.status == 0, "{name}: {reply:?}");
        answered += usize::from(reply.status == 200);
        assert_eq!(evil.connections(), 0, "{name} reached the host it named");
    }
    assert!(answered > 20, "unknown fields and headers are no reason to refuse: {answered}");
    for (upstream, key) in [(&far, Some(canary::CLOUD_KEY)), (&near, None)] {
        for request in upstream.requests() {
            assert_eq!(request.line, "POST /v1/chat/completions HTTP/1.1");
            assert_eq!(request.header("host").unwrap(), upstream.address.to_string());
            assert_eq!(request.header("authorization").map(str::to_owned), key.map(|key| format!("Bearer {key}")));
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_redirect_is_an_error_and_nobody_follows_it() {
    let evil = Upstream::always(well()).await;
    for status in [300, 301, 302, 303, 307, 308] {
        let location = format!("http://{}/v1/chat/completions", evil.address);
        let answer = json_response(status, &[("location", &location)], &json!({}));
        let far = Upstream::always(once(answer)).await;
        let gateway = Gateway::before(&far.base()).await;
        let reply = gateway.chat("cloud/far", status % 2 == 0).await;
        assert_eq!(reply.status, 502, "{reply:?}");
        assert_eq!(reply.header("location"), None, "the upstream's host is none of the client's business");
        assert_eq!(reply.code(), "upstream_protocol");
        gateway.finish().await;
    }
    assert_eq!(evil.connections(), 0);
}

#[tokio::test]
async fn upstream_certificates_are_checked_and_cannot_be_waved_through() {
    let plan = Plan::new("");
    let (ours, other) = (plan.authority(), tempfile::tempdir().unwrap());
    let foreign = crate::support::tls::Authority::new(other.path());
    let good = Upstream::tls(ours.acceptor(&["127.0.0.1"]), well()).await;
    let wrong_name = Upstream::tls(ours.acceptor(&["elsewhere.example"]), well()).await;
    let wrong_root = Upstream::tls(foreign.acceptor(&["127.0.0.1"]), well()).await;
    let mut text = String::new();
    for (name, upstream) in [("good", &good), ("wrong-name", &wrong_name), ("wrong-root", &wrong_root)] {
        text += &(cloud(name, &upstream.base().replace("http:", "https:")) + "ca = \"ca.pem\"\n");
    }
    let gateway = plan.with(&text).start().await;
    let reply = gateway.chat("cloud/good", false).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    for (name, upstream) in [("cloud/wrong-name", &wrong_name), ("cloud/wrong-root", &wrong_root)] {
        let reply = gateway.chat(name, false).await;
        assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_unreachable"), "{name}");
        assert_eq!(upstream.bytes(), 0, "{name}: bytes after a bad certificate");
    }
    gateway.finish().await;
}
