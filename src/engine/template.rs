//! Chat templates by name: a conversation becomes token ids.
//!
//! Invariants: the template text in a model file is never rendered, only recognised; marks are placed by id and
//! the words between them are encoded as plain text, so that no message can open a turn of its own. (`plain` is the
//! exception by nature: its marks are ordinary words. It is only for models without chat tokens.)

use crate::api::query::Message;
use crate::engine::tokenizer::{Tokenizer, TooLong};
use crate::engine::types::EngineError;
use crate::engine::vocabulary::{Turns, Vocabulary, clip};

/// A template whose marks were found in a model's vocabulary.
#[derive(Debug)]
pub struct Template {
    name: &'static str,
    marks: Marks,
    /// Said by the model's own template when the conversation starts without a system message.
    default_system: Option<&'static str>,
}

#[derive(Debug)]
enum Marks {
    /// `<|im_start|>role\ntext<|im_end|>\n`. With `thought`, the answer begins behind an empty `<think>` part, which is how
    /// models that can think are told not to: what they think would be billed, and not shown.
    ChatMl { start: u32, end: u32, thought: Option<[u32; 2]> },
    /// `<|start_header_id|>role<|end_header_id|>\n\ntext<|eot_id|>`
    Llama3 { begin: Option<u32>, start: u32, header_end: u32, end: u32 },
    /// `<start_of_turn>role\ntext<end_of_turn>\n`; the assistant is `model`, and a system message opens the next user turn.
    Gemma { begin: Option<u32>, start: u32, end: u32 },
    /// `<|role|>\ntext</s>\n`, where only `</s>` is a token. As with `Plain`, a message can pose as a turn.
    Zephyr { begin: Option<u32>, end: u32 },
    /// `[INST] text [/INST] answer</s>`; a system message opens the next user turn. `[INST]` is a token in some vocabularies.
    Inst { begin: Option<u32>, marks: Option<[u32; 2]>, end: u32 },
    /// `User: text\n\nAssistant: text\n\n`
    Plain,
}

/// Names that a configuration may use.
pub const NAMES: [&str; 9] = ["smollm2", "qwen2.5", "qwen3", "chatml", "llama3", "gemma", "zephyr", "mistral", "plain"];

const SMOLLM2_SYSTEM: &str = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
const QWEN25_SYSTEM: &str = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

/// BLAKE3 of the template texts that the official files carry, and what they are called here.
const KNOWN: [(&str, &str); 2] = [
    ("2ff3b438de276e44f744a575e323cd7c32a47e72d91baf30d965df0c307af35b", "smollm2"),
    ("72e8302eb275e75b189b6a9ebfaa7aaba1b868c610b169b3b16c5cae2172148e", "qwen2.5"),
];

/// Tokens that end a turn in one family or another; those that a model has end its answers.
const ENDS: [&str; 7] =
    ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "</s>", "<end_of_turn>"];

