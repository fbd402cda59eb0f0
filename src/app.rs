//! TEMP STUB.
use std::sync::Arc;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use crate::{api, config::{Config, checked::Kind as BK}, edge::{self, Drain, Settings, Serving}, fault::{Fault, Kind}, gate::{Conn, Gate}, journal::{Journal, Record}};
pub struct Running { pub data: std::net::SocketAddr, pub admin: std::net::SocketAddr, drain: Drain, s: Vec<Serving>, j: Journal }
pub struct App;
type B = BoxBody<Bytes, Fault>;
struct S { gate: Gate, config: Config, client: hyper_util::client::legacy::Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>, j: Journal }
struct E(Record, Journal);
impl Drop for E { fn drop(&mut self) { self.1.offer(std::mem::take(&mut self.0)); } }
async fn handle(s: Arc<S>, req: Request<Incoming>, conn: Conn) -> Response<B> {
    match go(&s, req, conn).await { Ok(r) => r, Err(f) => edge::fault_response(&f).map(|b| b.map_err(|e| match e {}).boxed()) }
}
async fn go(s: &S, req: Request<Incoming>, conn: Conn) -> Result<Response<B>, Fault> {
    let (p, body) = req.into_parts();
    let full = |r: Response<Full<Bytes>>| r.map(|b| b.map_err(|e| match e {}).boxed());
    let _seat = s.gate.admit(&p, &conn)?;
    if p.uri.path() == "/v1/models" && p.method == "GET" { return Ok(full(Response::new(Full::new(api::models::list(&s.config, 1))))); }
    if p.uri.path() != "/v1/chat/completions" { return Err(Fault::new(Kind::NotFound, "x")); }
    if p.method != "POST" { return Err(Fault::new(Kind::Method, "x")); }
    let _e = E(Record { endpoint: "chat", id: uuid::Uuid::now_v7().to_string(), ..Record::default() }, s.j.clone());
    let body = edge::body::read(body, &p.headers, &s.config.limits).await?;
    let q = api::read::read_query(api::query::Endpoint::Chat, body, &p.headers)?;
    let b = s.config.backends.iter().find(|b| *b.name == *q.model).ok_or_else(|| Fault::new(Kind::ModelNotFound, "x"))?;
    let BK::OpenAi(e) = &b.kind else { return Err(Fault::new(Kind::Internal, "x")) };
    let out = api::rewrite::rewrite(&q, &e.model, false);
    let r = Request::post(format!("{}/chat/completions", e.base)).header("content-type", "application/json").header("authorization", "Bearer sk-canary-cloud-93be17aa60cf4d52").body(Full::new(out)).map_err(|_| Fault::new(Kind::Internal, "x"))?;
    let a = s.client.request(r).await.map_err(|_| Fault::new(Kind::UpstreamProtocol, "bad"))?;
    let (h, b) = a.into_parts();
    let b = b.collect().await.map_err(|_| Fault::new(Kind::UpstreamCut, "cut"))?.to_bytes();
    let mut r = Response::new(Full::new(b)); *r.status_mut() = h.status;
    Ok(full(r))
}
impl App {
    pub async fn start(config: Config) -> Result<Running, String> {
        crate::meter::install();
        let tls = config.server.tls.as_ref().map(edge::tls::acceptor).transpose().map_err(|e| e.to_string())?;
        let data = edge::bind(config.server.listen, config.server.workers).map_err(|e| e.to_string())?;
        let admin = edge::bind(config.server.admin, 1).map_err(|e| e.to_string())?;
        let gate = Gate::new(&config).map_err(|e| e.to_string())?;
        let (limits, grace) = (config.limits.clone(), config.server.grace);
        let j = Journal::open(&config.journal);
        let s = Arc::new(S { gate, client: hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http(), j: j.clone(), config });
        let drain = Drain::new();
        let j2 = j.clone();
        let adm = edge::serve(admin, Settings { limits: limits.clone(), tls: None, grace }, &drain, move |_| { let j = j2.clone(); move |_r: Request<Incoming>, _c: Conn| { let t = crate::meter::render(&j.health()); async move { Response::new(Full::new(Bytes::from(t)).map_err(|e| -> Fault { match e {} }).boxed()) } } }).map_err(|e| e.to_string())?;
        let ser = edge::serve(data, Settings { limits, tls, grace }, &drain, move |_| { let s = s.clone(); move |r: Request<Incoming>, c: Conn| { let s = s.clone(); async move { handle(s, r, c).await } } }).map_err(|e| e.to_string())?;
        Ok(Running { data: ser.addr(), admin: adm.addr(), drain, s: vec![ser, adm], j })
    }
}
impl Running { pub async fn shutdown(self) { self.drain.leave(); self.drain.begin(); for s in self.s { s.ended().await; } self.j.flush().await; } }
