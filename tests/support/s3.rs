//! As much of an S3-compatible store as reading takes: GET and HEAD of objects with ranges and versions, lists of keys, keys that are
//! refused with a document that repeats what was signed, as real stores do.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The store's keys.
pub const KEYS: [&str; 2] = ["known-key-id", "hush-hush-secret"];

/// A store that serves until the test ends.
#[derive(Clone)]
pub struct Store {
    /// Scheme, host and port.
    pub address: String,
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// Requests so far: method, path, range.
    pub asked: Arc<Mutex<Vec<(String, String, String)>>>,
    guarded: bool,
}

/// A store that asks for no keys.
pub fn serve(objects: Vec<(&str, Vec<u8>)>) -> Store {
    start(objects, false)
}

/// A store that gives objects to [`KEYS`] alone.
pub fn guarded(objects: Vec<(&str, Vec<u8>)>) -> Store {
    start(objects, true)
}

fn start(objects: Vec<(&str, Vec<u8>)>, guarded: bool) -> Store {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let objects = objects.into_iter().map(|(key, object)| (key.to_owned(), object)).collect();
    let store = Store { address, objects: Arc::new(Mutex::new(objects)), asked: Arc::default(), guarded };
    let served = store.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let store = served.clone();
            std::thread::spawn(move || drop(store.answer(&stream)));
        }
    });
    store
}

/// What processes need to find it.
pub fn environment(store: &Store) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", store.address.clone()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", KEYS[0].to_owned()),
        ("AWS_SECRET_ACCESS_KEY", KEYS[1].to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]
}

struct Request {
    method: String,
    path: String,
    query: String,
    range: String,
    version: String,
    authorization: String,
}

impl Request {
    fn read(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> std::io::Result<Option<Self>> {
        let Some(first) = lines.next().transpose()? else { return Ok(None) };
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ") {
                headers.insert(name.to_lowercase(), value.to_owned());
            }
        }
        let mut header = |name: &str| headers.remove(name).unwrap_or_default();
        Ok(Some(Self {
            method: method.to_owned(),
            path: path.replace("%20", " ").replace("%3D", "="),
            query: query.to_owned(),
            range: header("range"),
            version: header("if-match"),
            authorization: header("authorization"),
        }))
    }
}

impl Store {
    /// Puts another object in an object's place.
    pub fn put(&self, key: &str, object: Vec<u8>) {
        self.objects.lock().unwrap().insert(key.to_owned(), object);
    }

    fn answer(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        while let Some(request) = Request::read(&mut lines)? {
            self.asked.lock().unwrap().push((request.method.clone(), request.path.clone(), request.range.clone()));
            let (head, body) = self.reply(&request);
            let body = if request.method == "GET" { body } else { Vec::new() };
            let mut out = stream;
            out.write_all(head.as_bytes())?;
            out.write_all(&body)?;
            out.flush()?;
        }
        Ok(())
    }

    fn reply(&self, request: &Request) -> (String, Vec<u8>) {
        let known = request.authorization.contains(&format!("Credential={}/", KEYS[0]));
        if self.guarded && !known {
            let signed = &request.authorization;
            let body =
                format!("<Error><Code>SignatureDoesNotMatch</Code><StringToSign>{signed}</StringToSign></Error>");
            return document("403 Forbidden", body);
        }
        if request.query.contains("list-type=2") {
            return document("200 OK", self.list(request));
        }
        let objects = self.objects.lock().unwrap();
        let Some(object) = objects.get(&request.path) else { return document("404 Not Found", String::new()) };
        let version = version(object);
        if !request.version.is_empty() && request.version != version {
            return document("412 Precondition Failed", String::new());
        }
        let size = object.len();
        let (status, from, to) = match request.range.strip_prefix("bytes=").and_then(|r| r.split_once('-')) {
            Some((from, to)) => {
                let to = to.parse::<usize>().map_or(size, |t| (t + 1).min(size));
                ("206 Partial Content", from.parse::<usize>().unwrap_or(0), to)
            }
            None => ("200 OK", 0, size),
        };
        let mut head = format!(
            "HTTP/1.1 {status}\r\nLast-Modified: Wed, 01 Jul 2026 00:00:00 GMT\r\nETag: {version}\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\n",
            to - from
        );
        if status.starts_with("206") {
            head += &format!("Content-Range: bytes {from}-{}/{size}\r\n", to - 1);
        }
        (head + "\r\n", object[from..to].to_vec())
    }

    /// Keys of a bucket that begin with what is asked for.
    fn list(&self, request: &Request) -> String {
        let bucket = format!("/{}/", request.path.trim_matches('/'));
        let prefix = request.query.split('&').find_map(|p| p.strip_prefix("prefix=")).unwrap_or_default();
        let prefix = prefix.replace("%2F", "/").replace("%3D", "=");
        let objects = self.objects.lock().unwrap();
        let keys = objects.iter().filter_map(|(key, object)| Some((key.strip_prefix(&bucket)?, object)));
        let each = keys.filter(|(key, _)| key.starts_with(&prefix)).map(|(key, object)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-07-01T00:00:00.000Z</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
                version(object),
                object.len()
            )
        });
        format!("<ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>", each.collect::<String>())
    }
}

fn version(object: &[u8]) -> String {
    format!("\"{}\"", wattroute::replay::case::hash(&String::from_utf8_lossy(object)))
}

fn document(status: &str, body: String) -> (String, Vec<u8>) {
    (
        format!("HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n", body.len()),
        body.into_bytes(),
    )
}
