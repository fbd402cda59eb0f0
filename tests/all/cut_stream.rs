//! An answer that was cut never looks finished, wherever it was cut.

use crate::support::answers::{
    CHUNKED, DONE, TO_CLOSE, chunk, completion, delta, finish, json_response, once, streams,
};
use crate::support::gateway::Gateway;
use crate::support::http::{End, Reply};
use crate::support::upstream::{Step, Upstream};

/// How the upstream goes away.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Close,
    Reset,
}

fn cut_after(bytes: &[u8], how: Cut) -> Vec<Step> {
    let mut steps = vec![Step::Request, Step::Send(bytes.to_vec())];
    if matches!(how, Cut::Reset) {
        steps.push(Step::Reset);
    }
    steps
}

/// What an official client makes of a stream: it raises, or it has an answer.
fn raises(reply: &Reply) -> bool {
    reply.status >= 400 || reply.end != End::Whole || reply.events().iter().any(|event| event.contains("\"error\""))
}

/// One good answer in between keeps the breaker closed.
async fn heal(gateway: &Gateway, upstream: &Upstream) {
    upstream.now(once(json_response(200, &[("connection", "close")], &completion())));
    assert_eq!(gateway.chat("cloud/far", false).await.status, 200);
}

fn no_finish_was_invented(reply: &Reply, sent: &str, at: &str) {
    let text = reply.text();
    assert!(!text.contains("[DONE]") || sent.contains("[DONE]"), "{at}: invented [DONE]: {text}");
    assert!(!text.contains("\"stop\"") || sent.contains("\"stop\""), "{at}: invented a finish: {text}");
}

async fn every_cut_of_a_stream(wire: String, how: Cut) {
    let upstream = Upstream::always(Vec::new()).await;
    let gateway = Gateway::before(&upstream.base()).await;
    // Up to the line end after [DONE] the stream is not whole.
    let whole = wire.find("[DONE]").unwrap() + "[DONE]\n".len();
    let mut asked = 0;
    for cut in 0..whole {
        if cut % 4 == 3 {
            heal(&gateway, &upstream).await;
        }
        upstream.now(cut_after(&wire.as_bytes()[..cut], how));
        let reply = gateway.chat("cloud/far", true).await;
        asked += 1;
        let at = format!("cut at {cut} of {} ({how:?})", wire.len());
        assert_ne!(reply.end, End::Silent, "{at}");
        assert!(raises(&reply), "{at}: looks finished: {reply:?}");
        no_finish_was_invented(&reply, &String::from_utf8_lossy(&wire.as_bytes()[..cut]), &at);
        if reply.status == 200 {
            assert_ne!(reply.end, End::Whole, "{at}: ended in order: {reply:?}");
            // A reset may overtake the last event in the client's kernel; a close may not.
            if reply.end == End::Cut {
                let last = reply.events().pop().unwrap_or_default();
                let error: serde_json::Value = serde_json::from_str(&last).unwrap_or_default();
                assert!(error["error"]["code"].is_string(), "{at}: no error event at the end: {}", reply.text());
            }
        } else {
            assert_eq!((reply.status, reply.end), (502, End::Whole), "{at}");
            reply.code();
        }
    }
    upstream.now(cut_after(wire.as_bytes(), Cut::Close));
    let reply = gateway.chat("cloud/far", true).await;
    assert_eq!((reply.status, reply.end), (200, End::Whole), "the whole stream must pass: {reply:?}");
    assert_eq!(reply.events().last().unwrap(), "[DONE]");
    let entries = gateway.finish().await;
    let faults = entries.iter().filter(|entry| entry["outcome"] == "fault").count();
    assert_eq!(faults, asked, "one entry per cut answer, and none of them went well");
}

fn short() -> [String; 3] {
    [delta("canaryanswer é"), finish("stop"), DONE.to_owned()]
}

#[tokio::test]
async fn chunked_closed() {
    let events: String = short().iter().map(|event| chunk(event)).collect();
    every_cut_of_a_stream(format!("{CHUNKED}{events}0\r\n\r\n"), Cut::Close).await;
}

