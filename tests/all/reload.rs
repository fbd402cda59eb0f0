//! What a change of the configuration does to what is at work.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::answers::{completion, json_response, well};
use crate::support::gateway::{Plan, cloud};
use crate::support::upstream::{Step, Upstream};
use crate::support::{canary, rude};

#[tokio::test]
async fn an_answer_begun_before_a_reload_is_not_found_after_it() {
    let slow = vec![
        Step::Request,
        Step::Gap(Duration::from_millis(400)),
        Step::Send(json_response(200, &[], &completion())),
        Step::Again,
    ];
    let far = Upstream::always(slow).await;
    let plan = Plan::new(&(cloud("far", &far.base()) + "[cache]\nenabled = true\n"));
    let (again, gateway) = (plan.config(), plan.start().await);
    let body = json!({
        "model": "cloud/far", "messages": [{ "role": "user", "content": canary::PROMPT }], "temperature": 0,
    });
    let mut early = Box::pin(gateway.post(&body));
    tokio::select! {
        reply = &mut early => panic!("answered too early: {reply:?}"),
        () = far.await_requests(1) => {}
    }
    gateway.app().reload(again).unwrap();
    assert_eq!(early.await.status, 200);
    for requests in [2, 2] {
        assert_eq!(gateway.post(&body).await.status, 200);
        assert_eq!(far.requests().len(), requests, "the new configuration asks once for itself");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_a_bad_one_changes_nothing() {
    let far = Upstream::always(well()).await;
    let plan = Plan::new(&cloud("far", &far.base()));
    let authority = plan.authority();
    authority.write_leaf("server", &["127.0.0.1"]);
    let plan = plan.set("server.tls.cert", "server.pem").set("server.tls.key", "server.key");
    let (again, third) = (plan.config(), plan.config());
    for name in ["server.pem", "server.key"] {
        assert!(again.read.iter().any(|file| file.ends_with(name)), "a change of {name} is noticed: {:?}", again.read);
    }
    let gateway = plan.start().await;
    let shown = async || {
        let stream = authority.connect(gateway.data, "127.0.0.1").await;
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let mut old = authority.connect(gateway.data, "127.0.0.1").await;
    let first = shown().await;
    authority.write_leaf("server", &["127.0.0.1"]);
    assert_eq!(shown().await, first, "nobody has looked at the files yet");
    assert!(gateway.app().reload(again).unwrap().is_empty(), "no restart is needed");
    let second = shown().await;
    assert!(second != first, "new connections see the new certificate");
    std::fs::write(gateway.folder.path().join("server.pem"), "no certificate").unwrap();
    gateway.app().reload(third).unwrap();
    assert_eq!(shown().await, second, "a bad file keeps the old certificate");
    // A connection at work is left alone.
    old.write_all(&rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", false))).await.unwrap();
    let mut head = [0; 12];
    old.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    drop(old);
    assert_eq!(gateway.finish().await.len(), 1);
}
