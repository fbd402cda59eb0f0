//! `wattroute bandit`: what judged answers taught, and the ways to stop it or take it back.
//!
//! A running gateway is asked on its admin listener; where none listens the file beside the journal is read or changed.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{say, serve};
use crate::bandit::{self, facts, read, write};
use crate::config::Config;
use crate::fetch::{self, Redirects};

/// A gateway on this machine answers in milliseconds.
const WAIT: Duration = Duration::from_secs(10);

/// Arguments of `wattroute bandit`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  wattroute bandit                what was learned, by backend and domain
  wattroute bandit freeze         learn nothing more; what is known stays in force
  wattroute bandit rollback       back to the last hourly point, or to nothing learned

A policy learns from judged answers where it has a [bandit] section: see policies/bandit.toml.")]
pub struct BanditArgs {
    /// What to do
    #[arg(value_enum, default_value_t = Action::Show)]
    action: Action,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// What is known of each backend
    Show,
    /// Learn nothing more
    Freeze,
    /// Learn again
    Thaw,
    /// Forget what came since the last point
    Rollback,
}

/// Runs the command: 0 done, 1 failed, 78 bad configuration.
pub fn run(file: Option<&Path>, args: &BanditArgs) -> ExitCode {
    let config = match serve::checked(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    super::block_on(async {
        let found = match asked(&config, args.action).await {
            Some(found) => found,
            None => by_file(&config, args.action),
        };
        match found {
            Ok(facts) => {
                say(&if args.json { format!("{facts:#}\n") } else { text(&facts) });
                ExitCode::SUCCESS
            }
            Err(why) => super::fail(&why),
        }
    })
}

/// What a running gateway says; none where nothing listens.
async fn asked(config: &Config, action: Action) -> Option<Result<Value, String>> {
    let base = format!("http://{}/admin/bandit", config.server.admin);
    let client = match fetch::client(Redirects::Never) {
        Ok(client) => client,
        Err(e) => return Some(Err(e.to_string())),
    };
    let request = match action {
        Action::Show => client.get(base),
        Action::Freeze => client.post(base + "/freeze"),
        Action::Thaw => client.post(base + "/thaw"),
        Action::Rollback => client.post(base + "/rollback"),
    };
    let response = match request.timeout(WAIT).send().await {
        Ok(response) => response,
        Err(e) if e.is_connect() => return None,
        Err(e) => return Some(Err(e.without_url().to_string())),
    };
    let good = response.status().is_success();
    let told: Result<Value, String> = response.json().await.map_err(|e| e.without_url().to_string());
    Some(told.and_then(|told| {
        let why = told.pointer("/error/message").and_then(Value::as_str).unwrap_or("what listens there is no gateway");
        if good { Ok(told) } else { Err(why.to_owned()) }
    }))
}

fn by_file(config: &Config, action: Action) -> Result<Value, String> {
    let path = bandit::path(&config.journal.path);
    let mut kept = read(&path)?;
    match action {
        Action::Show => return Ok(facts(&kept)),
        Action::Freeze => kept.frozen = true,
        Action::Thaw => kept.frozen = false,
        Action::Rollback => kept.roll_back(),
    }
    write(&path, &kept)?;
    Ok(facts(&kept))
}

fn text(facts: &Value) -> String {
    let frozen = facts["frozen"] == true;
    let mut out =
        format!("learning from judged answers: {}\n", if frozen { "frozen" } else { "on, where a policy asks" });
    for (name, arm) in facts["backends"].as_object().into_iter().flatten() {
        out += &format!("{name}: {} judgements\n", arm["judgements"]);
        for (domain, l) in arm["domains"].as_object().into_iter().flatten() {
            let number = |key: &str| l[key].as_f64().unwrap_or(0.0);
            out += &format!("  {:+.2} (width {:.2})  {domain}\n", number("shift"), number("width"));
        }
    }
    let points = facts["points_unix_ms"].as_array().map_or(0, Vec::len);
    out + &format!("{points} points to go back to\n")
}