#[tokio::test]
async fn chunked_reset() {
    let events: String = short().iter().map(|event| chunk(event)).collect();
    every_cut_of_a_stream(format!("{CHUNKED}{events}0\r\n\r\n"), Cut::Reset).await;
}

/// The hard case: without framing, HTTP itself calls every cut a clean end.
#[tokio::test]
async fn unframed_closed() {
    every_cut_of_a_stream(format!("{TO_CLOSE}{}", short().concat()), Cut::Close).await;
}

#[tokio::test]
async fn with_carriage_returns() {
    every_cut_of_a_stream(format!("{TO_CLOSE}{}", short().concat().replace('\n', "\r\n")), Cut::Close).await;
}

#[tokio::test]
async fn a_whole_answer_cut_at_every_byte_is_an_error() {
    let upstream = Upstream::always(Vec::new()).await;
    let gateway = Gateway::before(&upstream.base()).await;
    let wire = json_response(200, &[], &completion());
    for cut in 0..wire.len() {
        if cut % 4 == 3 {
            heal(&gateway, &upstream).await;
        }
        upstream.now(cut_after(&wire[..cut], if cut % 2 == 0 { Cut::Close } else { Cut::Reset }));
        let reply = gateway.chat("cloud/far", false).await;
        assert_eq!((reply.status, reply.end), (502, End::Whole), "cut at {cut}: {reply:?}");
        assert!(["upstream_cut", "upstream_protocol"].contains(&reply.code().as_str()), "cut at {cut}: {reply:?}");
    }
    upstream.now(cut_after(&wire, Cut::Close));
    let reply = gateway.chat("cloud/far", false).await;
    assert_eq!((reply.status, reply.json()), (200, completion()));
    gateway.finish().await;
}

#[tokio::test]
async fn an_unframed_whole_answer_must_be_json_to_its_end() {
    let upstream = Upstream::always(Vec::new()).await;
    let gateway = Gateway::before(&upstream.base()).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
    let wire = format!("{head}{}", completion());
    for cut in (head.len()..wire.len()).step_by(5) {
        heal(&gateway, &upstream).await;
        upstream.now(cut_after(&wire.as_bytes()[..cut], Cut::Close));
        let reply = gateway.chat("cloud/far", false).await;
        assert_eq!((reply.status, reply.end), (502, End::Whole), "cut at {cut}: {reply:?}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn an_error_event_of_the_upstream_is_kept_and_nothing_follows_it() {
    let error =
        "data: {\"error\":{\"message\":\"overheated\",\"type\":\"server_error\",\"param\":null,\"code\":\"hot\"}}\n\n";
    for text in [delta("canaryanswer") + error, delta("canaryanswer") + error + DONE] {
        let upstream = Upstream::always(streams(&text)).await;
        let gateway = Gateway::before(&upstream.base()).await;
        let reply = gateway.chat("cloud/far", true).await;
        assert!(reply.text().contains("overheated"), "{reply:?}");
        assert!(raises(&reply), "{reply:?}");
        assert!(text.contains("[DONE]") || !reply.text().contains("[DONE]"), "{reply:?}");
        let entries = gateway.finish().await;
        assert_ne!(entries[0]["outcome"], "ok", "{}", entries[0]);
    }
}

#[tokio::test]
async fn more_bytes_than_promised_are_never_passed_on() {
    let mut wire = json_response(200, &[], &completion());
    wire.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
    let upstream = Upstream::always(vec![Step::Request, Step::Send(wire), Step::Again]).await;
    let gateway = Gateway::before(&upstream.base()).await;
    for _ in 0..4 {
        let reply = gateway.chat("cloud/far", false).await;
        assert!(!reply.text().contains("evil"), "{reply:?}");
        assert!(reply.status == 502 || reply.json() == completion(), "{reply:?}");
    }
    gateway.finish().await;
}
