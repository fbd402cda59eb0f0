//! What the operator asks: `/metrics`, `/healthz`, `/readyz`, and pages of facts under `/admin/`, by GET and HEAD; and the few
//! things that he may do by POST, on a loopback listener only: there are no keys here.
//!
//! Served by the same edge on a second listener, and on the data plane for the two health paths. It shows counts,
//! names and states; never keys, prompts, answers or an upstream's words, because nothing here has them.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::answer::{fault_response, json};
use crate::fault::{Fault, Kind};
use crate::gate::{Conn, check_local};

/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Makes a page of facts when it is asked for.
pub type Page = Box<dyn Fn() -> Value + Send + Sync>;

/// What the admin listener shows.
pub struct Admin {
    /// Renders the metrics.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether requests are wanted, and what else an operator should know.
    pub ready: Box<dyn Fn() -> Readiness + Send + Sync>,
    /// By path, for example `/admin/backends`.
    pub pages: BTreeMap<&'static str, Page>,
    /// What may be done, by path; the answer tells what came of it.
    pub actions: BTreeMap<&'static str, Page>,
    /// The listener is on loopback: foreign Host and Origin are refused.
    pub loopback: bool,
}

/// The state behind `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why requests are not wanted; empty is ready.
    pub reasons: Vec<String>,
    /// Backends that could answer.
    pub backends_on: usize,
    /// Requests in flight.
    pub in_flight: usize,
    /// Journal entries that were dropped.
    pub journal_dropped: u64,
}

impl Readiness {
    /// The answer to `/readyz`: 200, or 503 with the reasons.
    pub fn response(&self) -> Response<Full<Bytes>> {
        let ready = self.reasons.is_empty();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let facts = json!({
            "ready": ready,
            "reasons": self.reasons,
            "backends_on": self.backends_on,
            "in_flight": self.in_flight,
            "journal": { "dropped": self.journal_dropped },
        });
        json(status, &facts)
    }
}

/// The answer to `/healthz`: the program runs.
pub fn health() -> Response<Full<Bytes>> {
    json(StatusCode::OK, &json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// The admin listener's handler, for [`super::serve`].
pub fn handler(admin: Arc<Admin>) -> impl super::Handler {
    move |request: Request<Incoming>, _conn: Conn| {
        let response = admin.answer(&request.into_parts().0);
        ready(response.map(|body| body.map_err(|never| match never {})))
    }
}

impl Admin {
    fn answer(&self, head: &Parts) -> Response<Full<Bytes>> {
        if self.loopback
            && let Err(fault) = check_local(&head.uri, &head.headers)
        {
            return fault_response(&fault);
        }
        let path = head.uri.path();
        if let Some(action) = self.actions.get(path) {
            return self.act(action, &head.method);
        }
        let known = matches!(path, "/metrics" | "/healthz" | "/readyz") || self.pages.contains_key(path);
        if !known {
            return fault_response(&Fault::new(Kind::NotFound, "no such page"));
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            return method("GET or HEAD only", HeaderValue::from_static("GET, HEAD"));
        }
        match path {
            "/metrics" => {
                let mut response = Response::new(Full::new(Bytes::from((self.metrics)())));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(METRICS_TYPE));
                response
            }
            "/healthz" => health(),
            "/readyz" => (self.ready)().response(),
            _ => match self.pages.get(path) {
                Some(page) => json(StatusCode::OK, &page()),
                None => fault_response(&Fault::new(Kind::NotFound, "no such page")),
            },
        }
    }

    fn act(&self, action: &Page, asked: &Method) -> Response<Full<Bytes>> {
        if asked != Method::POST {
            return method("POST only", HeaderValue::from_static("POST"));
        }
        if !self.loopback {
            return fault_response(&Fault::new(Kind::NotFound, "only a loopback admin listener acts"));
        }
        json(StatusCode::OK, &action())
    }
}

fn method(why: &'static str, allowed: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = fault_response(&Fault::new(Kind::Method, why));
    response.headers_mut().insert(ALLOW, allowed);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(reasons: Vec<String>) -> Admin {
        let readiness = Readiness { reasons, backends_on: 1, in_flight: 2, journal_dropped: 3 };
        let backends: Page = Box::new(|| json!({ "backends": [] }));
        Admin {
            metrics: Box::new(|| "wattroute_requests_total 1\n".to_owned()),
            ready: Box::new(move || readiness.clone()),
            pages: BTreeMap::from([("/admin/backends", backends)]),
            actions: BTreeMap::from([("/admin/act", Box::new(|| json!({ "done": 1 })) as Page)]),
            loopback: true,
        }
    }

    async fn check(admin: &Admin, method: &str, path: &str, host: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).header("host", host).body(()).unwrap();
        let response = admin.answer(&request.into_parts().0);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn pages_are_shown_and_others_are_not() {
        let admin = admin(Vec::new());
        assert_eq!(check(&admin, "GET", "/metrics", "localhost").await.1, "wattroute_requests_total 1\n");
        assert_eq!(check(&admin, "GET", "/healthz", "localhost").await.0, 200);
        assert_eq!(check(&admin, "HEAD", "/readyz", "localhost").await.0, 200);
        assert_eq!(check(&admin, "GET", "/admin/backends", "localhost").await, (200, r#"{"backends":[]}"#.to_owned()));
        assert_eq!(check(&admin, "GET", "/admin/keys", "localhost").await.0, 404);
        assert_eq!(check(&admin, "POST", "/metrics", "localhost").await.0, 405);
        assert_eq!(check(&admin, "DELETE", "/admin/backends", "localhost").await.0, 405);
        assert_eq!(check(&admin, "GET", "/metrics", "evil.example").await.0, 403);
        assert_eq!(check(&admin, "POST", "/admin/act", "localhost").await, (200, r#"{"done":1}"#.to_owned()));
        assert_eq!(check(&admin, "GET", "/admin/act", "localhost").await.0, 405);
        assert_eq!(check(&admin, "POST", "/admin/act", "evil.example").await.0, 403);
        let open = Admin { loopback: false, ..admin };
        assert_eq!(check(&open, "POST", "/admin/act", "gateway.example").await.0, 404);
    }

    #[tokio::test]
    async fn what_is_not_ready_says_why() {
        let (status, body) = check(&admin(vec!["draining".to_owned()]), "GET", "/readyz", "localhost").await;
        let facts: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &facts["ready"], &facts["reasons"][0]), (503, &json!(false), &json!("draining")));
        assert_eq!((&facts["journal"]["dropped"], &facts["in_flight"]), (&json!(3), &json!(2)));
    }
}
