//! The same query once more, short and at a temperature: what a cascade compares a local answer with.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::query::{Endpoint, Query};
use super::read::read_within;

/// Deepest body that was read in the first place.
const DEPTH: usize = 120;
/// What a second answer must not inherit: its form, its number, its length, and what would make it the first one again.
const ITS_OWN: [&str; 12] = [
    "stream",
    "stream_options",
    "n",
    "best_of",
    "logprobs",
    "top_logprobs",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "seed",
    "wattroute",
];

/// A query for one short second answer in one piece; none where the body does not allow it. Nothing of the client's headers
/// goes with it: an idempotency key would give the first answer again.
pub fn sampled(query: &Query, tokens: u32, temperature: f64, seed: u64) -> Option<Query> {
    let mut body: Map<String, Value> = serde_json::from_slice(&query.body).ok()?;
    body.retain(|key, _| !ITS_OWN.contains(&key.as_str()));
    body.insert("max_tokens".to_owned(), tokens.into());
    body.insert("temperature".to_owned(), temperature.into());
    body.insert("seed".to_owned(), seed.into());
    let bytes = Bytes::from(serde_json::to_vec(&body).ok()?);
    let read = read_within(query.endpoint, bytes, &HeaderMap::new(), DEPTH).ok()?;
    // Of the same conversation, so that what was read of it is not read again.
    Some(Query { session: query.session, user: query.user, asked: query.asked.clone(), ..read })
}

/// Whether second answers say anything of the first: not where it calls tools or has a form of its own.
pub fn comparable(query: &Query) -> bool {
    let n = &query.needs;
    !(n.tools || n.json || n.many) && matches!(query.endpoint, Endpoint::Chat | Endpoint::Completions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::read_query;

    #[test]
    fn a_second_answer_is_short_in_one_piece_and_of_the_same_question() {
        let body = r#"{"model":"auto","messages":[{"role":"user","content":"2+2?"}],"stream":true,"n":1,"max_completion_tokens":900,
            "temperature":0,"seed":1,"stop":["x"],"stream_options":{"include_usage":true}}"#;
        let first = read_query(Endpoint::Chat, Bytes::from(body), &HeaderMap::new()).unwrap();
        let first = Query { session: Some(7), ..first };
        let second = sampled(&first, 32, 0.7, 5).unwrap();
        assert_eq!((second.stream, second.sampling.max_tokens, second.sampling.seed), (false, Some(32), Some(5)));
        assert!((second.sampling.temperature - 0.7).abs() < 1e-6);
        assert_eq!((&second.text, second.session, &second.sampling.stop), (&first.text, Some(7), &first.sampling.stop));
        assert!(comparable(&first));
        let json =
            r#"{"model":"auto","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_object"}}"#;
        assert!(!comparable(&read_query(Endpoint::Chat, Bytes::from(json), &HeaderMap::new()).unwrap()));
    }
}
