//! How much a client may send, how slowly, and how many at a time.

use crate::support::answers::well;
use crate::support::gateway::{Gateway, Plan, cloud};
use crate::support::http::{self, End};
use crate::support::rude::{self, Rude};
use crate::support::upstream::Upstream;
use crate::surface::both;

#[tokio::test]
async fn bodies_are_limited_to_the_byte() {
    let far = Upstream::always(well()).await;
    let gateway = Plan::new(&(cloud("far", &far.base()) + "[limits]\nbody_bytes = \"4KiB\"\n")).start().await;
    let body = |size: usize| {
        let mut text = String::from_utf8(rude::chat("cloud/far", false)).unwrap();
        text.push_str(&" ".repeat(size - text.len()));
        text.into_bytes()
    };
    for (size, status) in [(4095, 200), (4096, 200), (4097, 413), (100_000, 413)] {
        let body = body(size);
        let reply = gateway.ask(&rude::request("POST", "/v1/chat/completions", &body)).await;
        assert_eq!(reply.status, status, "{size}: {reply:?}");
        let mut chunked = String::from_utf8(rude::request("POST", "/v1/chat/completions", b"")).unwrap();
        chunked.truncate(chunked.len() - 2);
        chunked.push_str(&format!(
            "transfer-encoding: chunked\r\n\r\n{size:x}\r\n{}\r\n0\r\n\r\n",
            String::from_utf8(body).unwrap()
        ));
        let reply = gateway.ask(chunked.as_bytes()).await;
        assert_eq!(reply.status, status, "{size} chunked: {reply:?}");
    }
    // A length over the limit is refused before the body comes.
    let mut client = Rude::connect(gateway.data).await;
    let mut head = String::from_utf8(rude::request("POST", "/v1/chat/completions", b"")).unwrap();
    head.truncate(head.len() - 2);
    client.send(format!("{head}content-length: 999999999\r\n\r\n").as_bytes()).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "request_too_large"));
    gateway.finish().await;
}

#[tokio::test]
async fn json_is_limited_in_depth_and_a_bomb_costs_nothing() {
    let (_near, far, gateway) = both().await;
    let nested = |depth: usize| {
        let inner = "[".repeat(depth) + &"]".repeat(depth);
        format!("{{\"model\":\"cloud/far\",\"messages\":[{{\"role\":\"user\",\"content\":\"canaryprompt\"}}],\"x\":{inner}}}").into_bytes()
    };
    for (depth, status) in [(62, 200), (63, 200), (64, 400), (65, 400), (1_000_000, 400)] {
        let reply = gateway.ask(&rude::request("POST", "/v1/chat/completions", &nested(depth))).await;
        assert_eq!(reply.status, status, "{depth}: {reply:?}");
    }
    assert_eq!(far.requests().len(), 2);
    gateway.finish().await;
}

#[tokio::test]
async fn heads_are_limited_to_the_field_and_to_the_byte() {
    let (_near, _far, gateway) = both().await;
    let get = |more: &str| {
        String::from_utf8(rude::request("GET", "/v1/models", b"")).unwrap().replacen(
            "\r\n\r\n",
            &format!("\r\n{more}\r\n"),
            1,
        )
    };
    let fields = |n: usize| get(&(0..n).map(|i| format!("x-{i}: y\r\n")).collect::<String>());
    // Host and Authorization count too.
    for (count, status) in [(97, 200), (98, 200), (99, 431), (500, 431)] {
        let reply = gateway.ask(fields(count).as_bytes()).await;
        assert_eq!(reply.status, status, "{count}: {reply:?}");
    }
    let bytes = |size: usize| {
        let bare = get("x-a: \r\n").len();
        get(&format!("x-a: {}\r\n", "y".repeat(size - bare)))
    };
    for (size, status) in [(32 << 10, 200), ((32 << 10) + 4096, 431), (1 << 20, 431)] {
        let reply = gateway.ask(bytes(size - 512).as_bytes()).await;
        assert!(reply.status == status || status == 431 && reply.status == 0, "{size}: {reply:?}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn silence_and_slowness_are_cut() {
    let far = Upstream::always(well()).await;
    let waits = "[limits]\nfirst_byte = \"150ms\"\nhead = \"150ms\"\nbody_gap = \"150ms\"\nbody_total = \"400ms\"\n";
    let gateway = Plan::new(&(cloud("far", &far.base()) + waits)).start().await;
    let whole = rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", false));
    let head = http::end_of_head(&whole).unwrap();
    let limit = std::time::Duration::from_millis(1500);
    for part in [
        &b""[..],
        b"PRI * HT",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1",
        &whole[..head - 4],
        &whole[..head],
        &whole[..head + 9],
    ] {
        let mut client = Rude::connect(gateway.data).await;
        client.send(part).await;
        assert!(client.closes_within(limit).await, "held open: {:?}", String::from_utf8_lossy(part));
    }
    // A drip within each gap still meets the total.
    let mut client = Rude::connect(gateway.data).await;
    client.send(&whole[..head]).await;
    let started = std::time::Instant::now();
    for byte in &whole[head..] {
        client.send(&[*byte]).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        if started.elapsed() > std::time::Duration::from_millis(600) {
            break;
        }
    }
    let reply = client.reply().await;
    assert!(reply.status == 408 || reply.end == End::Reset, "{reply:?}");
    assert_eq!(far.connections(), 0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_full_house_is_a_503_that_says_when_to_come_back() {
    use crate::support::upstream::Step;
    let far = Upstream::always(vec![Step::Request, Step::Hold]).await;
    let gateway = Plan::new(&(cloud("far", &far.base()) + "[limits]\nin_flight = 1\n")).start().await;
    let mut first = Rude::connect(gateway.data).await;
    first.send(&rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", true))).await;
    far.await_requests(1).await;
    let reply = gateway.chat("cloud/far", true).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "overloaded"), "{reply:?}");
    assert!(reply.header("retry-after").is_some() && reply.header("retry-after-ms").is_some(), "{reply:?}");
    drop(first);
    gateway.finish().await;
}

#[tokio::test]
async fn own_attempts_spent_means_do_not_retry() {
    use crate::support::upstream::Step;
    let far = Upstream::always(vec![Step::Request, Step::Reset]).await;
    let gateway = Gateway::before(&far.base()).await;
    let reply = gateway.chat("cloud/far", false).await;
    assert_eq!((reply.status, reply.header("x-should-retry")), (502, Some("false")), "{reply:?}");
    gateway.finish().await;
}
