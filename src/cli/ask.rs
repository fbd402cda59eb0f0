//! `wattroute ask TEXT`: one question through the whole gateway, answer and decision printed.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;

use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use super::serve;
use crate::app::App;
use crate::fetch::{self, Redirects};

/// Ask one question through the gateway and print answer and decision
#[derive(clap::Args)]
#[command(after_help = "Examples:
  wattroute ask \"What is the capital of France?\"
  wattroute ask --model auto:green --max-tokens 200 \"Explain tides\"
  wattroute ask --url http://127.0.0.1:8080 \"Is the gateway up?\"")]
pub struct Args {
    /// The question
    text: String,
    /// Model name: auto, auto:PRESET, local/NAME, cloud/NAME or an alias
    #[arg(long, default_value = "auto")]
    model: String,
    /// Most tokens of the answer
    #[arg(long, default_value_t = 256)]
    max_tokens: u32,
    /// A running gateway; without it one is started for this question
    #[arg(long)]
    url: Option<String>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(config: Option<&Path>, args: &Args) -> ExitCode {
    super::block_on(async {
        if let Some(url) = &args.url {
            return ask(args, url.trim_end_matches('/')).await.unwrap_or_else(|e| super::fail(&e));
        }
        let mut checked = match serve::checked(config) {
            Ok(checked) => checked,
            Err(code) => return code,
        };
        serve::fetch_missing(&checked).await;
        // This process alone asks: any free port of this machine, no TLS and no client key.
        checked.server.listen = (Ipv4Addr::LOCALHOST, 0).into();
        checked.server.admin = checked.server.listen;
        checked.server.tls = None;
        checked.server.keys.clear();
        let running = match App::start(checked).await {
            Ok(running) => running,
            Err(e) => return super::fail(&e),
        };
        let code = ask(args, &format!("http://{}", running.data)).await.unwrap_or_else(|e| super::fail(&e));
        running.shutdown().await;
        code
    })
}

async fn ask(args: &Args, base: &str) -> Result<ExitCode, String> {
    let body = json!({
        "model": args.model, "stream": !args.json, "max_tokens": args.max_tokens,
        "messages": [{ "role": "user", "content": args.text }],
    });
    let client = fetch::client(Redirects::Never).map_err(|e| e.to_string())?;
    let sent = client.post(format!("{base}/v1/chat/completions")).json(&body).send().await;
    let response = sent.map_err(|e| format!("{base} did not answer: {}", e.without_url()))?;
    let told: Vec<(String, String)> = response
        .headers()
        .iter()
        .filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("x-wattroute-")?;
            Some((name.to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect();
    let good = response.status().is_success();
    if args.json || !good {
        let answer: Value = response.json().await.map_err(|e| e.without_url().to_string())?;
        if let Some(why) = answer.pointer("/error/message").and_then(Value::as_str).filter(|_| !args.json) {
            return Err(why.to_owned());
        }
        let decision: Map<String, Value> = told.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
        println!("{}", json!({ "answer": answer, "decision": decision }));
        return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let whole = print_stream(response).await?;
    println!("\n");
    for (name, value) in told {
        println!("{name:>14}: {value}");
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints deltas as they come; false if the answer broke off.
async fn print_stream(response: reqwest::Response) -> Result<bool, String> {
    let mut bytes = response.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(chunk) = bytes.next().await {
        let Ok(chunk) = chunk else {
            eprintln!("\nthe answer broke off");
            return Ok(false);
        };
        buffer.extend_from_slice(&chunk);
        while let Some(end) = memchr::memchr(b'\n', &buffer) {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data: ") else { continue };
            let Ok(event) = serde_json::from_slice::<Value>(data) else { continue };
            if let Some(text) = event.pointer("/choices/0/delta/content").and_then(Value::as_str) {
                print!("{text}");
                std::io::stdout().flush().map_err(|e| e.to_string())?;
            }
            if let Some(error) = event.pointer("/error/message").and_then(Value::as_str) {
                eprintln!("\n{error}");
                return Ok(false);
            }
        }
    }
    Ok(true)
}
