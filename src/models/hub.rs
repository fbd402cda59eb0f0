//! A file from the model hub, gone on with where a broken download stopped.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, RANGE};

use crate::fetch::{self, Redirects};
use crate::models::digest::{Digest, Running};
use crate::models::{Progress, Wanted, store};

/// Hops from the hub to its storage.
const REDIRECTS: usize = 5;
/// Requests for one file: a download that keeps breaking gains ground with each.
const ATTEMPTS: usize = 5;
/// Pause before another attempt.
const PAUSE: Duration = Duration::from_secs(1);
/// A file of unknown size may have this many bytes: 64 GiB.
const MAX_BYTES: u64 = 64 << 30;

/// Why an attempt ended without the whole file.
enum Broken {
    /// Another attempt may go on from here.
    Again(String),
    /// It would fail alike.
    Final(String),
}

/// Downloads to `part` and returns the hash of what is there. `part` stays for the next try when this one fails.
pub async fn fetch(url: &str, part: &Path, wanted: &Wanted, progress: &Progress) -> Result<Digest, String> {
    let client = fetch::client(Redirects::Https(REDIRECTS)).map_err(|e| reason(&e))?;
    progress.start(&format!("fetching {}", wanted.name), wanted.bytes);
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            progress.note(&format!("{last}; trying again"));
            tokio::time::sleep(PAUSE).await;
        }
        match once(&client, url, part, wanted, progress).await {
            Ok(digest) => {
                progress.end();
                return Ok(digest);
            }
            Err(Broken::Final(why)) => return Err(why),
            Err(Broken::Again(why)) => last = why,
        }
    }
    Err(format!("{last}; what came is kept, and the next pull goes on from there"))
}

async fn once(
    client: &reqwest::Client,
    url: &str,
    part: &Path,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<Digest, Broken> {
    let stop = |e: std::io::Error| Broken::Final(format!("{}: {e}", part.display()));
    let mut file = store::open_new(part, false).map_err(stop)?;
    let (mut running, mut have) = read_again(&mut file).map_err(stop)?;
    if wanted.bytes == Some(have) {
        return Ok(running.finish());
    }
    if wanted.bytes.is_some_and(|bytes| have > bytes) {
        (running, have) = restart(&mut file).map_err(stop)?;
    }
    let request = client.get(url);
    let request = if have > 0 { request.header(RANGE, format!("bytes={have}-")) } else { request };
    let response = request.send().await.map_err(|e| match reason(&e) {
        why if e.is_redirect() || e.is_builder() => Broken::Final(why),
        why => Broken::Again(why),
    })?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT if starts_at(&response) == Some(have) => {}
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
            restart(&mut file).map_err(stop)?;
            return Err(Broken::Again("the server did not go on where the download stopped".to_owned()));
        }
        StatusCode::OK => (running, have) = restart(&mut file).map_err(stop)?,
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            return Err(Broken::Again(format!("the server answered {status}")));
        }
        status => return Err(Broken::Final(format!("the server answered {status}"))),
    }
    let total = wanted.bytes.or_else(|| response.content_length().map(|rest| rest.saturating_add(have)));
    let most = total.unwrap_or(MAX_BYTES).min(MAX_BYTES);
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|e| Broken::Again(reason(&e)))?;
        have = have.saturating_add(chunk.len() as u64);
        if have > most {
            let _ = restart(&mut file);
            return Err(Broken::Final(format!("the server sends more than the file's {most} bytes")));
        }
        file.write_all(&chunk).map_err(stop)?;
        running.add(&chunk);
        progress.at(have);
    }
    file.sync_all().map_err(stop)?;
    match total {
        Some(total) if have < total => Err(Broken::Again(format!("the download stopped at {have} of {total} bytes"))),
        _ => Ok(running.finish()),
    }
}

/// Hashes what an earlier try left and stands at its end.
fn read_again(file: &mut File) -> std::io::Result<(Running, u64)> {
    let (mut running, mut have) = (Running::default(), 0_u64);
    let mut buffer = vec![0; 1 << 20];
    file.seek(SeekFrom::Start(0))?;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((running, have));
        }
        running.add(buffer.get(..read).unwrap_or_default());
        have += read as u64;
    }
}

fn restart(file: &mut File) -> std::io::Result<(Running, u64)> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    Ok((Running::default(), 0))
}

/// First byte of a partial answer: `bytes 100-199/200` starts at 100.
fn starts_at(response: &reqwest::Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// An error with its innermost cause, which says what happened; the outer ones only say that something did.
fn reason(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
