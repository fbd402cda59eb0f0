//! Upstreams are odd: every oddity that gateways are known to break on passes through this one unharmed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::answers::{
    CHUNKED, DONE, TO_CLOSE, chunk, completion, delta, finish, json_response, once, streams, usage, well,
};
use crate::support::canary;
use crate::support::gateway::{Gateway, Plan, cloud, local};
use crate::support::http::{End, Reply};
use crate::support::rude::{self, Rude};
use crate::support::upstream::{Step, Upstream};

/// One streamed answer through the gateway, asked with these extra fields.
async fn stream(steps: Vec<Step>, more: Value) -> (Reply, Value, Value) {
    let upstream = Upstream::always(steps).await;
    let gateway = Gateway::before(&upstream.base()).await;
    let mut body = json!({
        "model": "cloud/far", "stream": true, "messages": [{ "role": "user", "content": canary::PROMPT }],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply = gateway.post(&body).await;
    let sent = upstream.requests()[0].json();
    let entry = gateway.finish().await.remove(0);
    (reply, sent, entry)
}

pub async fn plain(answer: Vec<u8>) -> Reply {
    let upstream = Upstream::always(once(answer)).await;
    let gateway = Gateway::before(&upstream.base()).await;
    let reply = gateway.chat("cloud/far", false).await;
    gateway.finish().await;
    reply
}

fn asked() -> Value {
    json!({ "stream_options": { "include_usage": true } })
}

#[tokio::test]
async fn characters_split_over_packets_arrive_whole() {
    let text = delta("canaryanswer zażółć 🜂 漢字") + &finish("stop") + &usage() + DONE;
    for piece in [1, 2, 3, 5, 64] {
        let drip = Step::Drip(text.clone().into_bytes(), piece, Duration::from_micros(200));
        let steps = vec![Step::Request, Step::Send(TO_CLOSE.into()), drip];
        let (reply, _, _) = stream(steps, asked()).await;
        assert_eq!((reply.text(), reply.end), (text.clone(), End::Whole), "{piece}");
    }
}

#[tokio::test]
async fn line_ends_and_data_without_a_space_pass_byte_for_byte() {
    let plain = delta("canaryanswer") + &finish("stop") + &usage() + DONE;
    for text in [
        plain.replace('\n', "\r\n"),
        plain.replace("data: ", "data:"),
        format!("\u{feff}{plain}"),
        plain.replace("data: ", "event: x\nid: 7\nretry: 3\ndata: "),
    ] {
        let (reply, _, entry) = stream(streams(&text), asked()).await;
        assert_eq!((reply.text(), reply.end), (text, End::Whole));
        assert_eq!(
            (&entry["outcome"], &entry["output_tokens"], &entry["token_source"]),
            (&json!("ok"), &json!(2), &json!("upstream"))
        );
    }
}

#[tokio::test]
async fn data_over_several_lines_is_one_event() {
    let text = "data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"canaryanswer\"},\ndata: \"finish_reason\":null}]}\n\n".to_owned()
        + &finish("stop")
        + DONE;
    let (reply, _, entry) = stream(streams(&text), asked()).await;
    assert_eq!((reply.text(), reply.end), (text, End::Whole));
    assert_eq!(entry["outcome"], "ok");
}

#[tokio::test]
async fn an_event_of_a_mebibyte_passes() {
    let text = delta(&"canaryanswer ".repeat(80_000)) + &finish("stop") + DONE;
    let (reply, _, entry) = stream(streams(&text), asked()).await;
    assert_eq!((reply.text() == text, reply.end), (true, End::Whole));
    assert_eq!(entry["outcome"], "ok");
}

#[tokio::test]
async fn keep_alive_comments_reach_the_client_while_the_upstream_thinks() {
    let upstream = Upstream::always(vec![
        Step::Request,
        Step::Send([CHUNKED, &chunk(": keepalive\n\n")].concat().into_bytes()),
        Step::Hold,
    ])
    .await;
    let gateway = Gateway::before(&upstream.base()).await;
    let mut client = Rude::connect(gateway.data).await;
    client.send(&rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", true))).await;
    client.until(": keepalive\n\n").await;
    drop(client);
    gateway.finish().await;
}

#[tokio::test]
async fn unknown_fields_survive_both_ways() {
    let event = r#"data: {"id":"x","choices":[{"index":0,"delta":{"content":"canaryanswer","reasoning_content":"hm"},"finish_reason":null}],"timings":{"predicted_per_second":17.25},"obfuscation":"aaaa","big":12345678901234567890123,"e":1.50}"#;
    let text = format!("{event}\n\n{}{}{DONE}", finish("stop"), usage());
    let more = json!({
        "stream_options": { "include_usage": true }, "reasoning_effort": "low", "vendor": { "nested": [1, null, { "x": "é" }] }, "seed": 7, "logit_bias": { "50256": -100 },
    });
    let (reply, sent, _) = stream(streams(&text), more).await;
    assert_eq!(reply.text(), text);
    for field in ["reasoning_effort", "vendor", "seed", "logit_bias"] {
        assert!(sent.get(field).is_some(), "{field} was lost: {sent}");
    }
}

/// Byte for byte: numbers keep their spelling, keys their order, escapes their form.
#[tokio::test]
async fn a_body_reaches_the_upstream_as_it_was_written() {
    let upstream = Upstream::always(well()).await;
    let gateway = Gateway::before(&upstream.base()).await;
    let ours = r#"{ "z":1.0,  "temperature":1e-1,"model" : "cloud/far", "messages":[{"content":"canaryprompt \u00e9\/ \ud83d\ude00","role":"user"}],"big":12345678901234567890,"a":[ ] ,"stream":false}"#;
    gateway.ask(&rude::request("POST", "/v1/chat/completions", ours.as_bytes())).await;
    let theirs = String::from_utf8(upstream.requests()[0].body.clone()).unwrap();
    assert_eq!(theirs, ours.replace("cloud/far", "far-model"));
    gateway.finish().await;
}

#[tokio::test]
async fn a_cut_stream_is_an_error_and_never_done() {
    let text = delta("canaryanswer") + &delta("more");
    let cut = [CHUNKED.to_owned(), chunk(&text)].concat().into_bytes();
    let (reply, _, entry) = stream(once(cut), json!({})).await;
    assert_ne!(reply.end, End::Whole);
    assert!(reply.text().starts_with(&text) && reply.text().contains("\"error\"") && !reply.text().contains("[DONE]"));
    assert_eq!((&entry["outcome"], &entry["fault"]), (&json!("fault"), &json!("upstream_cut")));
    assert_eq!(entry["token_source"], "deltas", "what was produced before the cut is counted");
}

#[tokio::test]
async fn a_clean_end_without_finish_or_done_is_an_error() {
    let text = delta("canaryanswer");
    for steps in [streams(&text), once(format!("{CHUNKED}{}0\r\n\r\n", chunk(&text)).into_bytes())] {
        let (reply, _, entry) = stream(steps, json!({})).await;
        assert_ne!(reply.end, End::Whole);
        assert!(!reply.text().contains("[DONE]") && !reply.text().contains("\"stop\""), "{reply:?}");
        assert_eq!(entry["outcome"], "fault");
    }
}

#[tokio::test]
async fn the_usage_event_keeps_its_shape_when_asked_for() {
    let text = delta("canaryanswer") + &finish("stop") + &usage() + DONE;
    let (reply, sent, entry) = stream(streams(&text), asked()).await;
    assert_eq!(reply.text(), text);
    assert_eq!(sent["stream_options"]["include_usage"], true);
    assert_eq!((&entry["input_tokens"], &entry["output_tokens"]), (&json!(11), &json!(2)));
}

#[tokio::test]
async fn usage_is_asked_upstream_and_hidden_from_a_client_that_did_not_ask() {
    let text = delta("canaryanswer") + &finish("stop") + &usage() + DONE;
    for more in [json!({}), json!({ "stream_options": { "include_usage": false } }), json!({ "stream_options": null })]
    {
        let (reply, sent, entry) = stream(streams(&text), more).await;
        assert_eq!(sent["stream_options"]["include_usage"], true, "{sent}");
        assert_eq!(reply.text(), text.replace(&usage(), ""));
        assert_eq!((&entry["output_tokens"], &entry["token_source"]), (&json!(2), &json!("upstream")));
    }
}

#[tokio::test]
async fn too_many_requests_keeps_its_status_and_its_delay() {
    let body = json!({ "error": { "message": "slow down", "type": "requests", "param": null, "code": "rate_limit_exceeded" } });
    let answer = json_response(
        429,
        &[("retry-after", "7"), ("retry-after-ms", "7000"), ("x-ratelimit-remaining-requests", "0")],
        &body,
    );
    let upstream = Upstream::always(once(answer)).await;
    let gateway = Gateway::before(&upstream.base()).await;
    for _ in 0..12 {
        let reply = gateway.chat("cloud/far", false).await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, Some("7")), "{reply:?}");
        assert_eq!(reply.header("retry-after-ms"), Some("7000"));
        assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("0"));
        assert_eq!(reply.json(), body);
    }
    // Whose limits are used up is not dead: the next healthy call is answered.
    upstream.now(well());
    assert_eq!(gateway.chat("cloud/far", false).await.status, 200, "429 opened the breaker");
    gateway.finish().await;
}

