//! A client that goes away stops the work done for it: in every window, however it leaves, within 100 ms.

use std::time::{Duration, Instant};

use crate::support::answers::{CHUNKED, chunk, completion, delta, json_response, once};
use crate::support::gateway::{Gateway, Plan, cloud, local};
use crate::support::rude::{self, LEAVES, Leave, Rude};
use crate::support::upstream::{self, Step, Upstream};

/// The promise.
const LIMIT_P99: Duration = Duration::from_millis(100);
/// Samples of each window and each way to leave.
const SAMPLES: usize = 8;

/// One moment of a request's life at which the client goes away.
struct Window {
    gateway: Gateway,
    /// Sees the request that is abandoned; none where no upstream can be reached.
    upstream: Option<Upstream>,
    model: &'static str,
    stream: bool,
    /// What the client has received by then.
    reached: Option<&'static str>,
}

impl Window {
    async fn new(upstream: Upstream, stream: bool) -> Self {
        let plan = narrow(&cloud("far", &upstream.base()));
        Self { gateway: plan.start().await, upstream: Some(upstream), model: "cloud/far", stream, reached: None }
    }

    /// Opens one request, leaves in the window, and says how long the upstream's close and the permit's return took.
    async fn sample(&self, how: Leave) -> Vec<Duration> {
        let before = self.upstream.as_ref().map_or(0, Upstream::connections);
        let mut client = Rude::connect(self.gateway.data).await;
        client.send(&rude::request("POST", "/v1/chat/completions", &rude::chat(self.model, self.stream))).await;
        if let Some(upstream) = &self.upstream {
            upstream.await_connections(before + 1).await;
        }
        if let Some(text) = self.reached {
            client.until(text).await;
        }
        // The only permit is taken: the window is really open.
        self.taken().await;
        let left = Instant::now();
        let stays = client.leave(how).await;
        let mut delays = vec![self.freed().await - left];
        if let Some(upstream) = &self.upstream {
            delays.push(upstream.closed(before).await.saturating_duration_since(left));
        }
        drop(stays);
        delays
    }

    async fn busy(&self) -> bool {
        let reply = self.gateway.ask(&rude::request("GET", "/v1/models", b"")).await;
        assert!([200, 503].contains(&reply.status), "{reply:?}");
        reply.status == 503
    }

    async fn taken(&self) {
        let end = Instant::now() + crate::support::PATIENCE;
        while !self.busy().await {
            assert!(Instant::now() < end, "the request never took its permit");
        }
    }

    async fn freed(&self) -> Instant {
        let end = Instant::now() + crate::support::PATIENCE;
        while self.busy().await {
            assert!(Instant::now() < end, "the permit never came back");
        }
        Instant::now()
    }

    /// All ways to leave, then the journal.
    async fn check(self) {
        let mut delays = Vec::new();
        for how in LEAVES {
            for _ in 0..SAMPLES {
                delays.extend(self.sample(how).await);
            }
        }
        within_the_limit(delays);
        let entries = self.gateway.finish().await;
        assert_eq!(entries.len(), LEAVES.len() * SAMPLES, "one entry per request");
        for entry in entries {
            assert_eq!(entry["outcome"], "hangup", "{entry}");
        }
    }
}

fn within_the_limit(mut delays: Vec<Duration>) {
    delays.sort();
    let p99 = delays[(delays.len() * 99).div_ceil(100) - 1];
    assert!(p99 <= LIMIT_P99, "p99 {p99:?} of {delays:?}");
}

/// One request at a time, so that a permit which does not come back is seen at once.
fn narrow(text: &str) -> Plan {
    Plan::new(&format!("{text}\n[limits]\nin_flight = 1\n"))
}

#[tokio::test]
async fn while_connecting() {
    let (_held, address) = upstream::unanswered();
    let gateway = narrow(&cloud("far", &format!("http://{address}/v1"))).start().await;
    Window { gateway, upstream: None, model: "cloud/far", stream: true, reached: None }.check().await;
}

#[tokio::test]
async fn during_the_tls_handshake_with_the_upstream() {
    let upstream = Upstream::always(vec![Step::Hold]).await;
    let plan = narrow(&cloud("far", &upstream.base().replace("http:", "https:")));
    let gateway = plan.start().await;
    let window = Window { gateway, upstream: Some(upstream), model: "cloud/far", stream: true, reached: None };
    window.check().await;
}

#[tokio::test]
async fn before_the_head() {
    Window::new(Upstream::always(vec![Step::Request, Step::Hold]).await, true).await.check().await;
}

#[tokio::test]
async fn before_the_first_token() {
    let steps = vec![Step::Request, Step::Send(CHUNKED.into()), Step::Hold];
    Window::new(Upstream::always(steps).await, true).await.check().await;
}

#[tokio::test]
async fn mid_stream_while_tokens_flow() {
    let token = chunk(&delta("canaryanswer")).into_bytes();
    let steps = vec![Step::Request, Step::Send(CHUNKED.into()), Step::Endless(token, Duration::from_millis(5))];
    let mut window = Window::new(Upstream::always(steps).await, true).await;
    window.reached = Some("canaryanswer");
    window.check().await;
}

