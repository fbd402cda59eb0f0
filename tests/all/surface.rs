//! What a client sees: paths, headers, errors, keys, the decision.

use serde_json::json;
use wattroute::journal::stats::{Filter, stats};

use crate::support::answers::well;
use crate::support::canary;
use crate::support::gateway::{Gateway, Plan, cloud, journal, local};
use crate::support::rude::{self, Rude};
use crate::support::upstream::Upstream;

pub async fn both() -> (Upstream, Upstream, Gateway) {
    let (near, far) = (Upstream::always(well()).await, Upstream::always(well()).await);
    let gateway = Plan::new(&(local("near", &near.base()) + &cloud("far", &far.base()))).start().await;
    (near, far, gateway)
}

#[tokio::test]
async fn every_answer_says_what_was_decided_and_the_journal_says_the_same() {
    let (_near, _far, gateway) = both().await;
    for (model, place, backend) in [("local/near", "local", "local/near"), ("cloud/far", "cloud", "cloud/far")] {
        let reply = gateway.chat(model, false).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("x-wattroute-place"), Some(place));
        assert_eq!(reply.header("x-wattroute-backend"), Some(backend));
        for name in ["domain", "reason", "policy", "joules", "saved-joules", "decision-id", "overhead-us"] {
            let value = reply.header(&format!("x-wattroute-{name}")).unwrap_or_else(|| panic!("no {name}: {reply:?}"));
            assert!(!value.is_empty(), "{name}");
        }
    }
    let auto = gateway.chat("auto", false).await;
    assert!(auto.header("x-wattroute-place").is_some(), "{auto:?}");
    let ids: Vec<_> = [&auto].iter().map(|reply| reply.header("x-wattroute-decision-id").unwrap().to_owned()).collect();
    let entries = gateway.finish().await;
    assert_eq!(entries.len(), 3);
    let last = &entries[2];
    assert_eq!(last["decision_id"], ids[0]);
    assert_eq!(last["backend"], auto.header("x-wattroute-backend").unwrap());
    for field in
        ["policy_hash", "posterior", "alternatives", "propensity", "domain", "overhead_us", "total_ms", "ttft_ms"]
    {
        assert!(!last[field].is_null(), "{field}: {last}");
    }
    assert_eq!((&last["tenant"], &last["outcome"]), (&json!("tests"), &json!("ok")));
}

#[tokio::test]
async fn a_decent_request_id_is_echoed_and_any_other_replaced() {
    let (_near, _far, gateway) = both().await;
    let body = rude::chat("cloud/far", false);
    let ask = async |id: &str| {
        gateway.ask(&rude::request_with("POST", "/v1/chat/completions", &[("x-request-id", id)], &body)).await
    };
    assert_eq!(ask("abc-123").await.header("x-request-id"), Some("abc-123"));
    for bad in ["", "a b", &"x".repeat(129)] {
        let reply = ask(bad).await;
        let id = reply.header("x-request-id").unwrap();
        assert!(id.len() == 36 && id != bad, "{id}");
    }
    // Refusals have one too.
    let reply = gateway.ask(&rude::request("GET", "/nowhere", b"")).await;
    assert_eq!(reply.header("x-request-id").unwrap().len(), 36);
    gateway.finish().await;
}

#[tokio::test]
async fn models_lists_every_name_with_owner_and_place() {
    let near = Upstream::always(well()).await;
    let text = local("near", &near.base()) + &cloud("far", &near.base()) + "[aliases]\ngpt-4o = \"auto\"\n";
    let gateway = Plan::new(&text).start().await;
    let list = gateway.ask(&rude::request("GET", "/v1/models", b"")).await.json();
    assert_eq!(list["object"], "list");
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    for id in ["auto", "auto:green", "auto:fast", "auto:quality", "auto:private", "local/near", "cloud/far", "gpt-4o"] {
        assert!(ids.contains(&id), "{id} not in {ids:?}");
    }
    for model in list["data"].as_array().unwrap() {
        assert!(model["object"] == "model" && model["created"].is_u64() && model["owned_by"].is_string(), "{model}");
    }
    let one = gateway.ask(&rude::request("GET", "/v1/models/auto", b"")).await;
    assert_eq!((one.status, one.json()["id"].as_str()), (200, Some("auto")), "{one:?}");
    gateway.finish().await;
}

