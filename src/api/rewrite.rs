//! The bytes sent upstream: the client's own, with at most four places replaced.
//!
//! Invariant: outside the model's name, the `wattroute` member and what [`Wants`] asks for, every byte is the client's: white space, escapes, large numbers, duplicates and unknown fields all survive.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::query::Query;

/// What a backend is asked for beyond the client's wishes; the answer is rid of it again before he sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// A usage event, of a stream.
    pub usage: bool,
    /// Log-probabilities of the generated tokens.
    pub logprobs: bool,
}

/// Replaces the model, takes the `wattroute` member out and asks for what is wanted.
pub fn rewrite(query: &Query, upstream_model: &str, wants: Wants) -> Bytes {
    let spans = &query.spans;
    let mut edits: Vec<(Range<usize>, &str)> = Vec::with_capacity(4);
    let quoted;
    if let Some(span) = spans.model.clone().filter(|_| query.model != upstream_model) {
        quoted = serde_json::Value::from(upstream_model).to_string();
        edits.push((span, &quoted));
    }
    if let Some(span) = spans.wattroute.clone() {
        edits.push((span, ""));
    }
    if let Some((span, ask)) = spans.usage.clone().filter(|_| wants.usage && query.stream) {
        edits.push((span, ask));
    }
    if let Some((span, ask)) = spans.logprobs.clone().filter(|_| wants.logprobs) {
        edits.push((span, ask));
    }
    if edits.is_empty() {
        return query.body.clone();
    }
    edits.sort_by_key(|(span, _)| (span.start, span.end));
    splice(&query.body, &edits)
}

