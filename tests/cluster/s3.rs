//! As much of an S3-compatible store as reading takes: GET and HEAD of objects, with ranges.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

type Objects = Arc<HashMap<&'static str, Vec<u8>>>;

/// Serves objects until the test ends; gives the address.
pub fn serve(objects: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let objects: Objects = Arc::new(objects.into_iter().collect());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let objects = Arc::clone(&objects);
            std::thread::spawn(move || drop(answer(&stream, &objects)));
        }
    });
    address
}

/// What processes need to find it.
pub fn environment(store: &str) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT", store.to_owned()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]
}

fn answer(stream: &TcpStream, objects: &Objects) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let mut out = stream;
    loop {
        let Some(first) = lines.next().transpose()? else { return Ok(()) };
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut range = None;
        for line in lines.by_ref() {
            let line = line?.to_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(bytes) = line.strip_prefix("range: bytes=") {
                range = Some(bytes.to_owned());
            }
        }
        let dated = "Last-Modified: Wed, 01 Jul 2026 00:00:00 GMT\r\nETag: \"1\"\r\nAccept-Ranges: bytes";
        let Some(object) = objects.get(path) else {
            write!(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        };
        let size = object.len();
        let (status, from, to) = match range.as_deref().and_then(|r| r.split_once('-')) {
            Some((from, to)) => {
                let to = to.parse::<usize>().map_or(size, |t| (t + 1).min(size));
                ("206 Partial Content", from.parse::<usize>().unwrap_or(0), to)
            }
            None => ("200 OK", 0, size),
        };
        write!(out, "HTTP/1.1 {status}\r\n{dated}\r\nContent-Length: {}\r\n", to - from)?;
        if status.starts_with("206") {
            write!(out, "Content-Range: bytes {from}-{}/{size}\r\n", to - 1)?;
        }
        write!(out, "\r\n")?;
        if method == "GET" {
            out.write_all(&object[from..to])?;
        }
        out.flush()?;
    }
}
