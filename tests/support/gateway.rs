//! A whole gateway in this process: its own folder, its own ports, the canary keys.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use wattroute::app::{App, Running};
use wattroute::config::{self, Around};
use wattroute::journal::export::{Format, export};

use super::http::Reply;
use super::rude::{self, Rude};
use super::{canary, tls::Authority};

/// A running gateway. Every test ends it with [`Gateway::finish`], which looks for canaries and returns the journal.
pub struct Gateway {
    /// Where clients connect.
    pub data: SocketAddr,
    /// Where `/metrics` is.
    pub admin: SocketAddr,
    /// Journal and certificates.
    pub folder: TempDir,
    running: Option<Running>,
}

/// A gateway that is not started yet.
pub struct Plan {
    /// Holds the files that the configuration names.
    pub folder: TempDir,
    text: String,
    overrides: Vec<(String, String)>,
}

impl Plan {
    /// One worker, three client keys (the last one private), a journal; `text` adds the rest.
    pub fn new(text: &str) -> Self {
        let hash = |key: &str| blake3::hash(key.as_bytes()).to_hex();
        let text = format!(
            r#"
[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 1
grace = "2s"

[[server.keys]]
tenant = "tests"
hash = "{}"

[[server.keys]]
tenant = "others"
hash = "{}"

[[server.keys]]
tenant = "secretive"
hash = "{}"
private = true

[journal]
path = "journal.db"
{text}
"#,
            hash(canary::CLIENT_KEY),
            hash(canary::OTHER_KEY),
            hash(canary::PRIVATE_KEY),
        );
        Self { folder: tempfile::tempdir().unwrap(), text, overrides: Vec::new() }
    }

    /// Overrides one key, as the environment does: `server.workers`, `2`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let name = format!("WATTROUTE__{}", key.replace('.', "__").to_uppercase());
        self.overrides.push((name, value.to_owned()));
        self
    }

    /// Without client keys: an open listener on loopback.
    pub fn keyless(mut self) -> Self {
        let (start, end) = (self.text.find("[[server.keys]]").unwrap(), self.text.find("[journal]").unwrap());
        self.text.replace_range(start..end, "");
        self
    }

    /// Adds to the file.
    pub fn with(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// An authority whose root is `ca.pem` beside the configuration file.
    pub fn authority(&self) -> Authority {
        Authority::new(self.folder.path())
    }

    /// The checked configuration.
    pub fn config(&self) -> wattroute::config::Config {
        let mut vars = vec![("FAR_KEY", canary::CLOUD_KEY)];
        vars.extend(self.overrides.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let mut around = Around::fixed(&vars, self.folder.path());
        around.base = self.folder.path().to_owned();
        config::parse_with(&self.text, None, &around).unwrap_or_else(|problems| panic!("{problems}\n{}", self.text))
    }

    /// Starts it.
    pub async fn start(self) -> Gateway {
        canary::listen();
        tracing::trace!("a gateway starts");
        let running = App::start(self.config()).await.unwrap_or_else(|why| panic!("{why}"));
        Gateway { data: running.data, admin: running.admin, folder: self.folder, running: Some(running) }
    }
}

/// `[backends.NAME]` of a local server.
pub fn local(name: &str, base: &str) -> String {
    format!("\n[backends.{name}]\nplace = \"local\"\nbase_url = \"{base}\"\nmodel = \"{name}-model\"\n")
}

/// `[backends.NAME]` of a cloud endpoint with the canary key.
pub fn cloud(name: &str, base: &str) -> String {
    format!(
        "\n[backends.{name}]\nplace = \"cloud\"\nbase_url = \"{base}\"\nmodel = \"{name}-model\"\nkey_env = \"FAR_KEY\"\n"
    )
}

impl Gateway {
    /// One cloud backend, `cloud/far`.
    pub async fn before(base: &str) -> Self {
        Plan::new(&cloud("far", base)).start().await
    }

    /// What its requests share.
    pub fn app(&self) -> &Arc<App> {
        &self.running.as_ref().unwrap().app
    }

    /// Sends one request on its own connection and reads the answer as far as it comes.
    pub async fn ask(&self, request: &[u8]) -> Reply {
        let mut client = Rude::connect(self.data).await;
        client.send(request).await;
        client.reply().await
    }

    /// A chat with the canary prompt.
    pub async fn chat(&self, model: &str, stream: bool) -> Reply {
        self.ask(&rude::request("POST", "/v1/chat/completions", &rude::chat(model, stream))).await
    }

    /// A chat with this body.
    pub async fn post(&self, body: &Value) -> Reply {
        self.ask(&rude::request("POST", "/v1/chat/completions", body.to_string().as_bytes())).await
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> String {
        let mut client = Rude::connect(self.admin).await;
        client.send(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.text()
    }

    /// Stops it and looks for canaries; for a gateway whose journal cannot be read.
    pub async fn end(mut self) -> TempDir {
        canary::absent("metrics", self.metrics().await.as_bytes());
        if let Some(running) = self.running.take() {
            running.shutdown().await;
        }
        canary::silent();
        look_through(self.folder.path());
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// Stops it, looks for canaries in metrics, log and every file that it wrote, and returns the journal's entries.
    pub async fn finish(self) -> Vec<Value> {
        let file = self.folder.path().join("journal.db");
        let folder = self.end().await;
        let entries = journal(&file).await;
        drop(folder);
        entries
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        assert!(self.running.is_none() || std::thread::panicking(), "a test must finish its gateway");
    }
}

fn look_through(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            look_through(&path);
        } else {
            canary::absent(&path.display().to_string(), &std::fs::read(&path).unwrap_or_default());
        }
    }
}

/// Entries of a journal, oldest first, as an export gives them.
pub async fn journal(path: &Path) -> Vec<Value> {
    if !path.exists() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    export(path, 0, Format::Jsonl, &mut lines).await.unwrap();
    let text = String::from_utf8(lines).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
