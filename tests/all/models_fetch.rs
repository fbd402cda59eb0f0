//! Fetching model files: resume, wrong bytes, broken servers, links, two at once. The hub is a scripted server.

use std::fs;
use std::path::{Path, PathBuf};

use wattroute::models::digest::Running;
use wattroute::models::{self, Digest, ModelError, Origin, Progress, Reference, Store, Wanted};

use crate::support::upstream::{Step, Upstream};

/// Bytes that stand for a model file.
fn content() -> Vec<u8> {
    (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn digest(bytes: &[u8]) -> Digest {
    let mut running = Running::default();
    running.add(bytes);
    running.finish()
}

fn wanted(sha256: Digest, bytes: Option<u64>) -> Wanted {
    Wanted {
        name: "test-model".into(),
        stem: "test-model".into(),
        sha256,
        bytes,
        origin: Origin { package: None, hub: "/o/r/resolve/main/f.gguf".into() },
    }
}

fn store(folder: &Path, hub: &Upstream) -> Store {
    Store::new(folder.join("models")).with_hub(&format!("http://{}", hub.address))
}

async fn fetch(store: &Store, wanted: &Wanted) -> Result<PathBuf, ModelError> {
    models::pull(store, &Reference::Stored(wanted.clone()), &Progress::Silent).await
}

/// An answer with a Content-Length that may promise more than is sent.
fn answer(status: &str, extra: &str, length: usize, body: &[u8]) -> Vec<Step> {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{extra}Connection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    vec![Step::Request, Step::Send(bytes)]
}

fn partial(from: usize, all: &[u8]) -> Vec<Step> {
    let range = format!("Content-Range: bytes {from}-{}/{}\r\n", all.len() - 1, all.len());
    answer("206 Partial Content", &range, all.len() - from, &all[from..])
}

fn ranges(hub: &Upstream) -> Vec<Option<String>> {
    let value = |headers: &[(String, String)]| headers.iter().find(|(n, _)| n == "range").map(|(_, v)| v.clone());
    hub.requests().iter().map(|r| value(&r.headers)).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn fetched_once_then_found_without_a_network() {
    let all = content();
    let folder = tempfile::tempdir().unwrap();
    let hub = Upstream::always(answer("200 OK", "", all.len(), &all)).await;
    let store = store(folder.path(), &hub);
    let wanted = wanted(digest(&all), None);
    let path = fetch(&store, &wanted).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), all);
    assert_eq!(names(store.root()), ["test-model.gguf", "test-model.lock"]);
    assert_eq!(fetch(&store, &wanted).await.unwrap(), path);
    assert_eq!(hub.connections(), 1);
    assert_eq!(hub.requests()[0].line, "GET /o/r/resolve/main/f.gguf HTTP/1.1");
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_stopped() {
    let all = content();
    let cut = 300_001;
    let folder = tempfile::tempdir().unwrap();
    let whole = all.clone();
    let hub = Upstream::by(move |n| match n {
        0 => answer("200 OK", "", whole.len(), &whole[..cut]),
        _ => partial(cut, &whole),
    })
    .await;
    let store = store(folder.path(), &hub);
    let path = fetch(&store, &wanted(digest(&all), Some(all.len() as u64))).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), all);
    assert_eq!(ranges(&hub), [None, Some(format!("bytes={cut}-"))]);
}

#[tokio::test]
async fn a_later_process_goes_on_too_and_a_server_without_ranges_starts_over() {
    let all = content();
    let folder = tempfile::tempdir().unwrap();
    let hub = Upstream::always(answer("200 OK", "", all.len(), &all)).await;
    let store = store(folder.path(), &hub);
    fs::create_dir_all(store.root()).unwrap();
    fs::write(store.root().join("test-model.part"), &all[..1000]).unwrap();
    let path = fetch(&store, &wanted(digest(&all), Some(all.len() as u64))).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), all);
    assert_eq!(ranges(&hub), [Some("bytes=1000-".to_owned())]);
}

#[tokio::test]
async fn a_complete_part_needs_no_server() {
    let all = content();
    let folder = tempfile::tempdir().unwrap();
    let hub = Upstream::always(vec![Step::Reset]).await;
    let store = store(folder.path(), &hub);
    fs::create_dir_all(store.root()).unwrap();
    fs::write(store.root().join("test-model.part"), &all).unwrap();
    fetch(&store, &wanted(digest(&all), Some(all.len() as u64))).await.unwrap();
    assert_eq!(hub.connections(), 0);
}

