//! From a parsed request to the handler and back: HTTP/2's share of the strict rules, and panics kept to their caller.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{EXPECT, HOST};
use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;

use super::answer::Answer;
use super::connection::Terms;
use super::head::{Refusal, bad, is_host};
use super::watch::Watch;
use crate::config::checked::Limits;
use crate::fault::{Fault, Kind};
use crate::gate::Conn;

/// What the edge hands requests to: any `Fn(Request<Incoming>, Conn) -> Future<Output = Response<B>>`. Each worker
/// has one. An `Err` from its body breaks the answer off.
pub trait Handler: Send + Sync + 'static {
    /// The response body.
    type Body: Body<Data = Bytes, Error = Fault> + Send + 'static;

    /// Answers one request. Dropped when the client hangs up.
    fn handle(
        &self,
        request: Request<Incoming>,
        conn: Conn,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;
}

impl<H, F, B> Handler for H
where
    H: Fn(Request<Incoming>, Conn) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error = Fault> + Send + 'static,
{
    type Body = B;

    fn handle(&self, request: Request<Incoming>, conn: Conn) -> impl Future<Output = Response<B>> + Send + 'static {
        self(request, conn)
    }
}

/// Answers one HTTP/1 request, whose head the guard has judged.
pub fn answer_h1<H: Handler>(
    handler: Arc<H>,
    request: Request<Incoming>,
    conn: Conn,
    watch: &Arc<Watch>,
) -> impl Future<Output = Result<Response<Answer<H::Body>>, Infallible>> + Send + use<H> {
    let answering = watch.answering();
    let answer = guarded(handler, request, conn);
    async move {
        Ok(match answer.await {
            Ok(response) => Answer::handler(response, answering, None),
            Err(fault) => Answer::edge(&fault, answering, None),
        })
    }
}

/// Answers one HTTP/2 request, or refuses it.
pub async fn answer_h2<H: Handler>(
    handler: Arc<H>,
    request: Request<Incoming>,
    conn: Conn,
    watch: Arc<Watch>,
    terms: Terms,
) -> Result<Response<Answer<H::Body>>, Infallible> {
    watch.asked();
    let (answering, owed) = (watch.answering(), Some(watch.stream()));
    if let Err(refusal) = check_h2(&request, &terms.limits) {
        let fault = refusal.fault();
        (terms.refused)(fault.code());
        return Ok(Answer::edge(&fault, answering, owed));
    }
    Ok(match guarded(handler, request, conn).await {
        Ok(response) => Answer::handler(response, answering, owed),
        Err(fault) => Answer::edge(&fault, answering, owed),
    })
}

/// A panic of one request harms no other; its caller is told that it was our fault. Boxed before anything else, because
/// whoever is given a future moves it, hyper several times, and everything that one request will hold is kilobytes.
fn guarded<H: Handler>(
    handler: Arc<H>,
    request: Request<Incoming>,
    conn: Conn,
) -> impl Future<Output = Result<Response<H::Body>, Fault>> + Send + use<H> {
    let answer = Box::pin(async move { handler.handle(request, conn).await });
    AssertUnwindSafe(answer).catch_unwind().map(|answered| {
        answered.map_err(|_| {
            tracing::error!("a panic while a request was handled");
            Fault::new(Kind::Internal, "internal error")
        })
    })
}

/// What HTTP/2 leaves open: h2 itself refuses connection headers, malformed pseudo-headers and wrong lengths.
fn check_h2<B>(request: &Request<B>, limits: &Limits) -> Result<(), Refusal> {
    let headers = request.headers();
    if headers.len() > limits.header_fields {
        return Err(Refusal { kind: Kind::HeadTooLarge, message: "too many header fields" });
    }
    if request.method() == Method::CONNECT {
        return Err(bad("CONNECT is not supported: this is not a proxy"));
    }
    if !request.uri().path().starts_with('/') && request.method() != Method::OPTIONS {
        return Err(bad("the request target must be a path"));
    }
    if headers.get(EXPECT).is_some_and(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(bad("Expect: only 100-continue is understood"));
    }
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = headers.get_all(HOST).iter().map(|host| host.as_bytes());
    let host = hosts.next();
    match (authority, host) {
        _ if hosts.next().is_some() => Err(bad("more than one Host")),
        (None, None) => Err(bad("Host is missing")),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(bad("the request's authority contradicts Host"))
        }
        (Some(name), _) | (None, Some(name)) if !is_host(name) => Err(bad("Host is not well formed")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::tests::limits;

    fn check(uri: &str, fields: &[(&str, &str)]) -> Result<(), &'static str> {
        let request = fields.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
        check_h2(&request.body(()).unwrap(), &limits()).map_err(|refusal| refusal.message)
    }

    #[test]
    fn http2_requests_name_one_host() {
        assert_eq!(check("https://a.example/v1/models", &[]), Ok(()));
        assert_eq!(check("https://a.example/v1/models", &[("host", "A.example")]), Ok(()));
        assert_eq!(check("/v1/models", &[("host", "a.example")]), Ok(()));
        assert!(check("/v1/models", &[]).is_err());
        assert!(check("https://a.example/", &[("host", "b.example")]).is_err());
        assert!(check("https://a.example/", &[("host", "a.example"), ("host", "a.example")]).is_err());
        assert!(check("https://user@a.example/", &[]).is_err());
        assert!(check("/", &[("host", "a.example, b.example")]).is_err());
        assert!(check("https://a.example/", &[("expect", "200-ok")]).is_err());
    }

    #[test]
    fn http2_requests_have_a_bounded_number_of_fields() {
        let names: Vec<String> = (0..=limits().header_fields).map(|n| format!("x-{n}")).collect();
        let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
        assert!(check("https://a.example/", &fields).is_err());
        assert_eq!(check("https://a.example/", &fields[1..]), Ok(()));
    }
}