#[tokio::test]
async fn mid_stream_while_the_upstream_is_silent() {
    let token = chunk(&delta("canaryanswer")).into_bytes();
    let steps = vec![Step::Request, Step::Send(CHUNKED.into()), Step::Send(token), Step::Hold];
    let mut window = Window::new(Upstream::always(steps).await, true).await;
    window.reached = Some("canaryanswer");
    window.check().await;
}

#[tokio::test]
async fn not_streaming_before_the_head() {
    Window::new(Upstream::always(vec![Step::Request, Step::Hold]).await, false).await.check().await;
}

#[tokio::test]
async fn not_streaming_mid_body() {
    let mut answer = json_response(200, &[], &completion());
    answer.truncate(answer.len() - 9);
    let steps = vec![Step::Request, Step::Send(answer), Step::Hold];
    Window::new(Upstream::always(steps).await, false).await.check().await;
}

#[tokio::test]
async fn with_the_cache_on_and_nothing_half_kept() {
    let upstream = Upstream::always(vec![Step::Request, Step::Hold]).await;
    let text = format!("{}\n[cache]\nenabled = true\nsampled = true\n", cloud("far", &upstream.base()));
    let gateway = narrow(&text).start().await;
    let window = Window { gateway, upstream: Some(upstream), model: "cloud/far", stream: false, reached: None };
    window.check().await;
}

#[tokio::test]
async fn while_a_fall_back_is_asked() {
    let failing = vec![Step::Request, Step::Reset];
    let first = Upstream::always(failing.clone()).await;
    let upstream = Upstream::always(vec![Step::Request, Step::Hold]).await;
    let text = local("one", &first.base()) + &local("two", &upstream.base()) + "\n[policy]\ndefault = \"all-local\"\n";
    let gateway = narrow(&text).start().await;
    let window = Window { gateway, upstream: Some(upstream), model: "auto", stream: true, reached: None };
    let mut delays = Vec::new();
    for n in 0..LEAVES.len() * SAMPLES {
        // Good answers in between keep the first one's breaker closed and pay for the extra attempt.
        first.now(once(json_response(200, &[("connection", "close")], &completion())));
        for _ in 0..4 {
            assert_eq!(window.gateway.chat("local/one", false).await.status, 200);
        }
        first.now(failing.clone());
        delays.extend(window.sample(LEAVES[n % 3]).await);
    }
    within_the_limit(delays);
    let entries = window.gateway.finish().await;
    let left: Vec<_> = entries.iter().filter(|entry| entry["outcome"] == "hangup").collect();
    assert_eq!((left.len(), entries.len()), (LEAVES.len() * SAMPLES, 5 * LEAVES.len() * SAMPLES));
    assert!(left.iter().all(|entry| entry["attempts"] == 2 && entry["backend"] == "local/two"), "{left:#?}");
}

/// Half a request is no request: nothing is sent upstream, nothing is journalled as answered.
#[tokio::test]
async fn before_the_body_is_whole() {
    let upstream = Upstream::always(vec![Step::Request, Step::Hold]).await;
    let gateway = narrow(&cloud("far", &upstream.base())).start().await;
    let whole = rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", true));
    for how in LEAVES {
        for cut in [whole.len() / 4, whole.len() - 20, whole.len() - 1] {
            let mut client = Rude::connect(gateway.data).await;
            client.send(&whole[..cut]).await;
            let stays = client.leave(how).await;
            let end = Instant::now() + Duration::from_secs(2);
            while gateway.ask(&rude::request("GET", "/v1/models", b"")).await.status != 200 {
                assert!(Instant::now() < end, "the permit never came back");
            }
            drop(stays);
        }
    }
    assert_eq!(upstream.connections(), 0);
    gateway.finish().await;
}

/// A client that leaves during its TLS handshake with the gateway leaves nothing behind.
#[tokio::test]
async fn during_the_tls_handshake_with_the_client() {
    let upstream = Upstream::always(once(json_response(200, &[], &completion()))).await;
    let plan = narrow(&cloud("far", &upstream.base()));
    let authority = plan.authority();
    authority.write_leaf("server", &["127.0.0.1"]);
    let plan =
        plan.set("server.tls.cert", "server.pem").set("server.tls.key", "server.key").set("limits.connections", "2");
    let gateway = plan.start().await;
    // A client hello's first bytes, then nothing: each of them held one of two connections.
    for how in LEAVES {
        for _ in 0..4 {
            let mut client = Rude::connect(gateway.data).await;
            client.send(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await;
            drop(client.leave(how).await);
        }
    }
    let mut stream = authority.connect(gateway.data, "127.0.0.1").await;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(&rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", false))).await.unwrap();
    let mut piece = [0; 64];
    let count = tokio::time::timeout(crate::support::PATIENCE, stream.read(&mut piece)).await.unwrap().unwrap();
    assert!(piece[..count].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&piece[..count]));
    drop(stream);
    assert_eq!(gateway.finish().await.len(), 1);
}
