//! The words of a logged conversation: the user's, and how much was asked and answered. Pure.

use serde_json::Value;

/// What a conversation says.
#[derive(Default)]
pub struct Words {
    /// What the user wrote.
    pub user: String,
    /// Bytes before the last answer.
    pub asked: usize,
    /// Bytes of the last answer, if the conversation ends with one.
    pub answered: usize,
}

/// Words of a conversation: an array of messages with `role` or `from`, or a plain text.
pub fn words(value: &Value) -> Words {
    let mut out = Words::default();
    let Some(messages) = value.as_array() else {
        let text = value.as_str().unwrap_or_default();
        return Words { user: text.to_owned(), asked: text.len(), answered: 0 };
    };
    for message in messages {
        let role = message.get("role").or_else(|| message.get("from")).and_then(Value::as_str).unwrap_or_default();
        let text = content(message.get("content").or_else(|| message.get("value")).unwrap_or(&Value::Null));
        out.asked += out.answered;
        out.answered = 0;
        match role {
            "assistant" | "gpt" | "model" | "bot" => out.answered = text.len(),
            _ => out.asked += text.len(),
        }
        if matches!(role, "user" | "human") {
            out.user += &(text + "\n");
        }
    }
    out
}

/// A message's text: a string, or the text parts of an array.
fn content(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|p| p.get("text").and_then(Value::as_str)).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}
