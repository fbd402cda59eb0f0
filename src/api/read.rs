//! Bytes to query: the typed head that routing needs, read in place; the rest stays as it came.
//!
//! Invariant: pure, and every refusal is a 400 in our own words that names the field or the byte position, never the
//! client's text. No field of a body can choose a host: see [`fields`](super::fields).

use bytes::Bytes;
use http::HeaderMap;

use super::fields::{self, Field};
use super::query::{Asked, Endpoint, Message, Needs, Query, Sampling, Spans, TEXT_BYTES};
use super::scan::{self, Flaw, Member, Object};
use super::{asked, chat, completions};
use crate::fault::{Fault, Kind};

/// Levels of nesting unless configured; serde_json's own limit is 128.
pub const MAX_DEPTH: u32 = 64;
/// Characters of a model name.
const MAX_MODEL: usize = 128;
/// Entries of `beyond_embedded`; one is enough to refuse.
const MAX_BEYOND: usize = 16;
/// What asks an upstream for a usage event, where the client's body has no `stream_options`.
const ASK_USAGE: &str = "\"stream_options\":{\"include_usage\":true},";
/// What asks for log-probabilities, by endpoint: in place of a value, and as a member of its own.
const ASK_LOGPROBS: [[&str; 2]; 2] = [["true", "\"logprobs\":true,"], ["0", "\"logprobs\":0,"]];

/// Reads and checks one request body with the headers that concern it.
pub fn read_query(endpoint: Endpoint, body: Bytes, headers: &HeaderMap) -> Result<Query, Fault> {
    read_within(endpoint, body, headers, MAX_DEPTH as usize)
}

/// The same with a configured limit on nesting; at most 120 levels, which serde_json reads without a fault.
pub fn read_within(endpoint: Endpoint, body: Bytes, headers: &HeaderMap, depth: usize) -> Result<Query, Fault> {
    let text = std::str::from_utf8(&body).map_err(|e| flawed(Flaw { at: e.valid_up_to(), what: "not UTF-8" }))?;
    let object = scan::object(text, u32::try_from(depth.min(120)).unwrap_or(MAX_DEPTH)).map_err(flawed)?;
    let mut reader = Reader::new(endpoint);
    for (place, member) in object.members.iter().enumerate() {
        reader.member(&object, place, member)?;
    }
    reader.finish(&object)?;
    let mut query = reader.query;
    asked::from_headers(&mut query, headers)?;
    query.body = body;
    Ok(query)
}

fn flawed(flaw: Flaw) -> Fault {
    Fault::new(Kind::BadRequest, format!("the body is not valid JSON: {} at byte {}", flaw.what, flaw.at))
}

struct Reader {
    query: Query,
    /// Bits of the known fields that were seen.
    seen: u64,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    logprobs: bool,
    top_logprobs: Option<u32>,
    conversation: bool,
}

impl Reader {
    fn new(endpoint: Endpoint) -> Self {
        let query = Query {
            endpoint,
            body: Bytes::new(),
            model: String::new(),
            stream: false,
            include_usage: false,
            text: String::new(),
            messages: Vec::new(),
            needs: Needs::default(),
            sampling: Sampling::default(),
            beyond_embedded: Vec::new(),
            input_tokens: 0,
            session: None,
            user: None,
            asked: Asked::default(),
            pass: Vec::new(),
            spans: Spans::default(),
        };
        Self {
            query,
            seen: 0,
            max_tokens: None,
            max_completion_tokens: None,
            logprobs: false,
            top_logprobs: None,
            conversation: false,
        }
    }

    fn member(&mut self, object: &Object<'_>, place: usize, member: &Member<'_>) -> Result<(), Fault> {
        let key = &*member.key;
        let Some((field, bit)) = fields::known(key) else {
            fields::refuse_hosts(key)?;
            if member.raw != "null" {
                self.beyond(fields::shown(key));
            }
            return Ok(());
        };
        if self.seen & bit != 0 {
            return Err(fields::bad(key, "is there twice"));
        }
        self.seen |= bit;
        if field == Field::Logprobs && matches!(member.raw, "null" | "false") {
            let [value, _] = self.ask_logprobs();
            self.query.spans.logprobs = Some((member.value.clone(), value));
        }
        match field {
            Field::Wattroute => asked::from_member(&mut self.query, object, place, member),
            Field::StreamOptions => self.stream_options(member),
            _ if member.raw == "null" => Ok(()),
            Field::Model => self.model(member),
            Field::Messages if self.query.endpoint == Endpoint::Chat => self.messages(member.raw),
            Field::Prompt if self.query.endpoint == Endpoint::Completions => self.prompt(member.raw),
            Field::Messages | Field::Prompt => {
                self.beyond(key.to_owned());
                Ok(())
            }
            _ => self.setting(key, member.raw, field),
        }
    }