/// `edits` are in order and do not overlap.
fn splice(body: &[u8], edits: &[(Range<usize>, &str)]) -> Bytes {
    let added: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut out = BytesMut::with_capacity(body.len() + added);
    let mut from = 0;
    for (span, text) in edits {
        out.extend_from_slice(body.get(from..span.start).unwrap_or_default());
        out.extend_from_slice(text.as_bytes());
        from = span.end;
    }
    out.extend_from_slice(body.get(from..).unwrap_or_default());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;
    use crate::api::query::Endpoint;
    use crate::api::read::read_query;

    fn rewritten(body: &str, want_usage: bool) -> String {
        let query = read_query(Endpoint::Completions, Bytes::copy_from_slice(body.as_bytes()), &HeaderMap::new());
        let out = rewrite(&query.unwrap(), "up/model", Wants { usage: want_usage, logprobs: false });
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn nasty_json_survives_byte_for_byte() {
        let body = "\n{ \"x\" : 1.0000000000000000000001e400 ,\t\"mod\\u0065l\":\"au\\u0074o\" , \"x\":-0,\"x\" :\"\\u00e9\\/\\ud83d\\ude00\u{1f600}\",\r\n\"prompt\":\"a\\\"}{\" , \"y\":[ [ ],{ } , 123456789012345678901234567890 ] } \n";
        assert_eq!(rewritten(body, true), body.replace("\"au\\u0074o\"", "\"up/model\""));
    }

    #[test]
    fn the_same_model_copies_nothing() {
        let body = Bytes::from_static(b"{\"model\":\"up/model\",\"prompt\":\"x\",\"stream\":true}");
        let query = read_query(Endpoint::Completions, body.clone(), &HeaderMap::new()).unwrap();
        assert_eq!(rewrite(&query, "up/model", Wants::default()).as_ptr(), body.as_ptr());
    }

    #[test]
    fn the_wattroute_member_goes_wherever_it_stands() {
        let cases = [
            (r#"{"wattroute":{"private":true},"model":"m","prompt":"x"}"#, r#"{"model":"up/model","prompt":"x"}"#),
            (r#"{ "wattroute" : {} , "model":"m","prompt":"x"}"#, r#"{  "model":"up/model","prompt":"x"}"#),
            (r#"{"model":"m","wattroute":{},"prompt":"x"}"#, r#"{"model":"up/model","prompt":"x"}"#),
            (r#"{"model":"m","prompt":"x" , "wattroute":null }"#, r#"{"model":"up/model","prompt":"x"  }"#),
        ];
        for (body, expected) in cases {
            assert_eq!(rewritten(body, true), expected);
        }
    }

    #[test]
    fn a_stream_is_asked_for_usage_once() {
        let cases = [
            (
                r#"{"model":"m","prompt":"x","stream":true}"#,
                r#"{"stream_options":{"include_usage":true},"model":"up/model","prompt":"x","stream":true}"#,
            ),
            (
                r#"{"model":"m","prompt":"x","stream":true,"stream_options":{}}"#,
                r#"{"model":"up/model","prompt":"x","stream":true,"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"model":"m","prompt":"x","stream":true,"stream_options":{"include_obfuscation":false}}"#,
                r#"{"model":"up/model","prompt":"x","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}"#,
            ),
            (
                r#"{"model":"m","prompt":"x","stream":true,"stream_options":{ "include_usage" : false }}"#,
                r#"{"model":"up/model","prompt":"x","stream":true,"stream_options":{ "include_usage" : true }}"#,
            ),
            (
                r#"{"stream_options":null,"model":"m","prompt":"x","stream":true}"#,
                r#"{"stream_options":{"include_usage":true},"model":"up/model","prompt":"x","stream":true}"#,
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(rewritten(body, true), expected);
            assert_eq!(rewritten(expected, true), expected, "a second time changes nothing");
            assert!(!rewritten(body, false).contains("\"include_usage\":true"));
        }
    }

    #[test]
    fn log_probabilities_are_asked_for_where_the_client_did_not() {
        let asked = |endpoint: Endpoint, body: &str| {
            let query = read_query(endpoint, Bytes::copy_from_slice(body.as_bytes()), &HeaderMap::new()).unwrap();
            let out = rewrite(&query, "m", Wants { usage: true, logprobs: true });
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            (value["logprobs"].clone(), String::from_utf8(out.to_vec()).unwrap().matches("\"logprobs\"").count())
        };
        let chat = |fields: &str| {
            asked(
                Endpoint::Chat,
                &format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}]{fields}}}"),
            )
        };
        for fields in ["", ",\"logprobs\":false", ",\"logprobs\": null ", ",\"logprobs\":true", ",\"stream\":true"] {
            assert_eq!(chat(fields), (true.into(), 1), "{fields}");
        }
        for (fields, value) in [("", 0), (",\"logprobs\":null", 0), (",\"logprobs\":3", 3), (",\"logprobs\":0", 0)] {
            let body = format!("{{\"model\":\"m\",\"prompt\":\"x\",\"stream\":true{fields}}}");
            assert_eq!(asked(Endpoint::Completions, &body), (value.into(), 1), "{fields}");
        }
    }

    #[test]
    fn a_request_that_does_not_stream_is_not_asked() {
        let body = r#"{"model":"up/model","prompt":"x","stream":false}"#;
        assert_eq!(rewritten(body, true), body);
    }

    proptest! {
        #[test]
        fn rewriting_keeps_unknown_fields_and_is_idempotent(
            keys in proptest::collection::vec("[a-z\u{e9}_]{9,14}", 0..6), value in "\\PC{0,30}",
            at in 0_usize..6, stream in any::<bool>(), spaces in "[ \n\t]{0,3}",
        ) {
            let text = serde_json::Value::from(value).to_string();
            let mut members: Vec<String> = keys.iter().map(|k| format!("\"x{k}\"{spaces}:{spaces}{text}")).collect();
            members.push("\"prompt\":\"p\"".into());
            members.push(format!("\"stream\":{stream}"));
            members.insert(at.min(members.len()), "\"model\":\"auto\"".into());
            let plain = format!("{{{spaces}{}{spaces}}}", members.join(&format!("{spaces},")));
            members.insert(at.min(members.len()), "\"wattroute\":{\"private\":true}".into());
            let marked = format!("{{{spaces}{}{spaces}}}", members.join(&format!("{spaces},")));
            let once = rewritten(&marked, true);
            prop_assert_eq!(rewritten(&once, true), once.clone());
            let strip = |s: &str| -> serde_json::Value {
                let mut value: serde_json::Value = serde_json::from_str(s).unwrap();
                value.as_object_mut().unwrap().remove("stream_options");
                value
            };
            prop_assert_eq!(strip(&once), strip(&rewritten(&plain, true)));
        }
    }
}