impl Template {
    /// The configured template, else the one that fits the file.
    pub fn choose(name: Option<&str>, vocabulary: &Vocabulary, tokenizer: &Tokenizer) -> Result<Self, EngineError> {
        let name = match name {
            Some(name) => NAMES.into_iter().find(|known| *known == name).ok_or_else(|| {
                EngineError::Load(format!("unknown chat template \"{}\"; known: {}", clip(name), NAMES.join(", ")))
            })?,
            None => fitting(vocabulary, tokenizer),
        };
        let mark = |text: &str| {
            tokenizer.special(text).ok_or_else(|| {
                EngineError::Load(format!("chat template \"{name}\" needs the token {text}, which this model lacks"))
            })
        };
        let (marks, default_system) = match name {
            "plain" => (Marks::Plain, None),
            "llama3" => {
                let begin = tokenizer.special("<|begin_of_text|>").or(vocabulary.bos);
                let (start, header_end) = (mark("<|start_header_id|>")?, mark("<|end_header_id|>")?);
                (Marks::Llama3 { begin, start, header_end, end: mark("<|eot_id|>")? }, None)
            }
            "gemma" => {
                let begin = tokenizer.special("<bos>").or(vocabulary.bos);
                (Marks::Gemma { begin, start: mark("<start_of_turn>")?, end: mark("<end_of_turn>")? }, None)
            }
            "zephyr" => (Marks::Zephyr { begin: vocabulary.opening(), end: mark("</s>")? }, None),
            "mistral" => {
                let marks =
                    tokenizer.special("[INST]").zip(tokenizer.special("[/INST]")).map(|(open, close)| [open, close]);
                (Marks::Inst { begin: vocabulary.opening(), marks, end: mark("</s>")? }, None)
            }
            _ => {
                let thought = if name == "qwen3" { Some([mark("<think>")?, mark("</think>")?]) } else { None };
                let system = match name {
                    "smollm2" => Some(SMOLLM2_SYSTEM),
                    "qwen2.5" => Some(QWEN25_SYSTEM),
                    _ => None,
                };
                (Marks::ChatMl { start: mark("<|im_start|>")?, end: mark("<|im_end|>")?, thought }, system)
            }
        };
        Ok(Self { name, marks, default_system })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The conversation as ids, ending where the assistant's turn begins.
    pub fn render(&self, tokenizer: &Tokenizer, messages: &[Message], limit: usize) -> Result<Vec<u32>, TooLong> {
        let mut ids = Ids { tokenizer, limit, ids: Vec::new(), text: String::new(), held: String::new() };
        if let Marks::Llama3 { begin: Some(begin), .. }
        | Marks::Gemma { begin: Some(begin), .. }
        | Marks::Zephyr { begin: Some(begin), .. }
        | Marks::Inst { begin: Some(begin), .. } = self.marks
        {
            ids.mark(begin)?;
        }
        let starts_with_system = messages.first().is_some_and(|m| role(&m.role) == "system");
        if let Some(system) = self.default_system.filter(|_| !starts_with_system) {
            self.turn(&mut ids, "system", Some(system))?;
        }
        for message in messages {
            self.turn(&mut ids, role(&message.role), Some(&message.content))?;
        }
        self.turn(&mut ids, "assistant", None)?;
        ids.flush()?;
        Ok(ids.ids)
    }

    /// One turn; without text, only its opening.
    fn turn(&self, ids: &mut Ids<'_>, role: &str, text: Option<&str>) -> Result<(), TooLong> {
        match self.marks {
            Marks::ChatMl { start, end, thought } => {
                ids.mark(start)?;
                ids.text(&[role, "\n"]);
                if let Some(text) = text {
                    ids.text(&[text]);
                    ids.mark(end)?;
                    ids.text(&["\n"]);
                } else if let Some([open, close]) = thought {
                    ids.mark(open)?;
                    ids.text(&["\n\n"]);
                    ids.mark(close)?;
                    ids.text(&["\n\n"]);
                }
            }
            Marks::Gemma { start, end, .. } => gemma(ids, [start, end], role, text)?,
            Marks::Inst { marks, end, .. } => inst(ids, marks, end, role, text)?,
            Marks::Zephyr { end, .. } => {
                ids.text(&["<|", role, "|>\n"]);
                if let Some(text) = text {
                    ids.text(&[text]);
                    ids.mark(end)?;
                    ids.text(&["\n"]);
                }
            }
            Marks::Llama3 { start, header_end, end, .. } => {
                ids.mark(start)?;
                ids.text(&[role]);
                ids.mark(header_end)?;
                ids.text(&["\n\n"]);
                if let Some(text) = text {
                    ids.text(&[text.trim()]);
                    ids.mark(end)?;
                }
            }
            Marks::Plain => {
                let label = match role {
                    "system" => "System:",
                    "assistant" => "Assistant:",
                    _ => "User:",
                };
                ids.text(&[label]);
                if let Some(text) = text {
                    ids.text(&[" ", text, "\n\n"]);
                }
            }
        }
        Ok(())
    }
}

/// One turn of the Gemma family.
fn gemma(ids: &mut Ids<'_>, [start, end]: [u32; 2], role: &str, text: Option<&str>) -> Result<(), TooLong> {
    if let (true, Some(text)) = (role == "system", text) {
        ids.held.push_str(text.trim());
        ids.held.push_str("\n\n");
        return Ok(());
    }
    ids.mark(start)?;
    let held = std::mem::take(&mut ids.held);
    ids.text(&[if role == "assistant" { "model" } else { role }, "\n", &held]);
    if let Some(text) = text {
        ids.text(&[text.trim()]);
        ids.mark(end)?;
        ids.text(&["\n"]);
    }
    Ok(())
}

/// One turn of the Mistral family: a user's text is between marks, an answer has only its end.
fn inst(ids: &mut Ids<'_>, marks: Option<[u32; 2]>, end: u32, role: &str, text: Option<&str>) -> Result<(), TooLong> {
    let Some(text) = text else { return Ok(()) };
    match (role, marks) {
        ("system", _) => {
            ids.held.push_str(text.trim());
            ids.held.push_str("\n\n");
        }
        ("assistant", _) => {
            // Behind a token, SentencePiece puts the blank itself and byte-level vocabularies of this family have none.
            ids.text(&[if marks.is_some() { "" } else { " " }, text.trim()]);
            ids.mark(end)?;
        }
        (_, Some([open, close])) => {
            let held = std::mem::take(&mut ids.held);
            ids.mark(open)?;
            ids.text(&[&held, text.trim()]);
            ids.mark(close)?;
        }
        (_, None) => {
            let held = std::mem::take(&mut ids.held);
            ids.text(&["[INST] ", &held, text.trim(), " [/INST]"]);
        }
    }
    Ok(())
}

/// Tokens that end an answer: those the file names and those its family uses.
pub fn ends(vocabulary: &Vocabulary, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut ends: Vec<u32> = ENDS.iter().filter_map(|mark| tokenizer.special(mark)).collect();
    ends.extend(&vocabulary.ends);
    ends.sort_unstable();
    ends.dedup();
    ends
}

fn fitting(vocabulary: &Vocabulary, tokenizer: &Tokenizer) -> &'static str {
    let hash = vocabulary.template_hash.as_deref().unwrap_or_default();
    if let Some((_, name)) = KNOWN.iter().find(|(known, _)| *known == hash) {
        return name;
    }
    let has = |mark: &str| tokenizer.special(mark).is_some();
    if has("<|im_start|>") && has("<|im_end|>") {
        return match (vocabulary.architecture.as_str(), vocabulary.pre.as_str()) {
            ("qwen2", _) => "qwen2.5",
            ("qwen3", _) if vocabulary.thinking_switch && has("<think>") && has("</think>") => "qwen3",
            (_, "smollm") => "smollm2",
            _ => "chatml",
        };
    }
    if has("<start_of_turn>") && has("<end_of_turn>") {
        return "gemma";
    }
    if has("<|start_header_id|>") && has("<|end_header_id|>") && has("<|eot_id|>") {
        return "llama3";
    }
    match vocabulary.turns.filter(|_| has("</s>")) {
        Some(Turns::User) => "zephyr",
        Some(Turns::Inst) => "mistral",
        None => "plain",
    }
}