    /// Fields with a plain value.
    fn setting(&mut self, key: &str, raw: &str, field: Field) -> Result<(), Fault> {
        let sampling = &mut self.query.sampling;
        match field {
            Field::Stream => self.query.stream = fields::boolean(key, raw)?,
            Field::MaxTokens => self.max_tokens = Some(fields::whole(key, raw, 1..=u32::MAX)?),
            Field::MaxCompletionTokens => self.max_completion_tokens = Some(fields::whole(key, raw, 1..=u32::MAX)?),
            #[expect(clippy::cast_possible_truncation, reason = "0 to 2 fits an f32; the engine needs no more digits")]
            Field::Temperature => sampling.temperature = fields::float(key, raw, 0.0..=2.0)? as f32,
            #[expect(clippy::cast_possible_truncation, reason = "0 to 1 fits an f32")]
            Field::TopP => {
                let top_p = fields::float(key, raw, 0.0..=1.0)?;
                if top_p <= 0.0 {
                    return Err(fields::bad(key, "must be greater than 0"));
                }
                sampling.top_p = top_p as f32;
            }
            Field::Stop => sampling.stop = fields::stop(raw)?,
            Field::Seed => sampling.seed = Some(fields::seed(raw)?),
            Field::Count | Field::BestOf if fields::whole(key, raw, 1..=128)? > 1 => {
                self.query.needs.many = true;
                self.beyond(key.to_owned());
            }
            Field::Logprobs if self.query.endpoint == Endpoint::Completions => {
                self.logprobs = true;
                self.top_logprobs = Some(fields::whole(key, raw, 0..=20)?);
            }
            Field::Logprobs => self.logprobs = fields::boolean(key, raw)?,
            Field::TopLogprobs => self.top_logprobs = Some(fields::whole(key, raw, 0..=20)?),
            Field::Penalty if fields::float(key, raw, -2.0..=2.0)? != 0.0 => self.beyond(key.to_owned()),
            Field::Tools => self.tools(raw)?,
            Field::ResponseFormat => self.response_format(raw)?,
            Field::Harmless => asked::user(&mut self.query, key, raw),
            Field::Default(defaults) if !fields::is_default(raw, defaults) => self.beyond(key.to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn model(&mut self, member: &Member<'_>) -> Result<(), Fault> {
        let model = serde_json::from_str::<String>(member.raw).ok();
        let fine = |name: &String| {
            let visible = name.chars().all(|c| !c.is_control() && !c.is_whitespace());
            visible && !name.is_empty() && name.chars().count() <= MAX_MODEL
        };
        let what = "must be a name of 1 to 128 visible characters";
        self.query.model = model.filter(fine).ok_or_else(|| fields::bad("model", what))?;
        self.query.spans.model = Some(member.value.clone());
        Ok(())
    }

    fn messages(&mut self, raw: &str) -> Result<(), Fault> {
        let found = chat::conversation(raw)?;
        let needs = &mut self.query.needs;
        needs.tools |= found.needs.tools;
        needs.images |= found.needs.images;
        needs.audio |= found.needs.audio;
        found.beyond.into_iter().for_each(|path| self.beyond(path));
        self.converse(found.messages);
        Ok(())
    }

    fn prompt(&mut self, raw: &str) -> Result<(), Fault> {
        let prompt = completions::prompt(raw)?;
        self.query.needs.many |= prompt.many;
        if !prompt.plain {
            self.beyond("prompt".to_owned());
        }
        self.converse(vec![prompt.message]);
        Ok(())
    }

    fn converse(&mut self, messages: Vec<Message>) {
        let tokens = messages.iter().map(|message| (message.content.len() / 4).max(1)).sum::<usize>();
        self.query.input_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let last = messages.iter().rfind(|message| message.role == "user").or(messages.last());
        let text = last.map(|message| message.content.as_str()).unwrap_or_default();
        let end = text.floor_char_boundary(TEXT_BYTES);
        self.query.text = text.get(..end).unwrap_or_default().to_owned();
        self.query.messages = messages;
        self.conversation = true;
    }

    fn tools(&mut self, raw: &str) -> Result<(), Fault> {
        let inside = raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let Some(inside) = inside else {
            return Err(fields::bad("tools", "must be an array"));
        };
        if !inside.trim().is_empty() {
            self.query.needs.tools = true;
            self.beyond("tools".to_owned());
        }
        Ok(())
    }

    fn response_format(&mut self, raw: &str) -> Result<(), Fault> {
        let wrong = || fields::bad("response_format", "must be an object with a string `type`");
        let object = scan::object(raw, MAX_DEPTH).map_err(|_| wrong())?;
        let mut kinds = object.members.iter().filter(|member| member.key == "type");
        let (Some(kind), None) = (kinds.next(), kinds.next()) else { return Err(wrong()) };
        let kind = serde_json::from_str::<String>(kind.raw).map_err(|_| wrong())?;
        self.query.needs.json |= matches!(&*kind, "json_object" | "json_schema");
        if kind != "text" {
            self.beyond("response_format".to_owned());
        }
        Ok(())
    }

    fn stream_options(&mut self, member: &Member<'_>) -> Result<(), Fault> {
        if member.raw == "null" {
            self.query.spans.usage = Some((member.value.clone(), "{\"include_usage\":true}"));
            return Ok(());
        }
        let wrong = || fields::bad("stream_options", "must be an object");
        let object = scan::object(member.raw, MAX_DEPTH).map_err(|_| wrong())?;
        let mut asks = object.members.iter().filter(|inner| inner.key == "include_usage");
        let (ask, again) = (asks.next(), asks.next());
        if again.is_some() {
            return Err(fields::bad("stream_options.include_usage", "is there twice"));
        }
        let from = member.value.start;
        self.query.spans.usage = Some(match ask {
            Some(ask) => {
                let null = ask.raw == "null";
                self.query.include_usage = !null && fields::boolean("stream_options.include_usage", ask.raw)?;
                (from + ask.value.start..from + ask.value.end, "true")
            }
            None if object.members.is_empty() => (member.value.clone(), "{\"include_usage\":true}"),
            None => (from + object.inside..from + object.inside, "\"include_usage\":true,"),
        });
        Ok(())
    }

    fn finish(&mut self, object: &Object<'_>) -> Result<(), Fault> {
        let [_, ask] = self.ask_logprobs();
        let query = &mut self.query;
        if query.spans.model.is_none() {
            return Err(fields::bad("model", "is required: `auto`, or a name from GET /v1/models"));
        }
        if !self.conversation {
            let name = if query.endpoint == Endpoint::Chat { "messages" } else { "prompt" };
            return Err(fields::bad(name, "is required"));
        }
        if query.spans.usage.is_none() {
            query.spans.usage = Some((object.inside..object.inside, ASK_USAGE));
        }
        query.sampling.max_tokens = self.max_completion_tokens.or(self.max_tokens);
        query.needs.logprobs = self.logprobs;
        if query.spans.logprobs.is_none() && !self.logprobs {
            query.spans.logprobs = Some((object.inside..object.inside, ask));
        }
        let top = self.top_logprobs.and_then(|top| u8::try_from(top).ok()).unwrap_or(0);
        query.sampling.logprobs = self.logprobs.then_some(top);
        Ok(())
    }

    fn ask_logprobs(&self) -> [&'static str; 2] {
        let [chat, completions] = ASK_LOGPROBS;
        if self.query.endpoint == Endpoint::Chat { chat } else { completions }
    }

    fn beyond(&mut self, path: String) {
        if self.query.beyond_embedded.len() < MAX_BEYOND {
            self.query.beyond_embedded.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chat(body: &str) -> Result<Query, Fault> {
        read_query(Endpoint::Chat, Bytes::copy_from_slice(body.as_bytes()), &HeaderMap::new())
    }

    fn with(fields: &str) -> Result<Query, Fault> {
        chat(&format!("{{\"model\":\"auto\",\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}],{fields}}}"))
    }

    fn param(result: Result<Query, Fault>) -> String {
        let fault = result.unwrap_err();
        assert_eq!(fault.status(), 400);
        fault.param.unwrap_or_else(|| fault.message.clone())
    }

    #[test]
    fn a_chat_is_read() {
        let query = chat(
            r#"{"model":"auto:green","messages":[{"role":"system","content":"be brief"},
            {"role":"user","content":[{"type":"text","text":"a\u00e9"},{"type":"text","text":"b"}]}],
            "temperature":0.5,"top_p":0.9,"max_tokens":5,"max_completion_tokens":7,"stop":"x","seed":-1,
            "logprobs":true,"top_logprobs":3,"stream":true,"user":"u","store":false,"parallel_tool_calls":true}"#,
        )
        .unwrap();
        assert_eq!((query.model.as_str(), query.text.as_str(), query.stream), ("auto:green", "a\u{e9}\nb", true));
        assert_eq!(query.messages[0], Message { role: "system".into(), content: "be brief".into() });
        let sampling = &query.sampling;
        assert_eq!((sampling.max_tokens, sampling.seed, sampling.logprobs), (Some(7), Some(u64::MAX), Some(3)));
        assert_eq!((sampling.temperature, sampling.top_p, sampling.stop.len()), (0.5, 0.9, 1));
        assert!(query.beyond_embedded.is_empty(), "{:?}", query.beyond_embedded);
        assert!(query.needs.logprobs && !query.include_usage);
    }

    #[test]
    fn a_name_that_is_no_name_is_not_repeated() {
        let long = "a".repeat(65);
        for odd in ["", "sk-abc123", "what is a name?", "caf\u{e9}", &long, "a\\nb"] {
            let query = with(&format!("\"{odd}\":1")).unwrap();
            assert_eq!(query.beyond_embedded, ["a field of unusual name"], "{odd}");
        }
        assert_eq!(with("\"top_k\":1").unwrap().beyond_embedded, ["top_k"]);
    }

    #[test]
    fn what_the_engine_cannot_do_is_listed_in_order() {
        let query = with(
            r#""n":2,"tools":[{"type":"function"}],"tool_choice":"required","response_format":{"type":"json_object"},
            "frequency_penalty":0.1,"presence_penalty":0,"logit_bias":{},"modalities":[ "text" ],"brand_new":1,"other":null,
            "web_search_options":{},"service_tier":"flex""#,
        )
        .unwrap();
        let expected = [
            "n",
            "tools",
            "tool_choice",
            "response_format",
            "frequency_penalty",
            "brand_new",
            "web_search_options",
            "service_tier",
        ];
        assert_eq!(query.beyond_embedded, expected);
        assert!(query.needs.many && query.needs.tools && query.needs.json);
    }

    #[test]
    fn parts_that_are_not_text_are_needs() {
        let query = chat(
            r#"{"model":"auto","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]},
            {"role":"assistant","content":null,"tool_calls":[{"id":"1"}]},{"role":"tool","tool_call_id":"1","content":"r"}]}"#,
        )
        .unwrap();
        assert!(query.needs.images && query.needs.tools);
        assert_eq!(query.beyond_embedded, ["messages[0].content", "messages[1].tool_calls", "messages[2].role"]);
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        let cases = [
            ("\"temperature\":2.1", "temperature"),
            ("\"temperature\":\"1\"", "temperature"),
            ("\"temperature\":1e999", "temperature"),
            ("\"top_p\":0", "top_p"),
            ("\"top_p\":1.01", "top_p"),
            ("\"max_tokens\":0", "max_tokens"),
            ("\"max_completion_tokens\":-5", "max_completion_tokens"),
            ("\"max_tokens\":1.5", "max_tokens"),
            ("\"n\":0", "n"),
            ("\"n\":129", "n"),
            ("\"top_logprobs\":21", "top_logprobs"),
            ("\"logprobs\":1", "logprobs"),
            ("\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]", "stop"),
            ("\"stop\":5", "stop"),
            ("\"seed\":1.5", "seed"),
            ("\"stream\":\"yes\"", "stream"),
            ("\"stream_options\":1", "stream_options"),
            ("\"stream_options\":{\"include_usage\":1}", "stream_options.include_usage"),
            ("\"tools\":{}", "tools"),
            ("\"response_format\":{}", "response_format"),
            ("\"presence_penalty\":-2.5", "presence_penalty"),
            ("\"model\":\"again\"", "model"),
            ("\"mod\\u0065l\":\"again\"", "model"),
            ("\"stream\":true,\"stream\":false", "stream"),
            ("\"wattroute\":{\"privat\":true}", "wattroute.privat"),
            ("\"wattroute\":{\"policy\":\"../x\"}", "wattroute.policy"),
            ("\"wattroute\":[]", "wattroute"),
        ];
        for (fields, name) in cases {
            assert_eq!(param(with(fields)), name, "{fields}");
        }
    }

    #[test]
    fn a_client_can_never_name_a_host() {
        for name in [
            "api_base",
            "Base_URL",
            "api_key",
            "custom_llm_provider",
            "mock_response",
            "extra_headers",
            "aws_region_name",
        ] {
            assert_eq!(param(with(&format!("\"{name}\":\"http://169.254.169.254\""))), name);
            assert_eq!(param(with(&format!("\"{name}\":null"))), name);
        }
        assert_eq!(param(with("\"api\\u005fbase\":\"x\"")), "api_base");
    }

    #[test]
    fn requests_without_model_or_messages_are_refused() {
        for (body, name) in [
            ("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "model"),
            ("{\"model\":null,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "model"),
            ("{\"model\":\"\",\"messages\":[]}", "model"),
            ("{\"model\":\"a b\",\"messages\":[]}", "model"),
            ("{\"model\":\"auto\"}", "messages"),
            ("{\"model\":\"auto\",\"messages\":[]}", "messages"),
            ("{\"model\":\"auto\",\"messages\":{}}", "messages"),
            ("{\"model\":\"auto\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"},5]}", "messages[1]"),
            ("{\"model\":\"auto\",\"messages\":[{\"content\":\"x\"}]}", "messages[0]"),
            (
                "{\"model\":\"auto\",\"messages\":[{\"role\":\"user\",\"role\":\"tool\",\"content\":\"x\"}]}",
                "messages[0]",
            ),
            ("{\"model\":\"auto\",\"messages\":[{\"role\":\"user\",\"content\":{}}]}", "messages[0]"),
        ] {
            assert_eq!(param(chat(body)), name, "{body}");
        }
    }

    #[test]
    fn malformed_bodies_say_where_and_quote_nothing() {
        let fault = chat("{\"model\":\"auto\",\"messages\":canary}").unwrap_err();
        assert_eq!(fault.message, "the body is not valid JSON: expected a value at byte 27");
        let fault = read_query(Endpoint::Chat, Bytes::from_static(b"{\"a\":\"\xff\"}"), &HeaderMap::new()).unwrap_err();
        assert_eq!(fault.message, "the body is not valid JSON: not UTF-8 at byte 6");
    }

    #[test]
    fn the_gateways_own_field_and_headers_are_read() {
        let query = with("\"wattroute\":{\"policy\":\"green\",\"private\":true,\"session\":\"s\"}").unwrap();
        assert_eq!(query.asked, Asked { policy: Some("green".into()), private: true });
        let mut headers = HeaderMap::new();
        headers.insert("x-wattroute-policy", "fast".parse().unwrap());
        headers.insert("x-session-id", "s".parse().unwrap());
        headers.insert("idempotency-key", "k".parse().unwrap());
        headers.insert("authorization", "Bearer client".parse().unwrap());
        let body = "{\"model\":\"m\",\"prompt\":\"x\",\"wattroute\":{\"policy\":\"green\",\"private\":true}}";
        let read = read_query(Endpoint::Completions, Bytes::from_static(body.as_bytes()), &headers).unwrap();
        assert_eq!(read.asked, Asked { policy: Some("fast".into()), private: true });
        assert_eq!(read.session, query.session);
        assert_eq!(read.pass.len(), 1);
    }

    #[test]
    fn prompts_come_in_four_shapes() {
        let read = |prompt: &str| {
            let body = format!("{{\"model\":\"m\",\"prompt\":{prompt},\"logprobs\":2}}");
            read_query(Endpoint::Completions, Bytes::from(body), &HeaderMap::new())
        };
        let text = read("\"a\\nb\"").unwrap();
        assert_eq!((text.text.as_str(), text.sampling.logprobs, text.beyond_embedded.len()), ("a\nb", Some(2), 0));
        assert!(read("[\"one\"]").unwrap().beyond_embedded.is_empty());
        assert!(read("[\"one\",\"two\"]").unwrap().needs.many);
        assert_eq!(read("[1,2]").unwrap().beyond_embedded, ["prompt"]);
        assert!(read("[[1],[2]]").unwrap().needs.many);
        assert_eq!(param(read("{}")), "prompt");
        assert_eq!(param(read("null")), "prompt");
    }

    #[test]
    fn the_classifier_reads_at_most_8_kib_at_a_character_border() {
        let long = "\u{20ac}".repeat(5000);
        let query =
            chat(&format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{long}\"}}]}}")).unwrap();
        assert_eq!(query.text.len(), TEXT_BYTES / 3 * 3);
        assert_eq!(query.messages[0].content, long);
        assert!(!format!("{query:?}").contains('\u{20ac}'), "debug output shows no text");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_query(Endpoint::Chat, Bytes::from(body), &HeaderMap::new());
        }

        #[test]
        fn refusals_quote_nothing(secret in "[a-z]{12}") {
            for body in [
                format!("{{\"model\":{secret}}}"),
                format!("{{\"model\":\"{secret} \",\"messages\":[]}}"),
                format!("{{\"model\":\"m\",\"messages\":\"{secret}\"}}"),
                format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":{{\"x\":\"{secret}\"}}}}]}}"),
                format!("{{\"model\":\"m\",\"stop\":{{\"x\":\"{secret}\"}}}}"),
            ] {
                let shown = chat(&body).unwrap_err().to_string();
                prop_assert!(!shown.contains(&secret));
            }
        }
    }
}
