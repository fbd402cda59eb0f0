//! What leaves, and answers that pass or break off as streams.

use super::*;

#[tokio::test]
async fn what_leaves_is_built_from_nothing() {
    let upstream = upstream(vec![response("200 OK\r\ncontent-type: application/json", ANSWER)]).await;
    let answer = http(upstream.port).ask(&query(",\"x\": 1.0"), None).await.unwrap();
    assert_eq!(text(&answer), ANSWER);
    assert_eq!((answer.usage.input, answer.usage.output, answer.usage.source), (Some(3), Some(2), Source::Upstream));
    assert_eq!((answer.usage.finish.as_deref(), answer.usage.model.as_deref()), (Some("stop"), Some("m-1")));
    let request = upstream.seen.lock().unwrap()[0].clone();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines.remove(0), "POST /v1/chat/completions HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: 127.0.0.1:{}", upstream.port);
    let length = format!("content-length: {}", body.len());
    let mut expected = vec![
        "accept: application/json",
        "accept-encoding: identity",
        "authorization: Bearer sk-canary-1",
        "content-type: application/json",
        "idempotency-key: k",
        concat!("user-agent: wattroute/", env!("CARGO_PKG_VERSION")),
        &host,
        &length,
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
    assert_eq!(body, "{\"model\":\"up/m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"x\": 1.0}");
}

#[tokio::test]
async fn a_stream_passes_and_its_hidden_usage_is_counted() {
    let answer = ask(vec![sse(EVENTS)], STREAM).await.unwrap();
    let (out, clean, completion) = through(answer, waits()).await;
    let usage = EVENTS.split_inclusive("\n\n").find(|event| event.contains("usage")).unwrap();
    assert!(clean);
    assert_eq!(out, EVENTS.replace(usage, ""));
    assert_eq!((completion.outcome, completion.fault), (Outcome::Ok, None));
    assert_eq!((completion.usage.input, completion.usage.output), (Some(3), Some(2)));
    assert_eq!(completion.bytes, out.len() as u64);
    assert!(completion.first_token >= completion.first_byte.map(|at| at - Duration::from_secs(1)));
}

#[tokio::test]
async fn a_usage_event_that_was_asked_for_stays() {
    let fields = ",\"stream\":true,\"stream_options\":{\"include_usage\":true}";
    let (out, clean, _) = through(ask(vec![sse(EVENTS)], fields).await.unwrap(), waits()).await;
    assert!(clean && out == EVENTS);
}

/// The row whose failure ends trust: whatever byte an upstream stops at, the client can tell.
#[tokio::test]
async fn a_stream_cut_at_any_byte_never_looks_finished() {
    let Step::Write(whole) = sse(EVENTS) else { unreachable!() };
    let done = whole.windows(13).position(|w| w == b"data: [DONE]\n").unwrap() + 14;
    for cut in 0..whole.len() {
        let reset = cut % 2 == 0;
        let mut steps = vec![Step::Write(whole[..cut].to_vec())];
        if reset {
            steps.push(Step::Reset);
        }
        let answer = match ask(steps, STREAM).await {
            Ok(answer) => answer,
            Err(fault) => {
                let early = matches!(fault.kind, FaultKind::UpstreamCut | FaultKind::UpstreamProtocol);
                assert!(early, "cut at {cut}: {fault}");
                continue;
            }
        };
        let (out, clean, completion) = through(answer, waits()).await;
        if cut >= done {
            assert!(out.contains("[DONE]"), "cut at {cut}");
            continue;
        }
        assert!(!clean && !out.contains("[DONE]"), "cut at {cut}: {out}");
        let last = out.trim_end().lines().last().unwrap();
        let event: serde_json::Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(event["error"]["type"], "upstream_error", "cut at {cut}");
        assert_eq!(completion.outcome, Outcome::Fault);
        for data in out.lines().filter_map(|line| line.strip_prefix("data:")) {
            serde_json::from_str::<serde_json::Value>(data).unwrap();
        }
    }
}

#[tokio::test]
async fn a_clean_end_without_done_is_a_broken_answer() {
    let short = EVENTS.split_inclusive("\n\n").take(3).collect::<String>();
    let (out, clean, completion) = through(ask(vec![sse(&short)], STREAM).await.unwrap(), waits()).await;
    assert!(!clean && out.starts_with(&short) && out.contains("\"code\":\"upstream_cut\""));
    assert_eq!((completion.usage.output, completion.usage.source), (Some(1), Source::Deltas));
}

#[tokio::test]
async fn an_upstreams_own_error_event_is_the_last_word() {
    let events = "data: {\"error\":{\"message\":\"boom\"}}\n\n";
    let (out, clean, completion) = through(ask(vec![sse(events)], STREAM).await.unwrap(), waits()).await;
    assert_eq!((out.as_str(), clean, completion.outcome), (events, false, Outcome::Upstream));
}