#[tokio::test]
async fn route_ranks_every_backend_and_asks_none() {
    let (near, far, gateway) = both().await;
    let reply = gateway.ask(&rude::request("POST", "/v1/route", &rude::chat("auto", false))).await;
    let decision = reply.json();
    assert_eq!(reply.status, 200, "{decision}");
    let mut ranked: Vec<_> =
        decision["decision"]["ranked"].as_array().unwrap().iter().filter_map(|r| r.as_str()).collect();
    assert_eq!(decision["decision"]["backend"], ranked[0]);
    ranked.sort_unstable();
    assert_eq!(ranked, ["cloud/far", "local/near"]);
    let text = decision.to_string();
    for word in ["local/near", "cloud/far", "p_correct", "joules", "reason", "eligible", "domain"] {
        assert!(text.contains(word), "{word} not in {text}");
    }
    assert_eq!((near.connections(), far.connections()), (0, 0));
    gateway.finish().await;
}

#[tokio::test]
async fn without_a_cloud_key_auto_answers_locally_and_says_so() {
    let near = Upstream::always(well()).await;
    let keyless = "\n[backends.far]\nplace = \"cloud\"\nbase_url = \"https://api.openai.com/v1\"\nmodel = \"gpt-4o-mini\"\nkey_env = \"ABSENT_KEY\"\n";
    let gateway = Plan::new(&(local("near", &near.base()) + keyless)).start().await;
    for model in ["auto", "auto:quality", "auto:fast"] {
        let reply = gateway.chat(model, false).await;
        assert_eq!((reply.status, reply.header("x-wattroute-place")), (200, Some("local")), "{model}: {reply:?}");
    }
    let reply = gateway.chat("auto:quality", false).await;
    let reason = reply.header("x-wattroute-reason").unwrap();
    assert!(reason.contains("ABSENT_KEY") || reason.contains("not configured"), "{reason}");
    let reply = gateway.chat("cloud/far", false).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.text().contains("ABSENT_KEY"), "{reply:?}");
    gateway.finish().await;
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_told_apart() {
    let (_near, far, gateway) = both().await;
    for (method, path, status) in [
        ("GET", "/", 404),
        ("POST", "/v1/nothing", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("POST", "/V1/chat/completions", 404),
        ("GET", "/metrics", 404),
        ("GET", "/admin", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("PUT", "/v1/completions", 405),
        ("GET", "/v1/route", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
    ] {
        let reply = gateway.ask(&rude::request(method, path, b"")).await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        reply.code();
        assert_eq!(reply.header("access-control-allow-origin"), None);
        if status == 405 {
            assert!(reply.header("allow").is_some(), "{method} {path}");
        }
    }
    assert_eq!(far.connections(), 0);
    gateway.finish().await;
}

#[tokio::test]
async fn keys_are_checked_before_the_body_is_read() {
    let (_near, far, gateway) = both().await;
    let good =
        String::from_utf8(rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", false))).unwrap();
    let with = |key: &str| good.replace(&format!("authorization: Bearer {}\r\n", canary::CLIENT_KEY), key);
    let long = format!("authorization: Bearer {}\r\n", "k".repeat(8000));
    let near_miss = format!("authorization: Bearer {}x\r\n", canary::CLIENT_KEY);
    let lines = [
        "",
        "authorization: Bearer \r\n",
        "authorization: Bearer wrong\r\n",
        "authorization: Basic d3I6d3I=\r\n",
        "authorization: Bearer é\r\n",
        &near_miss,
        &long,
        "x-api-key: wrong\r\n",
    ];
    for line in lines {
        let reply = gateway.ask(with(line).as_bytes()).await;
        assert_eq!((reply.status, reply.code().as_str()), (401, "invalid_api_key"), "{line}: {reply:?}");
    }
    let twice = with(&format!("authorization: Bearer {0}\r\nauthorization: Bearer {0}\r\n", canary::CLIENT_KEY));
    assert!(gateway.ask(twice.as_bytes()).await.status >= 400);
    // A refusal does not wait for a body that never comes.
    let mut client = Rude::connect(gateway.data).await;
    client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5000000\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 401);
    for path in ["/v1/models", "/v1/route"] {
        let reply = gateway.ask(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").as_bytes()).await;
        assert!(reply.status == 401 || path == "/v1/route" && reply.status == 405, "{path}: {reply:?}");
    }
    assert_eq!(far.connections(), 0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_page_in_a_browser_cannot_use_an_open_loopback_listener() {
    let far = Upstream::always(well()).await;
    let plan = Plan::new(&local("near", &far.base())).keyless();
    let gateway = plan.start().await;
    let good =
        String::from_utf8(rude::request("POST", "/v1/chat/completions", &rude::chat("local/near", false))).unwrap();
    assert_eq!(gateway.ask(good.as_bytes()).await.status, 200);
    let rebound = good.replacen("host: 127.0.0.1", "host: evil.example", 1);
    let foreign = good.replacen("host: 127.0.0.1", "host: 127.0.0.1\r\norigin: https://evil.example", 1);
    for request in [rebound, foreign] {
        let reply = gateway.ask(request.as_bytes()).await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "forbidden"), "{reply:?}");
    }
    for host in ["localhost", "127.0.0.1:8080", "[::1]:80", "LOCALHOST"] {
        let reply = gateway.ask(good.replacen("host: 127.0.0.1", &format!("host: {host}"), 1).as_bytes()).await;
        assert_eq!(reply.status, 200, "{host}: {reply:?}");
    }
    assert_eq!(far.requests().len(), 5);
    gateway.finish().await;
}

#[tokio::test]
async fn completions_pass_like_chats() {
    let far = Upstream::always(well()).await;
    let gateway = Gateway::before(&far.base()).await;
    let body = json!({ "model": "cloud/far", "prompt": canary::PROMPT, "suffix": "x" });
    let reply = gateway.ask(&rude::request("POST", "/v1/completions", body.to_string().as_bytes())).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(far.requests()[0].line, "POST /v1/completions HTTP/1.1");
    assert_eq!(far.requests()[0].json()["suffix"], "x");
    let entry = gateway.finish().await.remove(0);
    assert_eq!(entry["endpoint"], "completions");
}

#[tokio::test]
async fn health_and_metrics_live_on_the_second_listener() {
    let (_near, _far, gateway) = both().await;
    gateway.chat("cloud/far", false).await;
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/v1/chat/completions", 404)] {
        let mut client = Rude::connect(gateway.admin).await;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").as_bytes()).await;
        assert_eq!(client.reply().await.status, status, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        let reply = gateway.ask(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").as_bytes()).await;
        assert_eq!(reply.status, 200, "{path}: load balancers look here too");
    }
    let metrics = gateway.metrics().await;
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("wattroute_requests_total{endpoint=\"chat\",outcome=\"ok\",place=\"cloud\"}")),
        "{metrics}"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn the_cache_answers_twice_and_keeps_tenants_apart() {
    let far = Upstream::always(well()).await;
    let gateway = Plan::new(&(cloud("far", &far.base()) + "[cache]\nenabled = true\n")).start().await;
    let ask = async |key: &str, temperature: f64, seed: u64| {
        let body = json!({
            "model": "cloud/far", "messages": [{ "role": "user", "content": canary::PROMPT }], "temperature": temperature, "seed": seed,
        });
        let request = rude::request("POST", "/v1/chat/completions", body.to_string().as_bytes());
        let request = String::from_utf8(request).unwrap().replace(canary::CLIENT_KEY, key);
        gateway.ask(request.as_bytes()).await
    };
    let first = ask(canary::CLIENT_KEY, 0.0, 1).await;
    let second = ask(canary::CLIENT_KEY, 0.0, 1).await;
    assert_eq!((first.status, &first.body), (200, &second.body));
    assert_eq!(far.requests().len(), 1, "the second was asked again");
    ask(canary::CLIENT_KEY, 0.0, 2).await;
    assert_eq!(far.requests().len(), 2, "another seed is another question");
    ask(canary::OTHER_KEY, 0.0, 1).await;
    assert_eq!(far.requests().len(), 3, "another tenant got the first one's answer");
    let entries = gateway.finish().await;
    assert_eq!(entries.iter().filter(|entry| entry["outcome"] == "cached").count(), 1);
    assert_eq!(entries.len(), 4);
}

#[tokio::test]
async fn a_repeated_answer_uses_nothing_and_saves_what_it_took_at_the_time() {
    let far = Upstream::always(well()).await;
    let text = cloud("far", &far.base())
        + "[backends.far.energy]\nactive = [8, 28]\ntotal = [8, 28]\n[cache]\nenabled = true\n";
    let gateway = Plan::new(&text).start().await;
    let body = json!({
        "model": "cloud/far", "messages": [{ "role": "user", "content": canary::PROMPT }], "temperature": 0,
    });
    gateway.post(&body).await;
    let reply = gateway.post(&body).await;
    assert_eq!(reply.header("x-wattroute-cache"), Some("hit"), "{reply:?}");
    assert!(reply.header("x-wattroute-joules").unwrap().starts_with("0.000;"), "{reply:?}");
    let folder = gateway.end().await;
    let file = folder.path().join("journal.db");
    let entries = journal(&file).await;
    let [first, second] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(second["outcome"], "cached");
    assert!(first["joules_mid"].as_f64().unwrap() > 0.0, "{first}");
    for end in ["low", "mid", "high"] {
        assert_eq!(second[format!("joules_{end}")], 0.0, "{second}");
        assert_eq!(second[format!("saved_{end}")], first[format!("joules_{end}")], "{second}");
    }
    assert_eq!((&second["joules_basis"], &second["domain"]), (&first["joules_basis"], &first["domain"]));
    let sums = stats(&file, &Filter::default()).await.unwrap();
    assert_eq!(sums.joules.mid, first["joules_mid"].as_f64());
    // The baseline itself answered the first: what classifying took is lost there, less than a millijoule.
    let lost = sums.joules.mid.unwrap() - sums.saved.mid.unwrap();
    assert!(lost > 0.0 && lost < 1e-3, "{lost}");
}

#[tokio::test]
async fn what_is_refused_before_it_is_a_query_is_counted_without_an_entry() {
    let (_near, _far, gateway) = both().await;
    gateway.chat("cloud/far", false).await;
    let two_hosts = b"GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n";
    assert_eq!(gateway.ask(two_hosts).await.status, 400);
    assert_eq!(gateway.ask(&rude::request("GET", "/nowhere", b"")).await.status, 404);
    assert_eq!(gateway.ask(&rude::request("GET", "/v1/chat/completions", b"")).await.status, 405);
    assert_eq!(gateway.ask(&rude::request("GET", "/nowhere", b"")).await.status, 404);
    let folder = gateway.end().await;
    let file = folder.path().join("journal.db");
    assert_eq!(journal(&file).await.len(), 1);
    let sums = stats(&file, &Filter::default()).await.unwrap();
    let mut counts: Vec<u64> = sums.refused_early.values().copied().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 1, 2], "{:?}", sums.refused_early);
    let one = stats(&file, &Filter { tenant: Some("tests".to_owned()), ..Filter::default() }).await.unwrap();
    assert!(one.entries == 1 && one.refused_early.is_empty(), "{one:?}");
}

/// `/v1/route` takes the body of either endpoint.
#[tokio::test]
async fn a_decision_can_be_asked_for_with_either_body() {
    let upstream = Upstream::always(well()).await;
    let gateway = Gateway::before(&upstream.base()).await;
    for body in [
        json!({ "model": "cloud/far", "prompt": "x" }),
        json!({ "model": "cloud/far", "messages": [{ "role": "user", "content": "x" }] }),
    ] {
        let reply = gateway.ask(&rude::request("POST", "/v1/route", body.to_string().as_bytes())).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.text().contains("cloud/far"));
    }
    let reply = gateway.ask(&rude::request("POST", "/v1/route", b"{\"model\":\"cloud/far\"}")).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    assert_eq!(upstream.connections(), 0);
    let entries = gateway.finish().await;
    assert_eq!(entries.len(), 3);
}
