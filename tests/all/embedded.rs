//! The embedded engine with the default model: real answers, cancellation, bounds, shapes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::HeaderMap;
use serde_json::{Value, json};
use wattroute::api::query::{Endpoint, Message, Query, Sampling};
use wattroute::api::read::read_query;
use wattroute::backend::embedded::{self, Embedded};
use wattroute::backend::types::{Body, Source};
use wattroute::config::attention::Attention;
use wattroute::config::checked::Waits;
use wattroute::engine::types::{Batch, Done, EngineError, Event, Finish, Job, ModelSpec, Prompt};
use wattroute::engine::{Engine, Generation};
use wattroute::fault::{Fault, Kind};

use crate::real_model::smollm2;
use crate::support::eventually;

const SECOND: Duration = Duration::from_secs(1);

async fn engine(queue: usize) -> Arc<Engine> {
    engine_with(queue, 2048).await
}

async fn engine_with(queue: usize, context: u32) -> Arc<Engine> {
    engine_as(queue, context, None).await
}

async fn engine_as(queue: usize, context: u32, template: Option<&str>) -> Arc<Engine> {
    load(queue, context, template, Batch::default()).await
}

/// An engine that runs one job at a time.
async fn narrow(queue: usize) -> Arc<Engine> {
    load(queue, 2048, None, Batch { streams: 1, ..Batch::default() }).await
}

async fn load(queue: usize, context: u32, template: Option<&str>, batch: Batch) -> Arc<Engine> {
    let (path, template) = (smollm2().await, template.map(str::to_owned));
    let spec = ModelSpec {
        name: "smollm2".into(),
        path,
        context,
        template,
        threads: 0,
        queue,
        attention: Attention::Softmax,
        batch,
    };
    Arc::new(tokio::task::spawn_blocking(move || Engine::load(&spec)).await.unwrap().unwrap())
}

fn backend(engine: &Arc<Engine>) -> Embedded {
    let waits = Waits { connect: SECOND, first_token: SECOND * 60, gap: SECOND * 30, total: SECOND * 120 };
    Embedded::new("local/smollm2".into(), engine.clone(), waits)
}

fn query(endpoint: Endpoint, body: Value) -> Query {
    read_query(endpoint, Bytes::from(body.to_string()), &HeaderMap::new()).unwrap()
}

