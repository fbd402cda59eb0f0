//! A private query never touches a cloud socket, whatever goes wrong on this side.

use std::sync::Arc;
use std::time::Duration;

use crate::support::answers::{DONE, TO_CLOSE, completion, delta, finish, json_response, once, streams, well};
use serde_json::json;

use crate::support::gateway::{Gateway, Plan, cloud, local};
use crate::support::http::Reply;
use crate::support::rude::{self, Rude};
use crate::support::upstream::{self, Step, Upstream};
use crate::support::{canary, http::End};

/// Requests in all.
const REQUESTS: usize = 10_000;
/// Clients at a time.
const CLIENTS: usize = 8;

/// The ways in which a local server fails, by the connection's number. Every other one answers well, which
/// keeps the breaker closed most of the time; a few stall.
fn faults(n: usize) -> Vec<Step> {
    let error = |status, headers: &[(&str, &str)]| {
        let body = json!({ "error": { "message": "broken", "code": "context_length_exceeded" } });
        once(json_response(status, headers, &body))
    };
    match (n % 2, n / 2 % 14) {
        (0, 0) => error(500, &[]),
        (0, 1) => error(503, &[("retry-after", "1")]),
        (0, 2) => error(429, &[("retry-after", "1")]),
        (0, 3) => vec![Step::Request, Step::Reset],
        (0, 4) => vec![Step::Reset],
        (0, 5) => vec![],
        (0, 6) => once(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{".to_vec()),
        (0, 7) => streams(&delta("canaryanswer")),
        (0, 8) => once(b"not http\r\n\r\n".to_vec()),
        (0, 9) => error(400, &[]),
        (0, 10) => error(307, &[("location", "https://cloud.example/v1/chat/completions")]),
        (0, 11) if n.is_multiple_of(5) => vec![Step::Request, Step::Hold],
        (0, 12) => error(404, &[]),
        _ => {
            let stream = format!("{TO_CLOSE}{}{}{DONE}", delta("canaryanswer"), finish("stop"));
            let whole = json_response(200, &[("connection", "close")], &completion());
            vec![Step::Request, Step::Fitting(stream.into_bytes(), whole)]
        }
    }
}

/// A private request: the ways to be private, the ways to ask.
fn ask(n: usize, private_model: &str) -> Vec<u8> {
    let body = json!({
        "model": private_model,
        "messages": [{ "role": "user", "content": format!("{} {}", canary::PROMPT, n % 3000) }],
        "stream": n.is_multiple_of(3),
        "temperature": 0,
        "max_tokens": 8,
    });
    let path = if n.is_multiple_of(101) { "/v1/route" } else { "/v1/chat/completions" };
    let request = rude::request("POST", path, body.to_string().as_bytes());
    if private_model.contains("private") {
        return request;
    }
    // A private key makes every model name private.
    String::from_utf8(request).unwrap().replace(canary::CLIENT_KEY, canary::PRIVATE_KEY).into_bytes()
}

const MODELS: [&str; 14] = [
    "auto:private",
    "local/near1",
    "private-alias",
    "local/near2",
    "auto",
    "local/near3",
    "auto:quality",
    "local/near0",
    "auto:fast",
    "local/near1",
    "cloud/far",
    "local/near2",
    "local/dead",
    "local/near3",
];

async fn client(gateway: Arc<Gateway>, first: usize) -> [usize; 2] {
    let mut counts = [0, 0];
    let mut connection = Rude::connect(gateway.data).await;
    for n in (first..REQUESTS).step_by(CLIENTS) {
        connection.send(&ask(n, MODELS[n % MODELS.len()])).await;
        let reply: Reply = connection.reply().await;
        assert_ne!(reply.end, End::Silent, "request {n}: {reply:?}");
        counts[usize::from(reply.status != 200)] += 1;
        if reply.end != End::Whole || reply.header("connection") == Some("close") {
            connection = Rude::connect(gateway.data).await;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_private_requests_under_local_faults_open_no_cloud_socket() {
    let far = Upstream::always(well()).await;
    let (_held, dead) = upstream::refused();
    let (mut near, mut text) = (Vec::new(), String::new());
    for n in 0..4 {
        let upstream = Upstream::by(faults).await;
        text += &local(&format!("near{n}"), &upstream.base());
        text += &format!("[backends.near{n}.waits]\nfirst_token = \"30ms\"\ngap = \"30ms\"\ntotal = \"60ms\"\n");
        near.push(upstream);
    }
    let text = text
        + &local("dead", &format!("http://{dead}/v1"))
        + &cloud("far", &far.base())
        + "\n[aliases]\nprivate-alias = \"auto:private\"\n[cache]\nenabled = true\n[limits]\nin_flight = 6\n";
    let gateway = Arc::new(Plan::new(&text).set("server.workers", "2").start().await);
    let clients: Vec<_> = (0..CLIENTS).map(|first| tokio::spawn(client(gateway.clone(), first))).collect();
    let mut counts = [0, 0];
    for one in clients {
        let [well, badly] = one.await.unwrap();
        counts = [counts[0] + well, counts[1] + badly];
    }
    assert_eq!(counts[0] + counts[1], REQUESTS);
    assert!(counts[0] > 0 && counts[1] > 0, "the faults were no faults, or nothing else: {counts:?}");
    assert_eq!((far.connections(), far.bytes()), (0, 0), "a private request reached the cloud");
    // The same gateway does use the cloud for others: the zero above is a choice, not a broken wire.
    let reply = gateway.chat("cloud/far", false).await;
    assert_eq!((reply.status, far.connections()), (200, 1), "{reply:?}");
    let gateway = Arc::into_inner(gateway).unwrap();
    let entries = gateway.finish().await;
    // Every kind of misfortune did happen, and most requests got as far as a local server.
    let ended = |code: &str| entries.iter().filter(|entry| entry["fault"] == code || entry["outcome"] == code).count();
    let faults = ["total_timeout", "upstream_cut", "upstream_protocol", "upstream_unreachable", "upstream"];
    for code in faults.into_iter().chain(["overloaded", "no_backend", "cached", "ok"]) {
        assert!(ended(code) > 0, "nothing ended as {code}");
    }
    let asked: usize = near.iter().map(Upstream::connections).sum();
    let faulted: usize = faults.map(ended).into_iter().sum();
    assert!(asked > 2000 && faulted > 500, "the faults were not met: {asked} asked, {faulted} faulted");
    assert_eq!(entries.iter().filter(|entry| entry["place"] == "cloud").count(), 1);
}

#[tokio::test]
async fn a_private_query_with_no_local_backend_is_refused_and_says_so() {
    let far = Upstream::always(well()).await;
    let gateway = Gateway::before(&far.base()).await;
    for model in ["auto:private", "cloud/far"] {
        let body = rude::chat(model, false);
        let request = rude::request("POST", "/v1/chat/completions", &body);
        let private = String::from_utf8(request).unwrap().replace(canary::CLIENT_KEY, canary::PRIVATE_KEY);
        let reply = gateway.ask(private.as_bytes()).await;
        assert!([400, 403, 503].contains(&reply.status), "{model}: {reply:?}");
        reply.code();
    }
    assert_eq!(far.connections(), 0);
    gateway.finish().await;
}

/// A health probe or a warm-up is a byte to the cloud too.
#[tokio::test]
async fn a_gateway_whose_policy_is_private_opens_no_cloud_socket_on_its_own() {
    let far = Upstream::always(well()).await;
    let near = Upstream::always(once(json_response(200, &[], &completion()))).await;
    let text = cloud("far", &far.base()) + &local("near", &near.base()) + "\n[policy]\ndefault = \"private\"\n";
    let gateway = Plan::new(&text).start().await;
    for _ in 0..20 {
        let reply = gateway.chat("auto", false).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("x-wattroute-place"), Some("local"));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(far.connections(), 0);
    gateway.finish().await;
}

/// Policies that were named tighten one another; none loosens what another keeps here.
#[tokio::test]
async fn no_other_name_takes_a_private_policy_back() {
    let far = Upstream::always(well()).await;
    let near = Upstream::always(once(json_response(200, &[], &completion()))).await;
    let backends =
        local("near", &near.base()) + &cloud("far", &far.base()) + "\n[aliases]\nhushed = \"auto:private\"\n";
    let open = Plan::new(&backends).start().await;
    for (model, policy) in
        [("auto:private", "quality"), ("hushed", "fast"), ("auto:quality", "private"), ("cloud/far", "private")]
    {
        let said = format!("HTTP/1.1\r\nx-wattroute-policy: {policy}");
        let request = rude::request("POST", "/v1/chat/completions", &rude::chat(model, false));
        let request = String::from_utf8(request).unwrap().replacen("HTTP/1.1", &said, 1);
        let reply = open.ask(request.as_bytes()).await;
        assert!(reply.status == 503 || reply.header("x-wattroute-place") == Some("local"), "{model}: {reply:?}");
    }
    open.finish().await;
    let closed = Plan::new(&(backends + "[policy]\ndefault = \"private\"\n")).start().await;
    for model in ["auto:quality", "auto:fast", "cloud/far", "hushed"] {
        let reply = closed.chat(model, false).await;
        assert!(reply.status == 503 || reply.header("x-wattroute-place") == Some("local"), "{model}: {reply:?}");
    }
    closed.finish().await;
    assert_eq!(far.connections(), 0);
}
