//! What a GGUF file says about its tokens, checked before anything is built from it.
//!
//! Invariants: every merge joins two tokens of the vocabulary into a third, so that building the merge table cannot fail
//! later; every score is a finite number, and there is one for each token. The file's chat template is only recognised (by its hash and one word); it is never rendered.

use std::collections::HashSet;

use crate::engine::metadata::Metadata;
use crate::engine::types::EngineError;

/// Token tables of a file.
pub struct Vocabulary {
    /// How text becomes tokens.
    pub way: Way,
    /// Pre-tokenizer name, such as `smollm` or `qwen2`.
    pub pre: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Token strings by id, ordinary ones in the spelling of `way`.
    pub tokens: Vec<String>,
    /// Kind by id, as long as `tokens`.
    pub kinds: Vec<TokenKind>,
    /// Beginning of sequence.
    pub bos: Option<u32>,
    /// Ends of a turn or text that the file declares.
    pub ends: Vec<u32>,
    /// Whether plain text starts with `bos`.
    pub add_bos: bool,
    /// BLAKE3 of the file's chat template, in hex.
    pub template_hash: Option<String>,
    /// Whether that template lets its caller switch thinking off.
    pub thinking_switch: bool,
    /// Whether that template writes `<|user|>` before a user's turn, or `[INST]`.
    pub turns: Option<Turns>,
}

/// Marks of turns that are ordinary text in some vocabularies, so that only the template tells of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// `<|user|>`
    User,
    /// `[INST]`
    Inst,
}

/// How text becomes tokens: `tokenizer.ggml.model`.
pub enum Way {
    /// `gpt2`: byte-level BPE, with its pairs in rank order.
    ByteLevel {
        /// Pairs in rank order.
        merges: Vec<(String, String)>,
    },
    /// `llama`: pieces of SentencePiece, joined by score.
    SentencePiece {
        /// A score for each token.
        scores: Vec<f32>,
        /// Whether a blank is put before text.
        space_prefix: bool,
    },
}

impl Vocabulary {
    /// Ids and texts of the tokens of a kind.
    pub fn of(&self, kind: TokenKind) -> impl Iterator<Item = (u32, &str)> {
        let all = (0_u32..).zip(&self.tokens).zip(&self.kinds);
        all.filter(move |(_, k)| **k == kind).map(|((id, token), _)| (id, token.as_str()))
    }

    /// What text starts with, if with anything.
    pub fn opening(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// The byte that a byte token stands for: `<0x0A>`.
    pub fn byte(&self, id: u32) -> Option<u8> {
        let token = self.tokens.get(usize::try_from(id).ok()?)?;
        u8::from_str_radix(token.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Text that the merges can produce.
    Normal,
    /// A mark that only a template may place; shown as nothing.
    Control,
    /// A mark added by the model's authors; shown as its text, never made from a user's text.
    UserDefined,
    /// A byte that has no piece of its own, spelled `<0x0A>`.
    Byte,
    /// A hole in the table.
    Unused,
}

impl TokenKind {
    /// The GGUF number: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    pub(crate) fn of(number: i64) -> Self {
        match number {
            1 => Self::Normal,
            6 => Self::Byte,
            4 => Self::UserDefined,
            5 => Self::Unused,
            _ => Self::Control,
        }
    }
}

/// Reads the tables; every problem names the key.
pub fn read(metadata: &Metadata) -> Result<Vocabulary, EngineError> {
    let tokens = metadata.texts("tokenizer.ggml.tokens").ok_or_else(|| bad("tokenizer.ggml.tokens", "is missing"))?;
    let way = way(metadata, tokens)?;
    let sentence_piece = matches!(way, Way::SentencePiece { .. });
    let template = metadata.text("tokenizer.chat_template");
    let says = |words: &str| template.is_some_and(|t| t.contains(words));
    let id = |key: &str| metadata.u32(key).filter(|id| usize::try_from(*id).is_ok_and(|at| at < tokens.len()));
    let pre = metadata.text("tokenizer.ggml.pre").unwrap_or("default");
    Ok(Vocabulary {
        pre: pre.to_owned(),
        architecture: metadata.text("general.architecture").unwrap_or_default().to_owned(),
        kinds: kinds(metadata, tokens.len())?,
        way,
        bos: id("tokenizer.ggml.bos_token_id"),
        ends: ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"].iter().filter_map(|key| id(key)).collect(),
        add_bos: metadata.bool("tokenizer.ggml.add_bos_token").unwrap_or(sentence_piece || pre == "llama-bpe"),
        template_hash: template.map(|t| blake3::hash(t.as_bytes()).to_hex().to_string()),
        thinking_switch: says("enable_thinking"),
        turns: if says("<|user|>") { Some(Turns::User) } else { says("[INST]").then_some(Turns::Inst) },
        tokens: tokens.to_vec(),
    })
}

fn way(metadata: &Metadata, tokens: &[String]) -> Result<Way, EngineError> {
    match metadata.text("tokenizer.ggml.model").unwrap_or("not named") {
        "gpt2" => Ok(Way::ByteLevel { merges: merges(metadata, tokens)? }),
        "llama" => Ok(Way::SentencePiece {
            scores: scores(metadata, tokens.len())?,
            space_prefix: metadata.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true),
        }),
        other => Err(EngineError::Load(format!(
            "the model's tokenizer is \"{}\"; supported are \"gpt2\" (byte-level BPE: SmolLM2, Qwen, Llama 3) and \"llama\" \
             (SentencePiece: Llama 2, TinyLlama, Gemma): use a model of these families, or serve this one with an external \
             server as an openai backend",
            clip(other)
        ))),
    }
}

fn scores(metadata: &Metadata, tokens: usize) -> Result<Vec<f32>, EngineError> {
    const KEY: &str = "tokenizer.ggml.scores";
    let scores = metadata.floats(KEY).ok_or_else(|| bad(KEY, "is missing"))?;
    if scores.len() != tokens {
        return Err(bad(KEY, &format!("has {} entries for {tokens} tokens", scores.len())));
    }
    match scores.iter().position(|score| !score.is_finite()) {
        Some(at) => Err(bad(KEY, &format!("is not a finite number in entry {at}"))),
        None => Ok(scores.to_vec()),
    }
}

fn kinds(metadata: &Metadata, tokens: usize) -> Result<Vec<TokenKind>, EngineError> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let Some(numbers) = metadata.ints(KEY) else {
        return Err(bad(KEY, "is missing, so that control tokens cannot be told from text"));
    };
    if numbers.len() != tokens {
        return Err(bad(KEY, &format!("has {} entries for {tokens} tokens", numbers.len())));
    }
    Ok(numbers.iter().copied().map(TokenKind::of).collect())
}

