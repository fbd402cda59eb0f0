//! Permits, endpoints, TLS and HTTP/2.

use super::*;

#[tokio::test]
async fn without_a_permit_no_cloud_socket_is_opened() {
    let upstream = upstream(vec![response("200 OK", ANSWER)]).await;
    let base = format!("http://127.0.0.1:{}/v1", upstream.port);
    let cloud = Http::new(&backend(&base, Place::Cloud, waits())).unwrap();
    assert_eq!(cloud.ask(&query(""), None).await.err().unwrap().kind, FaultKind::Internal);
    assert!(upstream.seen.lock().unwrap().is_empty());
}

#[test]
fn endpoints_that_would_leak_are_refused_at_start() {
    for (base, place) in [
        ("http://api.example.com/v1", Place::Cloud),
        ("http://1.1.1.1/v1", Place::Local),
        ("https://user:pass@api.example.com/v1", Place::Cloud),
        ("https://api.example.com/v1?x=1", Place::Cloud),
        ("ftp://api.example.com/v1", Place::Cloud),
    ] {
        assert!(Http::new(&backend(base, place, waits())).is_err(), "{base}");
    }
}

/// An HTTP/2 upstream behind TLS whose stream begins and never ends; says when the stream is dropped.
async fn tls_upstream(
    names: Vec<String>,
) -> (u16, std::path::PathBuf, tempfile::TempDir, UnboundedReceiver<&'static str>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, ca_pem).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls::pki_types::PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], private).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = unbounded_channel();
    clock::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else { continue };
            let tell = tell.clone();
            clock::spawn(async move {
                let service = hyper::service::service_fn(move |_| {
                    let tell = tell.clone();
                    async move { Ok::<_, std::convert::Infallible>(endless(tell)) }
                });
                let executor = hyper_util::rt::TokioExecutor::new();
                let server = hyper::server::conn::http2::Builder::new(executor);
                let _ = server.serve_connection(hyper_util::rt::TokioIo::new(tls), service).await;
            });
        }
    });
    (port, ca, folder, told)
}

fn endless(
    tell: UnboundedSender<&'static str>,
) -> http::Response<http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>> {
    struct Told(UnboundedSender<&'static str>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }
    tell.send("asked").unwrap();
    let told = Told(tell);
    let first =
        futures_util::stream::iter([Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n")]);
    let never = futures_util::stream::poll_fn(move |_| {
        let _ = &told;
        std::task::Poll::Pending
    });
    let frames = futures_util::StreamExt::chain(first, never);
    let frames = futures_util::StreamExt::map(frames, |data| Ok(http_body::Frame::data(data)));
    let body = http_body_util::StreamBody::new(frames);
    http::Response::builder().header("content-type", "text/event-stream").body(BodyExt::boxed(body)).unwrap()
}

fn with_ca(base: &str, ca: Option<std::path::PathBuf>) -> Result<Http, String> {
    let mut backend = backend(base, Place::Local, waits());
    let Kind::OpenAi(endpoint) = &mut backend.kind else { unreachable!() };
    endpoint.ca = ca;
    Http::new(&backend)
}

#[tokio::test]
async fn http2_over_tls_streams_and_a_hang_up_resets_it() {
    let (port, ca, _folder, mut told) = tls_upstream(vec!["localhost".into()]).await;
    let http = with_ca(&format!("https://localhost:{port}/v1"), Some(ca)).unwrap();
    let answer = http.ask(&query(STREAM), None).await.unwrap();
    assert_eq!(told.recv().await, Some("asked"));
    drop(answer);
    let reset = tokio::time::timeout(Duration::from_millis(100), told.recv()).await;
    assert_eq!(reset.unwrap(), Some("dropped"));
}

#[tokio::test]
async fn certificates_are_checked() {
    let (port, ca, _folder, mut told) = tls_upstream(vec!["elsewhere.example".into()]).await;
    let wrong_name = with_ca(&format!("https://localhost:{port}/v1"), Some(ca)).unwrap();
    assert_eq!(wrong_name.ask(&query(""), None).await.err().unwrap().kind, FaultKind::Connect);
    // Machines without any root certificate refuse at start, the others at the handshake.
    let (port, _, _folder, mut told_too) = tls_upstream(vec!["localhost".into()]).await;
    if let Ok(unknown_root) = with_ca(&format!("https://localhost:{port}/v1"), None) {
        assert_eq!(unknown_root.ask(&query(""), None).await.err().unwrap().kind, FaultKind::Connect);
    }
    assert!(told.try_recv().is_err() && told_too.try_recv().is_err(), "no request was sent");
    assert!(with_ca("https://localhost/v1", Some("/nonexistent.pem".into())).is_err());
}
