//! A panic in the handling of one request: its caller is told, the journal says so once, and serving goes on.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use wattroute::api::query::Endpoint;
use wattroute::edge::{self, Drain, Settings};
use wattroute::entry::Entry;
use wattroute::fault::{Fault, Kind};
use wattroute::gate::Conn;
use wattroute::path;

use crate::support::answers::well;
use crate::support::gateway::{Gateway, Plan, cloud};
use crate::support::rude::{self, Rude};
use crate::support::upstream::Upstream;

/// The gateway's own edge, request path and journal; only the statement that panics, after the entry was begun as
/// [`path::handle`] begins it, is the test's.
fn panicking(gateway: &Gateway, drain: &Drain) -> edge::Serving {
    let app = Arc::clone(gateway.app());
    let settings =
        Settings { limits: app.limits.clone(), tls: None, grace: Duration::from_secs(2), refused: Arc::new(|_| ()) };
    let bound = edge::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let make = move |_| {
        let app = Arc::clone(&app);
        move |request: Request<Incoming>, conn: Conn| {
            let app = Arc::clone(&app);
            async move {
                if request.headers().contains_key("x-panic") {
                    let _entry = Entry::new(app.journal.clone(), Some(Endpoint::Chat), "panicked");
                    panic!("provoked by a test");
                }
                let response = path::handle(app, request, conn).await;
                response.map(|body| body.map_err(|_| Fault::new(Kind::UpstreamCut, "broke off")))
            }
        }
    };
    edge::serve(bound, settings, drain, make).unwrap()
}

#[tokio::test]
async fn a_panic_is_one_entry_and_one_500_and_the_next_request_is_served() {
    let far = Upstream::always(well()).await;
    let gateway = Plan::new(&cloud("far", &far.base())).start().await;
    let drain = Drain::new();
    let serving = panicking(&gateway, &drain);
    let body = rude::chat("cloud/far", false);
    let ask = async |headers: &[(&str, &str)]| {
        let mut client = Rude::connect(serving.addr()).await;
        client.send(&rude::request_with("POST", "/v1/chat/completions", headers, &body)).await;
        client.reply().await
    };
    let broken = ask(&[("x-panic", "1")]).await;
    assert_eq!(broken.status, 500, "{broken:?}");
    assert!(!broken.text().contains("provoked"), "{broken:?}");
    assert_eq!(ask(&[]).await.status, 200);
    drain.leave();
    drain.begin();
    serving.ended().await;
    let entries = gateway.finish().await;
    assert_eq!(entries.len(), 2, "{entries:?}");
    let panicked = entries.iter().find(|entry| entry["request_id"] == "panicked").unwrap();
    assert_eq!((&panicked["outcome"], &panicked["status"]), (&"fault".into(), &500.into()), "{panicked}");
    assert!(entries.iter().any(|entry| entry["outcome"] == "ok"), "{entries:?}");
}
