//! `[server]` to a checked [`Server`]: addresses, TLS, client keys, and what an address beyond this machine needs.

use std::sync::Arc;
use std::time::Duration;

use super::address::listener;
use super::backends::{check_name, hex_of};
use super::checked::{ClientKey, Server, Tls};
use super::env::Around;
use super::problem::Problems;
use super::raw;
use super::resolve::{path_in, span, variable, whole};

/// Shortest client key, characters: 128 bits when random hex.
const CLIENT_KEY_CHARS: usize = 16;

/// Checks listeners, keys and TLS together, because each allows or forbids the others.
pub fn server(raw: &raw::Server, around: &Around, problems: &mut Problems) -> Option<Server> {
    let listen = problems.keep("server.listen", listener(raw.listen.as_deref().unwrap_or("127.0.0.1:8080")));
    let admin = problems.keep("server.admin", listener(raw.admin.as_deref().unwrap_or("127.0.0.1:9090")));
    let workers = whole(raw.workers, 0, 0, 1024, "server.workers", problems);
    let grace = span(raw.grace.as_deref(), Duration::from_secs(30), (0, 3_600_000), "server.grace", problems);
    let tls = tls(&raw.tls, around, problems);
    let keys = client_keys(&raw.keys, around, problems);
    let public = listen.is_some_and(|a| !a.ip().is_loopback());
    if public && raw.keys.is_empty() {
        problems.add(
            "server.keys",
            "an address beyond this machine needs client keys: add [[server.keys]], or listen on 127.0.0.1",
        );
    }
    let bare = raw.tls.cert.is_none() && raw.tls.key.is_none();
    if public && bare && raw.plain_http != Some(true) {
        problems.add(
            "server.tls",
            "an address beyond this machine needs TLS: set cert and key, or listen on 127.0.0.1; \
             plain_http = true says that a proxy in front ends TLS",
        );
    }
    if admin.is_some_and(|a| !a.ip().is_loopback()) && raw.admin_open != Some(true) {
        problems.add(
            "server.admin",
            "has no keys of its own and must be on this machine; admin_open = true says that the network is trusted",
        );
    }
    if listen.is_some_and(|a| a.port() != 0) && listen == admin {
        problems.add("server.admin", "must differ from server.listen");
    }
    let workers: usize = workers?;
    let workers = if workers == 0 { around.cores } else { workers };
    Some(Server { listen: listen?, admin: admin?, workers, tls: tls?, keys: keys?, grace: grace? })
}

fn tls(raw: &raw::Tls, around: &Around, problems: &mut Problems) -> Option<Option<Tls>> {
    match (&raw.cert, &raw.key) {
        (None, None) => Some(None),
        (Some(cert), Some(key)) => {
            let cert = path_in(around, cert, "server.tls.cert", problems);
            let key = path_in(around, key, "server.tls.key", problems);
            Some(Some(Tls { cert: cert?, key: key? }))
        }
        (cert, _) => {
            let missing = if cert.is_some() { "key" } else { "cert" };
            problems.add(format!("server.tls.{missing}"), "is missing: TLS needs cert and key, both PEM files");
            None
        }
    }
}

fn client_keys(raw: &[raw::ClientKey], around: &Around, problems: &mut Problems) -> Option<Vec<ClientKey>> {
    let mut keys: Vec<ClientKey> = Vec::new();
    for (i, one) in raw.iter().enumerate() {
        let at = format!("server.keys[{i}]");
        let tenant = match one.tenant.as_deref() {
            Some(t) => problems.keep(&format!("{at}.tenant"), check_name(t).map(|()| Arc::from(t))),
            None => problems.keep(&format!("{at}.tenant"), Err("is missing: who uses this key".to_owned())),
        };
        let hash = client_hash(one, &at, around, problems);
        let (Some(tenant), Some(hash)) = (tenant, hash) else { continue };
        if keys.iter().any(|k| k.hash == hash) {
            problems.add(at, "is the same key as an earlier one");
            continue;
        }
        keys.push(ClientKey { tenant, hash, private: one.private.unwrap_or(false) });
    }
    (keys.len() == raw.len()).then_some(keys)
}

fn client_hash(raw: &raw::ClientKey, at: &str, around: &Around, problems: &mut Problems) -> Option<[u8; 32]> {
    let given = [raw.hash.is_some(), raw.key_env.is_some(), raw.key_file.is_some()];
    if given.iter().filter(|g| **g).count() != 1 {
        problems.add(at, "needs exactly one of hash (BLAKE3 of the key, 64 hex digits), key_env or key_file");
        return None;
    }
    if let Some(hash) = &raw.hash {
        let hex = problems.keep(&format!("{at}.hash"), hex_of(hash, 64))?;
        return blake3::Hash::from_hex(hex).ok().map(Into::into);
    }
    let (at, text) = if let Some(name) = &raw.key_env {
        let at = format!("{at}.key_env");
        let name = problems.keep(&at, variable(name))?;
        let value = (around.var)(name).ok_or_else(|| format!("{name} is not set"));
        (at.clone(), problems.keep(&at, value)?)
    } else {
        let at = format!("{at}.key_file");
        let file = path_in(around, raw.key_file.as_deref().unwrap_or_default(), &at, problems)?;
        let text = std::fs::read_to_string(file).map_err(|e| format!("cannot be read: {}", e.kind()));
        (at.clone(), problems.keep(&at, text)?)
    };
    let key = text.trim();
    if key.len() < CLIENT_KEY_CHARS || !key.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        problems.add(at, "a client key has at least 16 printable ASCII characters without spaces");
        return None;
    }
    Some(*blake3::hash(key.as_bytes()).as_bytes())
}
