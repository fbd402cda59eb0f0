//! Bad luck on our own side: a full disk, a taken port, a dead upstream, a drain.

use std::time::{Duration, Instant};

use crate::support::answers::{CHUNKED, DONE, chunk, completion, delta, finish, json_response, once, well};
use crate::support::gateway::{Gateway, Plan, cloud, local};
use crate::support::http::End;
use crate::support::rude::{self, Rude};
use crate::support::upstream::{self, Step, Upstream};

#[tokio::test]
async fn a_journal_that_cannot_be_written_is_counted_and_serving_goes_on() {
    let far = Upstream::always(well()).await;
    let plan = Plan::new(&cloud("far", &far.base())).set("journal.path", "/proc/wattroute/journal.db");
    let gateway = plan.start().await;
    for _ in 0..5 {
        assert_eq!(gateway.chat("cloud/far", false).await.status, 200);
    }
    let end = Instant::now() + Duration::from_secs(5);
    let errors = async || {
        let metrics = gateway.metrics().await;
        let line = metrics.lines().find(|line| line.starts_with("wattroute_journal_errors_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    while errors().await < 1.0 {
        assert!(Instant::now() < end, "the failure is invisible");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway.end().await;
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for key in ["server.listen", "server.admin"] {
        let plan = Plan::new(&local("near", "http://127.0.0.1:9/v1")).set(key, &address.to_string());
        let Err(why) = wattroute::app::App::start(plan.config()).await else { panic!("{key} was taken twice") };
        let why = why.to_string();
        assert!(why.contains(&address.to_string()), "{key}: {why}");
    }
}

#[tokio::test]
async fn a_dead_upstream_is_left_alone_after_a_while_and_comes_back() {
    let far = Upstream::always(vec![Step::Request, Step::Reset]).await;
    let gateway = Gateway::before(&far.base()).await;
    for _ in 0..40 {
        assert!(gateway.chat("cloud/far", false).await.status >= 500);
    }
    assert!(far.connections() < 30, "the breaker never opened: {} attempts", far.connections());
    far.now(well());
    let end = Instant::now() + Duration::from_secs(8);
    while gateway.chat("cloud/far", false).await.status != 200 {
        assert!(Instant::now() < end, "the breaker never closed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_fall_back_answers_before_the_first_byte_and_never_after_it() {
    let (_held, dead) = upstream::refused();
    let good = Upstream::always(well()).await;
    let text = local("dead", &format!("http://{dead}/v1"))
        + &local("good", &good.base())
        + "[policy]\ndefault = \"all-local\"\n";
    let gateway = Plan::new(&text).start().await;
    // A quiet service has three extra attempts a second.
    for _ in 0..3 {
        let reply = gateway.chat("auto", false).await;
        assert_eq!((reply.status, reply.header("x-wattroute-backend")), (200, Some("local/good")), "{reply:?}");
    }
    let entries = gateway.finish().await;
    assert!(entries.iter().any(|entry| entry["attempts"] == 2), "no attempt was wasted: {entries:#?}");

    let begun = [CHUNKED.to_owned(), chunk(&delta("canaryanswer"))].concat().into_bytes();
    let (one, two) = (Upstream::always(once(begun.clone())).await, Upstream::always(once(begun)).await);
    let text = local("one", &one.base()) + &local("two", &two.base()) + "[policy]\ndefault = \"all-local\"\n";
    let gateway = Plan::new(&text).start().await;
    let reply = gateway.chat("auto", true).await;
    assert_ne!(reply.end, End::Whole);
    assert_eq!(one.connections() + two.connections(), 1, "asked again after the first byte");
    gateway.finish().await;
}

#[tokio::test]
async fn both_sides_down_is_one_clear_error() {
    let (_held, dead) = upstream::refused();
    let text = local("near", &format!("http://{dead}/v1")) + &cloud("far", &format!("http://{dead}/v1"));
    let gateway = Plan::new(&text).start().await;
    for _ in 0..20 {
        let asked = Instant::now();
        let reply = gateway.chat("auto", false).await;
        assert!([502, 503].contains(&reply.status), "{reply:?}");
        reply.code();
        assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_drain_lets_running_answers_finish() {
    let text =
        [delta("canaryanswer"), delta("more"), finish("stop"), DONE.to_owned()].map(|event| chunk(&event)).concat();
    let wire = format!("{text}0\r\n\r\n").into_bytes();
    let slow = vec![Step::Request, Step::Send(CHUNKED.into()), Step::Drip(wire, 60, Duration::from_millis(15))];
    let far = Upstream::always(slow).await;
    let gateway = Gateway::before(&far.base()).await;
    let mut client = Rude::connect(gateway.data).await;
    client.send(&rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", true))).await;
    client.until("canaryanswer").await;
    let reading = tokio::spawn(async move { client.reply().await });
    let entries = gateway.finish().await;
    let reply = reading.await.unwrap();
    assert_eq!((reply.end, reply.events().last().map(String::as_str)), (End::Whole, Some("[DONE]")), "{reply:?}");
    assert_eq!(entries[0]["outcome"], "ok");
}

#[tokio::test]
async fn a_drain_ends_in_its_grace_whatever_clients_do() {
    let far = Upstream::always(vec![Step::Request, Step::Hold]).await;
    let gateway = Plan::new(&cloud("far", &far.base())).set("server.grace", "200ms").start().await;
    let mut stuck = Rude::connect(gateway.data).await;
    stuck.send(&rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", true))).await;
    far.await_requests(1).await;
    let _idle = Rude::connect(gateway.data).await;
    let asked = Instant::now();
    let entries = gateway.finish().await;
    assert!(asked.elapsed() < Duration::from_millis(1700), "{:?}", asked.elapsed());
    assert_eq!(entries.len(), 1, "the cut request left no entry");
}

#[tokio::test]
async fn a_storm_of_hang_ups_leaves_nothing_behind() {
    let far = Upstream::always(vec![
        Step::Request,
        // Whole answers are JSON: an event stream instead would be the upstream's failure, and enough of them open its breaker.
        Step::Fitting(CHUNKED.into(), CHUNKED.replace("text/event-stream", "application/json").into()),
        Step::Endless(chunk(&delta("x")).into_bytes(), Duration::from_millis(2)),
    ])
    .await;
    let gateway = Plan::new(&(cloud("far", &far.base()) + "[limits]\nin_flight = 64\n")).start().await;
    for round in 0..20 {
        let mut clients = Vec::new();
        for n in 0..16 {
            let mut client = Rude::connect(gateway.data).await;
            client
                .send(&rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", (round + n) % 2 == 0)))
                .await;
            clients.push(client);
        }
        for (n, client) in clients.into_iter().enumerate() {
            drop(client.leave(rude::LEAVES[(round + n) % 3]).await);
        }
    }
    crate::support::eventually("every upstream connection to close", || {
        far.seen().iter().all(|seen| seen.closed.is_some())
    })
    .await;
    // All 64 places are free again: as many requests are held at once, and one more is not let in. A request of the
    // storm that the gateway has not read yet may take a place for a moment, so a refused one is sent again.
    far.now(vec![Step::Request, Step::Hold]);
    let held = || far.seen().iter().filter(|seen| seen.closed.is_none() && !seen.bytes.is_empty()).count();
    let mut full = Vec::new();
    let end = Instant::now() + crate::support::PATIENCE;
    let mut refused = String::new();
    while held() < 64 {
        assert!(Instant::now() < end, "only {} of 64 places are left: {refused}", held());
        let mut client = Rude::connect(gateway.data).await;
        client.send(&rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", true))).await;
        let reply = client.reply_within(Duration::from_millis(20)).await;
        if reply.status == 0 {
            full.push(client);
        } else {
            refused = reply.text();
        }
    }
    assert_eq!(gateway.chat("cloud/far", false).await.status, 503);
    drop(full);
    crate::support::eventually("the last ones to close", || far.seen().iter().all(|seen| seen.closed.is_some())).await;
    far.now(once(json_response(200, &[], &completion())));
    assert_eq!(gateway.chat("cloud/far", false).await.status, 200);
    // Every request has at most one entry, and each that went upstream has one.
    let entries = gateway.finish().await;
    assert!(entries.len() >= far.requests().len(), "{} entries of {}", entries.len(), far.requests().len());
}

/// Ten thousand requests' worth of memory is not kept.
#[tokio::test]
async fn a_stalled_reader_costs_little_and_stops_the_upstream() {
    let big = chunk(&delta(&"canaryanswer ".repeat(1000))).into_bytes();
    let far =
        Upstream::always(vec![Step::Request, Step::Send(CHUNKED.into()), Step::Endless(big, Duration::ZERO)]).await;
    let gateway = Plan::new(&(cloud("far", &far.base()) + "[limits]\nwrite_stall = \"400ms\"\n")).start().await;
    let mut client = Rude::connect(gateway.data).await;
    client.send(&rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", true))).await;
    far.await_requests(1).await;
    // The client never reads: the upstream is cut at the write deadline and not before the kernel's buffers are full.
    let asked = Instant::now();
    far.closed(0).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    drop(client);
    gateway.finish().await;
}