fn france(more: Value) -> Query {
    let mut body = json!({
        "model": "local/smollm2", "temperature": 0, "max_tokens": 24,
        "messages": [{ "role": "system", "content": "You are a helpful assistant. Answer in one sentence." },
                     { "role": "user", "content": "What is the capital of France?" }],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    query(Endpoint::Chat, body)
}

async fn whole(backend: &Embedded, query: &Query) -> Value {
    match backend.ask(query).await.unwrap().body {
        Body::Full(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Body::Stream(_) => panic!("asked for one piece"),
    }
}

async fn streamed(backend: &Embedded, query: &Query) -> Vec<String> {
    let answer = backend.ask(query).await.unwrap();
    let Body::Stream(mut body) = answer.body else { panic!("asked for a stream") };
    let mut text = String::new();
    while let Some(bytes) = body.next().await {
        text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
    }
    assert!(text.ends_with("\n\n"));
    text.trim_end().split("\n\n").map(|event| event.strip_prefix("data: ").unwrap().to_owned()).collect()
}

fn job(text: &str, max_tokens: u32) -> Job {
    let messages = vec![Message { role: "user".into(), content: text.into() }];
    let sampling = Sampling { temperature: 0.0, max_tokens: Some(max_tokens), ..Sampling::default() };
    Job { prompt: Prompt::Chat(messages), sampling, owner: None }
}

async fn text_of(mut generation: Generation) -> (String, Done) {
    let mut text = String::new();
    loop {
        match generation.next().await.unwrap().unwrap() {
            Event::Token(token) => text.push_str(&token.text),
            Event::Done(done) => {
                text.push_str(&done.tail);
                assert!(generation.next().await.is_none());
                return (text, done);
            }
        }
    }
}

#[tokio::test]
async fn the_capital_of_france_is_paris() {
    let engine = engine(4).await;
    let backend = backend(&engine);
    let answer = backend.ask(&france(json!({}))).await.unwrap();
    assert_eq!((answer.usage.source, answer.usage.finish.as_deref()), (Source::Engine, Some("stop")));
    let Body::Full(bytes) = answer.body else { panic!("one piece") };
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    let text = body["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("Paris"), "{text}");
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "local/smollm2");
    let usage = &body["usage"];
    assert_eq!(answer.usage.input.map(Value::from), Some(usage["prompt_tokens"].clone()));
    let total = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], total);
    assert_eq!(usage["completion_tokens"], body["timings"]["predicted_n"]);
    assert!(body["timings"]["predicted_ms"].as_f64().unwrap() > 0.0);

    // The same, streamed: same words, role first, usage last.
    let events =
        streamed(&backend, &france(json!({ "stream": true, "stream_options": { "include_usage": true } }))).await;
    assert_eq!(events.last().unwrap(), "[DONE]");
    let parsed: Vec<Value> = events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    assert_eq!(parsed[0]["choices"][0]["delta"]["role"], "assistant");
    let said: String =
        parsed.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect::<Vec<_>>().concat();
    assert_eq!(said, text);
    let (last, finish) = (parsed.last().unwrap(), &parsed[parsed.len() - 2]);
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"], *usage);
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert!(parsed.iter().all(|e| e["id"] == parsed[0]["id"]));
}

#[tokio::test]
async fn the_quickstart_answers_its_own_example() {
    let config = wattroute::config::builtin().unwrap();
    let template = config.backends.iter().find_map(|backend| match &backend.kind {
        wattroute::config::checked::Kind::Embedded(embedded) => embedded.template.clone(),
        wattroute::config::checked::Kind::OpenAi(_) => None,
    });
    let engine = engine_as(4, 256, template.as_deref()).await;
    let (text, _) = text_of(engine.submit(job("What is the capital of France?", 24)).unwrap()).await;
    assert!(text.contains("Paris"), "{text}");
}

#[tokio::test]
async fn log_probabilities_explain_the_answer() {
    let engine = engine(4).await;
    let backend = backend(&engine);
    let body = whole(&backend, &france(json!({ "logprobs": true, "top_logprobs": 3, "max_tokens": 6 }))).await;
    let content = body["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let said: String = content.iter().map(|t| t["token"].as_str().unwrap()).collect();
    assert_eq!(said, body["choices"][0]["message"]["content"].as_str().unwrap());
    for token in content {
        // Greedy: the chosen token is the most likely one, and nothing is likelier than certain.
        assert_eq!(token["top_logprobs"][0]["token"], token["token"]);
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3);
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
        let sum: f64 =
            token["top_logprobs"].as_array().unwrap().iter().map(|t| t["logprob"].as_f64().unwrap().exp()).sum();
        assert!(sum <= 1.0 + 1e-6);
    }
    let text = query(
        Endpoint::Completions,
        json!({ "model": "x", "prompt": "The capital of France is", "temperature": 0, "max_tokens": 4, "logprobs": 2 }),
    );
    let body = whole(&backend, &text).await;
    let choice = &body["choices"][0];
    assert_eq!(body["object"], "text_completion");
    assert!(choice["text"].as_str().unwrap().contains("Paris"), "{choice}");
    assert_eq!(choice["logprobs"]["tokens"].as_array().unwrap().len(), 4);
    assert_eq!(choice["logprobs"]["text_offset"][0], 0);
    assert_eq!(choice["finish_reason"], "length");
}

#[tokio::test]
async fn stop_strings_end_the_answer_and_are_not_in_it() {
    let engine = engine(4).await;
    let backend = backend(&engine);
    let body = whole(&backend, &france(json!({ "stop": ["Paris", "zzz"] }))).await;
    let text = body["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!text.contains("Paris") && text.contains("capital"), "{text}");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    let events = streamed(&backend, &france(json!({ "stop": "aris", "stream": true }))).await;
    let said = events.iter().filter_map(|e| serde_json::from_str::<Value>(e).ok());
    let said: Vec<String> =
        said.filter_map(|e| e["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect();
    assert!(said.concat().ends_with('P'), "{said:?}");
}

#[tokio::test]
async fn a_seed_repeats_an_answer_and_a_cached_beginning_changes_nothing() {
    let engine = engine(4).await;
    let sampling = Sampling { temperature: 0.8, seed: Some(11), max_tokens: Some(12), ..Sampling::default() };
    let story = |owner| {
        let job = job("Tell me a story about a fox and a well in the woods.", 12);
        engine.submit(Job { sampling: sampling.clone(), owner, ..job }).unwrap()
    };
    let (first, _) = text_of(story(None)).await;
    let (again, _) = text_of(story(None)).await;
    assert_eq!(first, again);
    // The same owner's second prompt is read from the cache but for its end.
    let (_, cold) = text_of(story(Some(5))).await;
    let (cached, warm) = text_of(story(Some(5))).await;
    assert_eq!(cached, first);
    assert!(cold.reused_tokens < cold.input_tokens / 2, "no more than the template's opening");
    assert!(warm.reused_tokens > warm.input_tokens / 2 && warm.reused_tokens < warm.input_tokens);
    // Another owner has no use of it.
    let (other, fresh) = text_of(story(Some(6))).await;
    assert_eq!((other, fresh.reused_tokens), (first, cold.reused_tokens));
}

#[tokio::test]
async fn hang_up_stops_decode_and_prefill_within_a_step() {
    let engine = engine(4).await;
    // While it speaks.
    let mut speaking = engine.submit(job("Count from one to a thousand.", 2000)).unwrap();
    assert!(matches!(speaking.next().await, Some(Ok(Event::Token(_)))));
    assert_eq!(engine.running(), 1);
    drop(speaking);
    let gone = Instant::now();
    eventually("decode stopped", || engine.running() == 0).await;
    assert!(gone.elapsed() < SECOND, "{:?}", gone.elapsed());
    // While it reads: a long prompt is many chunks.
    let reading = engine.submit(job(&"all work and no play ".repeat(300), 10)).unwrap();
    eventually("prefill began", || engine.running() == 1).await;
    drop(reading);
    eventually("prefill stopped", || engine.running() == 0).await;
    // The next answer is whole.
    let (text, done) = text_of(engine.submit(job("What is 2+2?", 5)).unwrap()).await;
    assert!(!text.is_empty() && done.output_tokens <= 5);
}

#[tokio::test]
async fn the_queue_is_bounded_and_leaving_it_makes_room() {
    let engine = narrow(2).await;
    let backend = backend(&engine);
    let mut speaking = engine.submit(job("Count from one to a thousand.", 2000)).unwrap();
    speaking.next().await.unwrap().unwrap();
    let first = engine.submit(job("a", 1)).unwrap();
    let _second = engine.submit(job("b", 1)).unwrap();
    assert_eq!((engine.waiting(), engine.full()), (2, true));
    assert!(matches!(engine.submit(job("c", 1)), Err(EngineError::QueueFull(2))));
    let fault = backend.ask(&france(json!({}))).await.err().unwrap();
    assert_eq!(fault.kind, Kind::Overloaded);
    assert!(fault.retry_after.is_some());
    drop(first);
    assert_eq!(engine.waiting(), 1);
    let third = engine.submit(job("c", 1)).unwrap();
    drop(speaking);
    text_of(third).await;
}

#[tokio::test]
async fn the_wait_for_the_first_token_includes_the_queue() {
    let engine = narrow(2).await;
    let mut speaking = engine.submit(job("Count from one to a thousand.", 2000)).unwrap();
    speaking.next().await.unwrap().unwrap();
    let waits = Waits { connect: SECOND, first_token: SECOND / 20, gap: SECOND, total: SECOND };
    let hurried = Embedded::new("local/smollm2".into(), engine.clone(), waits);
    for stream in [false, true] {
        let fault = hurried.ask(&france(json!({ "stream": stream }))).await.err().unwrap();
        assert_eq!(fault.kind, Kind::FirstTokenTimeout);
    }
    assert_eq!(engine.waiting(), 0);
}

#[tokio::test]
async fn jobs_at_once_get_their_own_answers() {
    let engine = engine(8).await;
    let ask = |text: &str| text_of(engine.submit(job(text, 8)).unwrap());
    let questions = ["What is the capital of France?", "Name a colour.", "What is 2+2?"];
    let mut alone = Vec::new();
    for question in questions {
        alone.push(ask(question).await.0);
    }
    let together = tokio::join!(ask(questions[0]), ask(questions[1]), ask(questions[2]));
    assert_eq!([together.0.0, together.1.0, together.2.0], alone[..]);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_it_is_queued() {
    let engine = engine_with(2, 256).await;
    let backend = backend(&engine);
    let long = "word ".repeat(60_000);
    assert!(engine.count(&Prompt::Text(long.clone())) > engine.context());
    assert_eq!(engine.count(&Prompt::Text("What is the capital of France?".into())), 7);
    let body = json!({ "model": "x", "messages": [{ "role": "user", "content": long }] });
    let fault = backend.ask(&query(Endpoint::Chat, body)).await.err().unwrap();
    assert_eq!((fault.kind, fault.param.as_deref()), (Kind::ContextLength, Some("messages")));
    // An answer is cut where the window ends.
    let nearly = "word ".repeat(245);
    let generation = engine.submit(Job { prompt: Prompt::Text(nearly), ..job("", 500) }).unwrap();
    let room = engine.context() - generation.input_tokens();
    let (_, done) = text_of(generation).await;
    assert!(done.finish == Finish::Stop || (done.finish, done.output_tokens) == (Finish::Length, room), "{done:?}");
}

#[tokio::test]
async fn what_the_engine_cannot_do_is_refused_by_name() {
    let cases = [
        (json!({ "n": 2 }), "n"),
        (json!({ "tools": [{ "type": "function", "function": { "name": "f" } }] }), "tools"),
        (json!({ "response_format": { "type": "json_object" } }), "response_format"),
        (json!({ "frequency_penalty": 0.5 }), "frequency_penalty"),
        (json!({ "brand_new": 1 }), "brand_new"),
    ];
    for (more, field) in cases {
        let fault: Fault = embedded::refused(&france(more)).unwrap();
        assert_eq!((fault.kind, fault.param.as_deref()), (Kind::Unsupported, Some(field)));
        assert!(fault.message.contains(field));
    }
    let echo = json!({ "model": "x", "prompt": "a", "echo": true });
    assert_eq!(embedded::refused(&query(Endpoint::Completions, echo)).unwrap().param.as_deref(), Some("echo"));
    assert!(embedded::refused(&france(json!({ "stop": "x", "seed": 1, "logprobs": true, "top_p": 0.5 }))).is_none());
}

#[tokio::test]
async fn a_dropped_engine_ends_its_jobs() {
    let engine = narrow(2).await;
    let mut speaking = engine.submit(job("Count from one to a thousand.", 2000)).unwrap();
    speaking.next().await.unwrap().unwrap();
    let mut waiting = engine.submit(job("a", 1)).unwrap();
    drop(engine);
    assert!(matches!(waiting.next().await, Some(Err(EngineError::Stopped))));
    let ended = async { while let Some(Ok(_)) = speaking.next().await {} };
    tokio::time::timeout(SECOND * 5, ended).await.unwrap();
}

#[test]
fn a_file_that_is_no_model_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    for content in [&b""[..], b"GGUF", b"not a model at all", &[0; 4096]] {
        std::fs::write(&path, content).unwrap();
        let batch = Batch::default();
        let spec = ModelSpec {
            name: "x".into(),
            path: path.clone(),
            context: 0,
            template: None,
            threads: 1,
            queue: 1,
            attention: Attention::Softmax,
            batch,
        };
        let error = Engine::load(&spec).err().unwrap();
        assert!(matches!(&error, EngineError::Load(text) if text.contains("x.gguf")), "{error}");
    }
}