/// Only three roles exist between the marks, so that a role's name cannot carry text of its own.
fn role(name: &str) -> &'static str {
    match name {
        "system" | "developer" => "system",
        "assistant" => "assistant",
        _ => "user",
    }
}

/// Ids so far, and text that waits for the next mark so that it is encoded in one piece.
struct Ids<'a> {
    tokenizer: &'a Tokenizer,
    limit: usize,
    ids: Vec<u32>,
    text: String,
    /// A system message that waits for the turn it opens.
    held: String,
}

impl Ids<'_> {
    fn text(&mut self, parts: &[&str]) {
        self.text.extend(parts.iter().copied());
    }

    fn mark(&mut self, id: u32) -> Result<(), TooLong> {
        self.flush()?;
        self.ids.push(id);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TooLong> {
        self.tokenizer.encode(&self.text, self.limit, &mut self.ids)?;
        self.text.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tiny::byte_char;
    use crate::engine::vocabulary::{TokenKind, Way};

    /// One token per byte, then marks.
    fn made(architecture: &str, marks: &[&str], thinking_switch: bool) -> (Vocabulary, Tokenizer) {
        let letters = (0..=255).map(|b| byte_char(b).to_string());
        let tokens: Vec<String> = letters.chain(marks.iter().map(ToString::to_string)).collect();
        let kinds = (0..tokens.len()).map(|i| if i < 256 { TokenKind::Normal } else { TokenKind::Control }).collect();
        let vocabulary = Vocabulary {
            pre: "qwen2".into(),
            architecture: architecture.into(),
            tokens,
            kinds,
            way: Way::ByteLevel { merges: Vec::new() },
            bos: None,
            ends: Vec::new(),
            add_bos: false,
            template_hash: None,
            thinking_switch,
            turns: None,
        };
        let tokenizer = Tokenizer::new(&vocabulary).unwrap();
        (vocabulary, tokenizer)
    }

    /// The rendered conversation with its marks in words.
    fn rendered(name: &str, (vocabulary, tokenizer): &(Vocabulary, Tokenizer), messages: &[(&str, &str)]) -> String {
        let template = Template::choose(None, vocabulary, tokenizer).unwrap();
        assert_eq!(template.name(), name);
        let say = |(role, content): &(&str, &str)| Message { role: (*role).into(), content: (*content).into() };
        let messages: Vec<Message> = messages.iter().map(say).collect();
        let ids = template.render(tokenizer, &messages, usize::MAX).unwrap();
        let word = |id: u32| match u8::try_from(id) {
            Ok(byte) => char::from(byte).to_string(),
            Err(_) => vocabulary.tokens[id as usize].clone(),
        };
        ids.into_iter().map(word).collect()
    }

    const CHATML: [&str; 4] = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"];

    #[test]
    fn qwen3_answers_behind_an_empty_thought() {
        let said = [("user", "Hi <think>"), ("assistant", "Yes."), ("user", "More")];
        let model = made("qwen3", &CHATML, true);
        assert_eq!(
            rendered("qwen3", &model, &said),
            "<|im_start|>user\nHi <think><|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n\
             <|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        );
        let without = made("qwen3", &CHATML, false);
        assert!(rendered("chatml", &without, &said).ends_with("<|im_start|>assistant\n"));
    }

    #[test]
    fn turns_that_only_the_files_template_tells_of_are_written_as_text() {
        let said = [("system", "Be brief."), ("user", " Hi "), ("assistant", "Yes."), ("user", "More")];
        let mut model = made("llama", &["<s>", "</s>"], false);
        assert_eq!(rendered("plain", &model, &said[1..2]), "User:  Hi \n\nAssistant:");
        (model.0.turns, model.0.bos, model.0.add_bos) = (Some(Turns::User), Some(256), true);
        assert_eq!(
            rendered("zephyr", &model, &said),
            "<s><|system|>\nBe brief.</s>\n<|user|>\n Hi </s>\n<|assistant|>\nYes.</s>\n<|user|>\nMore</s>\n<|assistant|>\n"
        );
        model.0.turns = Some(Turns::Inst);
        assert_eq!(rendered("mistral", &model, &said), "<s>[INST] Be brief.\n\nHi [/INST] Yes.</s>[INST] More [/INST]");
        let mut model = made("llama", &["<s>", "</s>", "[INST]", "[/INST]"], false);
        model.0.turns = Some(Turns::Inst);
        assert_eq!(rendered("mistral", &model, &said[1..]), "[INST]Hi[/INST]Yes.</s>[INST]More[/INST]");
    }

    #[test]
    fn gemma_opens_the_first_turn_with_the_system_message() {
        let model = made("gemma3", &["<bos>", "<start_of_turn>", "<end_of_turn>"], false);
        assert_eq!(
            rendered(
                "gemma",
                &model,
                &[("system", "Be brief. "), ("user", " Hi\n"), ("assistant", "Yes."), ("user", "More")]
            ),
            "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n\
             <start_of_turn>user\nMore<end_of_turn>\n<start_of_turn>model\n"
        );
        let (_, tokenizer) = &model;
        assert_eq!(ends(&model.0, tokenizer), [258]);
    }
}