#[tokio::test]
async fn a_range_that_starts_elsewhere_is_not_stitched_in() {
    let all = content();
    let folder = tempfile::tempdir().unwrap();
    let whole = all.clone();
    let hub = Upstream::by(move |n| match n {
        0 => partial(500, &whole),
        _ => answer("200 OK", "", whole.len(), &whole),
    })
    .await;
    let store = store(folder.path(), &hub);
    fs::create_dir_all(store.root()).unwrap();
    fs::write(store.root().join("test-model.part"), &all[..1000]).unwrap();
    let path = fetch(&store, &wanted(digest(&all), Some(all.len() as u64))).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), all);
}

#[tokio::test]
async fn wrong_bytes_are_put_aside_and_never_used() {
    let all = content();
    let folder = tempfile::tempdir().unwrap();
    let hub = Upstream::always(answer("200 OK", "", all.len(), &all)).await;
    let store = store(folder.path(), &hub);
    let wanted = wanted(digest(b"another file"), Some(all.len() as u64));
    let error = fetch(&store, &wanted).await.unwrap_err();
    assert!(matches!(error, ModelError::WrongDigest { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&digest(&all).to_string()) && text.contains("test-model.bad"), "{text}");
    assert_eq!(names(store.root()), ["test-model.bad", "test-model.lock"]);
}

#[tokio::test]
async fn a_server_that_sends_too_much_or_says_no_is_given_up() {
    let all = content();
    let folder = tempfile::tempdir().unwrap();
    let hub = Upstream::each(vec![
        answer("200 OK", "", all.len(), &all),
        answer("404 Not Found", "", 0, b""),
        answer("302 Found", "Location: http://127.0.0.1:1/elsewhere\r\n", 0, b""),
    ])
    .await;
    let store = store(folder.path(), &hub);
    let wanted = wanted(digest(&all), Some(1000));
    for said in ["more than the file's 1000 bytes", "404", "https"] {
        let error = fetch(&store, &wanted).await.unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("copy the file to"), "{said}: {error}");
    }
    assert_eq!(names(store.root()), ["test-model.lock", "test-model.part"]);
    assert_eq!(fs::metadata(store.root().join("test-model.part")).unwrap().len(), 0);
}

#[tokio::test]
async fn a_changed_file_is_noticed_before_use() {
    let all = content();
    let folder = tempfile::tempdir().unwrap();
    let hub = Upstream::always(vec![Step::Reset]).await;
    let store = store(folder.path(), &hub);
    let wanted = wanted(digest(&all), None);
    fs::create_dir_all(store.root()).unwrap();
    let mut broken = all.clone();
    broken[77] ^= 1;
    fs::write(store.path(&wanted), &broken).unwrap();
    let error = models::locate(&store, &Reference::Stored(wanted)).unwrap_err();
    assert!(matches!(error, ModelError::WrongDigest { .. }));
}

#[cfg(unix)]
#[tokio::test]
async fn links_in_the_folder_are_not_followed() {
    let all = content();
    let folder = tempfile::tempdir().unwrap();
    let hub = Upstream::always(answer("200 OK", "", all.len(), &all)).await;
    let outside = folder.path().join("outside");
    for ending in ["gguf", "part", "lock"] {
        let store = Store::new(folder.path().join(ending)).with_hub(&format!("http://{}", hub.address));
        let wanted = wanted(digest(&all), Some(all.len() as u64));
        fs::create_dir_all(store.root()).unwrap();
        fs::write(&outside, b"precious").unwrap();
        std::os::unix::fs::symlink(&outside, store.root().join(format!("test-model.{ending}"))).unwrap();
        assert!(fetch(&store, &wanted).await.is_err(), "{ending}");
        assert_eq!(fs::read(&outside).unwrap(), b"precious", "{ending}");
    }
}

#[tokio::test]
async fn two_at_once_download_once() {
    let all = content();
    let folder = tempfile::tempdir().unwrap();
    let mut slow = answer("200 OK", "", all.len(), &all[..100]);
    slow.push(Step::Gap(std::time::Duration::from_millis(40)));
    slow.push(Step::Send(all[100..].to_vec()));
    let hub = Upstream::always(slow).await;
    let store = store(folder.path(), &hub);
    let wanted = wanted(digest(&all), Some(all.len() as u64));
    let (a, b) = tokio::join!(fetch(&store, &wanted), fetch(&store, &wanted));
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(hub.connections(), 1);
}
