//! `wattroute serve`: fetch what is missing, start, say where and what, run until a signal.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crate::app::{App, Running};
use crate::config::checked::{Embedded, Kind};
use crate::config::watch::{self, Watch};
use crate::config::{self, Config};
use crate::meter;
use crate::models::{self, ModelError, Progress, Store};

/// Exit code of a bad configuration (`EX_CONFIG`).
pub const BAD_CONFIG: u8 = 78;

/// Start the gateway (the default)
#[derive(clap::Args, Default)]
#[command(after_help = "Examples:
  wattroute serve
  wattroute serve --config examples/private.toml
  WATTROUTE__SERVER__LISTEN=127.0.0.1:9000 wattroute serve

SIGTERM or Ctrl-C lets running answers end first; a second one ends at once.")]
pub struct Args {
    /// Do not fetch models that are missing
    #[arg(long)]
    offline: bool,
}

/// Runs the command.
pub fn run(file: Option<&Path>, args: &Args) -> ExitCode {
    meter::log::init();
    let config = match checked(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    super::block_on(async {
        if !args.offline {
            fetch_missing(&config).await;
        }
        match App::start(config).await {
            Ok(running) => {
                announce(&running);
                let _watch = watch(&running);
                running.until_signal().await;
                ExitCode::SUCCESS
            }
            Err(e) => super::fail(&e),
        }
    })
}

/// The checked configuration, or its problems on standard error and exit code 78.
pub fn checked(file: Option<&Path>) -> Result<Config, ExitCode> {
    config::load(file).map_err(|problems| {
        eprintln!("{problems}");
        ExitCode::from(BAD_CONFIG)
    })
}

/// Fetches the models of embedded backends. One that cannot be had is said so and left to the start, which switches its
/// backend off.
pub async fn fetch_missing(config: &Config) {
    for backend in config.backends.iter().filter(|backend| backend.off.is_none()) {
        let Kind::Embedded(embedded) = &backend.kind else { continue };
        if let Err(e) = fetch(embedded).await {
            eprintln!("{}: {e}", backend.name);
        }
    }
}

async fn fetch(embedded: &Embedded) -> Result<(), ModelError> {
    let wanted = models::resolve(&embedded.model, embedded.sha256.as_deref())?;
    models::pull(&Store::of_user()?, &wanted, &Progress::stderr()).await.map(|_| ())
}

/// Reloads when the file changes; nothing to watch with the built-in configuration.
fn watch(running: &Running) -> Option<Watch> {
    let app = Arc::clone(&running.app);
    let state = running.app.state.load();
    state.config.file.as_ref()?;
    let watch = watch::watch(&state.config, move |changed| {
        let accepted = changed.map_err(|problems| problems.to_string()).and_then(|config| app.reload(config));
        meter::reload(accepted.is_ok());
        match accepted {
            Ok(restart) if restart.is_empty() => {}
            Ok(restart) => tracing::warn!(keys = restart.join(", "), "these keys change with a restart only"),
            Err(why) => tracing::error!(why, "new configuration refused; the old one stays"),
        }
    });
    watch.inspect_err(|why| tracing::warn!(why, "changes of the configuration are not noticed")).ok()
}

fn announce(running: &Running) {
    let state = running.app.state.load();
    let scheme = if state.config.server.tls.is_some() { "https" } else { "http" };
    println!("wattroute {}", env!("CARGO_PKG_VERSION"));
    println!("  API      {scheme}://{}/v1", running.data);
    println!("  admin    http://{}/metrics", running.admin);
    match &state.config.journal {
        journal if journal.enabled => println!("  journal  {}", journal.path.display()),
        _ => println!("  journal  off"),
    }
    println!("  policy   {} (presets: {})", state.config.policy.default, presets(&state.config));
    for backend in &state.backends {
        match backend.off() {
            None => println!("  on       {}: {}", backend.config.name, backend.about()),
            Some(why) => println!("  off      {}: {why}", backend.config.name),
        }
    }
    if !state.config.server.keys.is_empty() {
        println!("\nClients need a key: -H 'authorization: Bearer KEY'");
    }
    println!("\nTry it:\n  {}", curl(scheme, &running.data.to_string()));
}

/// A line that works as printed in any shell.
fn curl(scheme: &str, addr: &str) -> String {
    format!(
        "curl -si {scheme}://{addr}/v1/chat/completions -H 'content-type: application/json' \
         -d '{{\"model\":\"auto\",\"messages\":[{{\"role\":\"user\",\"content\":\"What is the capital of France?\"}}],\"max_tokens\":32}}'"
    )
}

fn presets(config: &Config) -> String {
    let names: Vec<Arc<str>> = config.policy.presets.keys().map(|name| Arc::from(format!("auto:{name}"))).collect();
    names.join(", ")
}