#[tokio::test]
async fn a_context_length_error_keeps_its_code() {
    let body = json!({ "error": { "message": "too long", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded" } });
    let reply = plain(json_response(400, &[], &body)).await;
    assert_eq!((reply.status, reply.json()), (400, body));
}

#[tokio::test]
async fn the_upstreams_request_id_is_kept_beside_ours() {
    let reply = plain(json_response(200, &[("x-request-id", "req_upstream_1")], &completion())).await;
    assert_ne!(reply.header("x-request-id"), Some("req_upstream_1"));
    assert!(reply.headers.iter().any(|(name, value)| name != "x-request-id" && value == "req_upstream_1"), "{reply:?}");
}

#[tokio::test]
async fn headers_come_back_by_an_allow_list() {
    let bad = [
        ("set-cookie", "a=b"),
        ("server", "secret"),
        ("location", "http://x"),
        ("x-internal-host", "10.0.0.7"),
        ("connection", "x-internal-host"),
        ("alt-svc", "h3=\":443\""),
        ("access-control-allow-origin", "*"),
    ];
    let good = [("openai-processing-ms", "12"), ("x-ratelimit-limit-tokens", "9")];
    let reply = plain(json_response(200, &[&bad[..], &good[..]].concat(), &completion())).await;
    for (name, value) in bad {
        assert!(!reply.headers.iter().any(|(n, v)| n == name && v == value), "{name}");
    }
    for (name, value) in good {
        assert_eq!(reply.header(name), Some(value));
    }
}

#[tokio::test]
async fn a_clients_key_stays_here() {
    let upstream = Upstream::always(well()).await;
    let text = cloud("far", &upstream.base());
    let keyless = cloud("open", &upstream.base()).replace("key_env = \"FAR_KEY\"\n", "");
    let gateway = Plan::new(&(text + &keyless)).start().await;
    assert_eq!(gateway.chat("cloud/far", false).await.status, 200);
    assert_eq!(gateway.chat("cloud/open", false).await.status, 200);
    let requests = upstream.requests();
    assert_eq!(requests[0].header("authorization").unwrap(), format!("Bearer {}", canary::CLOUD_KEY));
    assert_eq!(requests[1].header("authorization"), None);
    for seen in upstream.seen() {
        assert!(!String::from_utf8_lossy(&seen.bytes).contains("canary-client"));
    }
    gateway.finish().await;
}

/// Providers repeat the key that they refuse.
#[tokio::test]
async fn an_error_that_repeats_the_key_does_not_reach_the_client() {
    let body = json!({ "error": {
        "message": format!("Incorrect API key provided: {}. Prompt was: x", canary::CLOUD_KEY),
        "type": "invalid_request_error", "param": null, "code": "invalid_api_key",
    } });
    for status in [401, 403, 400, 500] {
        let reply = plain(json_response(status, &[("x-request-id", canary::CLOUD_KEY)], &body)).await;
        assert!(reply.status >= 400, "{reply:?}");
        assert!(!format!("{reply:?}").contains("canary-cloud"), "{reply:?}");
        reply.code();
    }
}

#[tokio::test]
async fn an_unknown_model_is_a_404_in_openai_shape() {
    let upstream = Upstream::always(well()).await;
    let gateway = Gateway::before(&upstream.base()).await;
    for model in ["gpt-nonsense", "cloud/nonsense", "local/far", "auto:nonsense", "far-model"] {
        let reply = gateway.chat(model, false).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "model_not_found"), "{model}: {reply:?}");
    }
    assert_eq!(upstream.connections(), 0);
    gateway.finish().await;
}

#[tokio::test]
async fn malformed_json_is_a_400_in_openai_shape() {
    let upstream = Upstream::always(well()).await;
    let gateway = Gateway::before(&upstream.base()).await;
    for body in [
        "{",
        "",
        "[]",
        "null",
        "\"x\"",
        "{\"model\":1,\"messages\":[]}",
        "{\"model\":\"auto\"}",
        "{\"model\":\"auto\",\"messages\":{}}",
        "{\"model\":\"auto\",\"messages\":[]} x",
        "\u{feff}{}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
    ] {
        let request = rude::request_with("POST", "/v1/chat/completions", &[("x-empty", "")], body.as_bytes());
        let reply = gateway.ask(&request).await;
        assert_eq!((reply.status, reply.end), (400, End::Whole), "{body:?}: {reply:?}");
        reply.code();
    }
    let reply =
        gateway.ask(&rude::request("POST", "/v1/chat/completions", b"{\"model\":\"\xff\",\"messages\":[]}")).await;
    assert_eq!(reply.status, 400, "not UTF-8: {reply:?}");
    assert_eq!(upstream.connections(), 0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_hang_up_closes_the_upstream_streaming_or_not() {
    let upstream = Upstream::always(vec![Step::Request, Step::Send(CHUNKED.into()), Step::Hold]).await;
    let gateway = Gateway::before(&upstream.base()).await;
    for (n, streaming) in [true, false].into_iter().enumerate() {
        let mut client = Rude::connect(gateway.data).await;
        client.send(&rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", streaming))).await;
        upstream.await_requests(n + 1).await;
        let left = Instant::now();
        drop(client);
        let delay = upstream.closed(n).await.saturating_duration_since(left);
        assert!(delay < Duration::from_secs(1), "{delay:?}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn several_choices_and_parallel_tool_calls_pass() {
    let call = |id: &str| json!({ "id": id, "type": "function", "function": { "name": "weather", "arguments": "{\"city\":\"x\"}" } });
    let answer = json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [
            { "index": 0, "message": { "role": "assistant", "content": null, "tool_calls": [call("a"), call("b")] }, "finish_reason": "tool_calls" },
            { "index": 1, "message": { "role": "assistant", "content": canary::ANSWER }, "finish_reason": "stop" },
        ],
        "usage": { "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3 },
    });
    let upstream = Upstream::always(once(json_response(200, &[], &answer))).await;
    let gateway = Gateway::before(&upstream.base()).await;
    let tools = json!([{ "type": "function", "function": { "name": "weather", "parameters": { "type": "object" } } }]);
    let body = json!({
        "model": "cloud/far", "n": 2, "tools": tools, "tool_choice": "auto", "parallel_tool_calls": true,
        "response_format": { "type": "json_object" }, "messages": [{ "role": "user", "content": canary::PROMPT }],
    });
    let reply = gateway.post(&body).await;
    assert_eq!((reply.status, reply.json()), (200, answer));
    let sent = upstream.requests()[0].json();
    for field in ["n", "tools", "tool_choice", "parallel_tool_calls", "response_format"] {
        assert_eq!(sent[field], body[field]);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn streamed_tool_calls_pass_byte_for_byte() {
    let part = |text: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{{\"index\":1,\"function\":{{\"arguments\":{text:?}}}}}]}},\"finish_reason\":null}}]}}\n\n"
        )
    };
    let text = part("{\"ci") + &part("ty\":1}") + &finish("tool_calls") + DONE;
    let (reply, _, entry) = stream(streams(&text), asked()).await;
    assert_eq!((reply.text(), reply.end), (text, End::Whole));
    assert_eq!(entry["outcome"], "ok");
}

#[tokio::test]
async fn a_prompt_that_is_too_long_goes_to_a_larger_window_and_to_no_other() {
    let error = json!({ "error": { "message": "too long", "type": "exceed_context_size_error", "code": 400 } });
    let small = Upstream::always(once(json_response(400, &[("connection", "close")], &error))).await;
    let same = Upstream::always(well()).await;
    let large = Upstream::always(well()).await;
    let sized = |name: &str, upstream: &Upstream, context: u32| {
        local(name, &upstream.base()) + &format!("context = {context}\n")
    };
    let text = sized("small", &small, 2048) + &sized("same", &same, 2048) + "\n[policy]\ndefault = \"all-local\"\n";
    let gateway = Plan::new(&(text + &sized("large", &large, 8192))).start().await;
    let reply = gateway.chat("auto", false).await;
    assert_eq!((reply.status, reply.header("x-wattroute-backend")), (200, Some("local/large")), "{reply:?}");
    assert_eq!((small.requests().len(), same.connections(), large.requests().len()), (1, 0, 1));
    let entries = gateway.finish().await;
    assert_eq!((entries.len(), &entries[0]["attempts"], &entries[0]["wasted_joules"]), (1, &json!(2), &json!(0.0)));
}
