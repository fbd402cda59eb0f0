//! `prompt` of a completion: one text is a conversation of one user message; more or token ids are beyond us.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::fields;
use super::query::Message;
use crate::fault::Fault;

/// The prompt, as far as routing and the embedded engine need it.
#[derive(Debug)]
pub struct Prompt {
    /// The text; the first of several; empty for token ids.
    pub message: Message,
    /// One text and nothing else.
    pub plain: bool,
    /// More than one prompt.
    pub many: bool,
}

/// Reads the value of `prompt`.
pub fn prompt(raw: &str) -> Result<Prompt, Fault> {
    let wrong = |_| fields::bad("prompt", "must be a string, an array of strings, or token ids");
    let (text, plain, many) = match raw.as_bytes().first() {
        Some(b'"') => (serde_json::from_str::<String>(raw).map_err(wrong)?, true, false),
        _ => {
            let list: List = serde_json::from_str(raw).map_err(wrong)?;
            (list.first, list.texts == 1 && list.others == 0, list.texts > 1 || list.lists > 1)
        }
    };
    Ok(Prompt { message: Message { role: "user".to_owned(), content: text }, plain, many })
}

/// An array of texts, of token ids, or of arrays of token ids. Only the first text is kept.
#[derive(Default)]
struct List {
    first: String,
    texts: usize,
    lists: usize,
    others: usize,
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_seq(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = List;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("texts or token ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List, A::Error> {
        let mut list = List::default();
        while let Some(item) = items.next_element::<Item>()? {
            match item {
                Item::Text(text) => {
                    if list.texts == 0 {
                        list.first = text;
                    }
                    list.texts += 1;
                }
                Item::Tokens => {
                    list.lists += 1;
                    list.others += 1;
                }
                Item::Token => list.others += 1,
            }
        }
        Ok(list)
    }
}

enum Item {
    Text(String),
    Token,
    Tokens,
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a token id or an array of token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Item, E> {
        Ok(Item::Token)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut tokens: A) -> Result<Item, A::Error> {
        while tokens.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Item::Tokens)
    }
}
