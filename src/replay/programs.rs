//! What other programs call what a replay needs of their logs. Pure.

/// A log of JSON objects.
#[derive(Debug)]
pub struct Shape {
    /// What it is called in output and after `--format`.
    pub name: &'static str,
    /// Keys that its objects have.
    pub(super) needs: &'static [&'static str],
    pub(super) id: &'static [&'static str],
    pub(super) at: &'static [&'static str],
    pub(super) text: &'static [&'static str],
    pub(super) input: &'static [&'static str],
    pub(super) output: &'static [&'static str],
}

/// The format of wattroute's own journal.
pub const JOURNAL: &str = "journal";

/// Told apart in this order.
pub const SHAPES: [Shape; 9] = [
    Shape {
        name: JOURNAL,
        needs: &["decision_id", "arrived_ms"],
        // Read by `own`.
        id: &[],
        at: &[],
        text: &[],
        input: &[],
        output: &[],
    },
    Shape {
        name: "openai-batch",
        needs: &["custom_id"],
        id: &["/custom_id"],
        at: &["/response/body/created"],
        text: &["/body/messages"],
        input: &["/response/body/usage/prompt_tokens"],
        output: &["/response/body/usage/completion_tokens"],
    },
    Shape {
        name: "litellm",
        needs: &["spend", "startTime"],
        id: &["/request_id"],
        at: &["/startTime"],
        text: &["/messages"],
        input: &["/prompt_tokens"],
        output: &["/completion_tokens"],
    },
    Shape {
        name: "helicone",
        needs: &["request_created_at"],
        id: &["/request_id", "/id"],
        at: &["/request_created_at"],
        text: &["/request_body/messages", "/prompt"],
        input: &["/prompt_tokens"],
        output: &["/completion_tokens"],
    },
    Shape {
        name: "langfuse",
        needs: &["startTime", "input"],
        id: &["/id", "/traceId"],
        at: &["/startTime"],
        text: &["/input/messages", "/input"],
        input: &["/usageDetails/input", "/usage/input", "/usage/promptTokens", "/promptTokens", "/inputUsage"],
        output: &[
            "/usageDetails/output",
            "/usage/output",
            "/usage/completionTokens",
            "/completionTokens",
            "/outputUsage",
        ],
    },
    Shape {
        name: "mooncake",
        needs: &["input_length", "output_length"],
        id: &[],
        at: &["/timestamp"],
        text: &[],
        input: &["/input_length"],
        output: &["/output_length"],
    },
    Shape {
        name: "wildchat",
        needs: &["conversation"],
        id: &["/conversation_hash", "/conversation_id", "/id"],
        at: &["/timestamp", "/tstamp"],
        text: &["/conversation"],
        input: &[],
        output: &[],
    },
    Shape {
        name: "sharegpt",
        needs: &["conversations"],
        id: &["/id"],
        at: &["/timestamp"],
        text: &["/conversations"],
        input: &[],
        output: &[],
    },
    Shape {
        name: "chat",
        needs: &["messages"],
        id: &["/id"],
        at: &["/created", "/timestamp"],
        text: &["/messages"],
        input: &["/usage/prompt_tokens", "/prompt_tokens"],
        output: &["/usage/completion_tokens", "/completion_tokens"],
    },
];
