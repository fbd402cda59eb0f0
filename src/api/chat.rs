//! `messages` of a chat: flattened to text in one borrowed pass, with a note of everything that is more than text.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::query::{Message, Needs};
use crate::fault::{Fault, Kind};

/// Messages in one conversation: far above real use, low enough that a body of empty messages stays cheap.
const MAX_MESSAGES: usize = 10_000;
/// Entries of [`Conversation::beyond`] that are kept; one is enough to refuse.
const MAX_BEYOND: usize = 8;

/// A conversation as routing and the embedded engine need it.
#[derive(Debug, Default)]
pub struct Conversation {
    /// Role and text of each message.
    pub messages: Vec<Message>,
    /// What it contains besides text.
    pub needs: Needs,
    /// Where that is, as JSON paths.
    pub beyond: Vec<String>,
}

/// Reads the value of `messages`.
pub fn conversation(raw: &str) -> Result<Conversation, Fault> {
    let mut found = Conversation::default();
    let mut source = serde_json::Deserializer::from_str(raw);
    if List(&mut found).deserialize(&mut source).is_err() {
        let at = found.messages.len();
        let message =
            format!("`messages[{at}]` must be an object with a string `role` and a `content` of text or parts");
        let list = raw.starts_with('[');
        let message = if list { message } else { "`messages` must be an array".to_owned() };
        let param = if list { format!("messages[{at}]") } else { "messages".to_owned() };
        return Err(Fault::new(Kind::BadRequest, message).param(param));
    }
    if found.messages.is_empty() {
        return Err(Fault::new(Kind::BadRequest, "`messages` must not be empty").param("messages"));
    }
    Ok(found)
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(default)]
    content: Content,
    tool_calls: Option<IgnoredAny>,
    function_call: Option<IgnoredAny>,
    audio: Option<IgnoredAny>,
}

/// Text of a message, and what else it has.
#[derive(Default)]
struct Content {
    text: String,
    images: bool,
    audio: bool,
    other: bool,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    refusal: Option<Cow<'a, str>>,
}

/// Collects into the conversation one by one, so that after an error the caller knows how far it came.
struct List<'c>(&'c mut Conversation);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(message) = list.next_element::<Raw<'de>>()? {
            if self.0.messages.len() == MAX_MESSAGES {
                return Err(A::Error::custom("too many messages"));
            }
            self.0.add(message);
        }
        Ok(())
    }
}

impl Conversation {
    fn add(&mut self, raw: Raw<'_>) {
        let content = raw.content;
        let tool = matches!(&*raw.role, "tool" | "function");
        self.needs.tools |= tool || raw.tool_calls.is_some() || raw.function_call.is_some();
        self.needs.images |= content.images;
        self.needs.audio |= content.audio || raw.audio.is_some();
        let plain = matches!(&*raw.role, "system" | "developer" | "user" | "assistant");
        let notes = [
            (!plain, "role"),
            (content.images || content.audio || content.other, "content"),
            (raw.tool_calls.is_some(), "tool_calls"),
            (raw.function_call.is_some(), "function_call"),
            (raw.audio.is_some(), "audio"),
        ];
        let at = self.messages.len();
        for (_, field) in notes.iter().filter(|(noted, _)| *noted) {
            if self.beyond.len() < MAX_BEYOND {
                self.beyond.push(format!("messages[{at}].{field}"));
            }
        }
        self.messages.push(Message { role: raw.role.into_owned(), content: content.text });
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or an array of parts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content { text: text.to_owned(), ..Content::default() })
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
        let mut content = Content::default();
        while let Some(part) = parts.next_element::<Part<'de>>()? {
            match &*part.kind {
                "text" => content.join(part.text.as_deref()),
                "refusal" => content.join(part.refusal.as_deref()),
                "image_url" | "input_image" | "image" => content.images = true,
                "input_audio" | "file" | "input_file" => content.audio = true,
                _ => content.other = true,
            }
        }
        Ok(content)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Content, A::Error> {
        Err(A::Error::custom("an object is no content"))
    }
}

impl Content {
    fn join(&mut self, text: Option<&str>) {
        let Some(text) = text else {
            self.other = true;
            return;
        };
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
    }
}