fn merges(metadata: &Metadata, tokens: &[String]) -> Result<Vec<(String, String)>, EngineError> {
    const KEY: &str = "tokenizer.ggml.merges";
    let known: HashSet<&str> = tokens.iter().map(String::as_str).collect();
    let lines = metadata.texts(KEY).ok_or_else(|| bad(KEY, "is missing"))?;
    let mut pairs = Vec::with_capacity(lines.len());
    let mut joined = String::new();
    for (rank, line) in lines.iter().enumerate() {
        let Some((left, right)) = line.split_once(' ') else {
            return Err(bad(KEY, &format!("has no space in entry {rank}")));
        };
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if ![left, right, joined.as_str()].iter().all(|part| known.contains(part)) {
            return Err(bad(KEY, &format!("entry {rank} joins tokens that the vocabulary lacks")));
        }
        pairs.push((left.to_owned(), right.to_owned()));
    }
    Ok(pairs)
}

fn bad(key: &str, what: &str) -> EngineError {
    EngineError::Load(format!("the model file's {key} {what}: fetch the file again or use another one"))
}

/// A file's own words in an error message, kept short and printable.
pub fn clip(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::metadata::Value;

    /// A SentencePiece vocabulary of three tokens with these scores.
    fn scored(scores: Option<Vec<f32>>) -> Metadata {
        let mut metadata = Metadata::default();
        let text = |t: &str| Value::Text(t.to_owned());
        metadata.insert("tokenizer.ggml.model".into(), text("llama"));
        metadata.insert("tokenizer.ggml.tokens".into(), Value::Texts(["<s>", "<0x0A>", "a"].map(str::to_owned).into()));
        metadata.insert("tokenizer.ggml.token_type".into(), Value::Ints(vec![3, 6, 1]));
        if let Some(scores) = scores {
            metadata.insert("tokenizer.ggml.scores".into(), Value::Floats(scores));
        }
        metadata
    }

    #[test]
    fn scores_that_do_not_fit_are_named() {
        let refused = |scores| read(&scored(scores)).err().unwrap().to_string();
        assert!(refused(None).contains("tokenizer.ggml.scores is missing"));
        assert!(refused(Some(vec![0.0])).contains("has 1 entries for 3 tokens"));
        assert!(refused(Some(vec![0.0, 0.0, f32::NAN])).contains("is not a finite number in entry 2"));
        let fine = read(&scored(Some(vec![0.0; 3]))).unwrap();
        assert_eq!((fine.byte(1), fine.byte(2)), (Some(b'\n'), None));
        assert!(fine.add_bos);
    }

    #[test]
    fn an_unknown_tokenizer_is_refused_with_what_is_read() {
        let mut metadata = Metadata::default();
        metadata.insert("tokenizer.ggml.model".into(), Value::Text("t5".into()));
        metadata.insert("tokenizer.ggml.tokens".into(), Value::Texts(Vec::new()));
        let refused = read(&metadata).err().unwrap().to_string();
        assert!(refused.contains("\"t5\"") && refused.contains("SentencePiece"), "{refused}");
    }
}
