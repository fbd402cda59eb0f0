//! Reading HTTP/1.1 strictly, by hand: what a test saw on the wire is judged by this and by no library that forgives.

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// `POST /v1/chat/completions HTTP/1.1`
    pub line: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// Body without its framing.
    pub body: Vec<u8>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Framing says that all of it is here.
    Whole,
    /// Closed in order, before the framing's end.
    Cut,
    /// Reset.
    Reset,
    /// Nothing more came in time.
    Silent,
}

/// An answer as it arrived.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status code; 0 when nothing came.
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// Body without its framing.
    pub body: Vec<u8>,
    /// How it ended.
    pub end: End,
}

impl Request {
    /// The only value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        one(&self.headers, name)
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Reply {
    /// The only value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        one(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }

    /// `error.code` of a body in OpenAI's shape; every key of that shape must be there.
    pub fn code(&self) -> String {
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("no error object in {body}"));
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
        assert!(error["type"].is_string() && error.contains_key("param"), "{body}");
        error["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Data of each server-sent event.
    pub fn events(&self) -> Vec<String> {
        let text = self.text().replace("\r\n", "\n");
        let data = |event: &str| -> Vec<String> {
            let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
            lines.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned()).collect()
        };
        text.split("\n\n").map(data).filter(|d| !d.is_empty()).map(|d| d.join("\n")).collect()
    }
}

fn one<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(n, _)| n == name);
    let first = found.next();
    assert!(found.next().is_none(), "header {name} more than once");
    first.map(|(_, value)| value.as_str())
}

/// Where the body starts.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

type Head = (String, Vec<(String, String)>, usize);

fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let Some(end) = end_of_head(bytes) else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end - 4]).map_err(|e| format!("head: {e}"))?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("header line {line:?}"))?;
        if name.is_empty()
            || name.contains(|c: char| c.is_whitespace() || c.is_control())
            || value.contains(['\r', '\n'])
        {
            return Err(format!("header line {line:?}"));
        }
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Some((first, headers, end)))
}

enum Framing {
    Length(usize),
    Chunked,
    ToClose,
}

fn framing(headers: &[(String, String)]) -> Result<Framing, String> {
    let values = |name: &str| headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
    match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Ok(Framing::ToClose),
        ([length], []) => length.parse().map(Framing::Length).map_err(|e| format!("content-length {length:?}: {e}")),
        ([], ["chunked"]) => Ok(Framing::Chunked),
        (lengths, codings) => Err(format!("ambiguous framing: {lengths:?} {codings:?}")),
    }
}

/// One request at the start of `bytes` and its length; `None` while it is incomplete.
pub fn request(bytes: &[u8]) -> Result<Option<(Request, usize)>, String> {
    let Some((line, headers, start)) = head(bytes)? else { return Ok(None) };
    let (body, used) = match framing(&headers)? {
        Framing::ToClose => (Vec::new(), start),
        Framing::Length(n) if bytes.len() < start + n => return Ok(None),
        Framing::Length(n) => (bytes[start..start + n].to_vec(), start + n),
        Framing::Chunked => {
            let (body, used, whole) = chunks(&bytes[start..])?;
            if !whole {
                return Ok(None);
            }
            (body, start + used)
        }
    };
    Ok(Some((Request { line, headers, body }, used)))
}

/// Body so far, bytes used, and whether the last chunk is here.
fn chunks(mut bytes: &[u8]) -> Result<(Vec<u8>, usize, bool), String> {
    let all = bytes.len();
    let mut body = Vec::new();
    while let Some(end) = memchr::memmem::find(bytes, b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).map_err(|e| e.to_string())?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|e| format!("chunk size {size:?}: {e}"))?;
        let rest = &bytes[end + 2..];
        if size == 0 {
            let whole = rest.starts_with(b"\r\n");
            return Ok((body, all - rest.len() + if whole { 2 } else { 0 }, whole));
        }
        if rest.len() < size + 2 {
            body.extend_from_slice(&rest[..size.min(rest.len())]);
            return Ok((body, all, false));
        }
        body.extend_from_slice(&rest[..size]);
        bytes = &rest[size + 2..];
    }
    Ok((body, all, false))
}

/// What is known of the answer at the start of `bytes`, and its length once it is whole.
pub fn reply(bytes: &[u8], closed: Option<End>) -> Option<(Reply, usize)> {
    let end = closed.unwrap_or(End::Silent);
    let Ok(Some((line, headers, start))) = head(bytes) else {
        return closed.map(|end| (Reply { status: 0, headers: Vec::new(), body: bytes.to_vec(), end }, bytes.len()));
    };
    let status: u16 = line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    if (100..200).contains(&status) {
        return reply(&bytes[start..], closed).map(|(reply, used)| (reply, used + start));
    }
    let rest = &bytes[start..];
    let (body, used, whole) = match framing(&headers).unwrap_or_else(|why| panic!("{why}")) {
        _ if status == 204 || status == 304 => (Vec::new(), 0, true),
        Framing::Length(n) => (rest[..n.min(rest.len())].to_vec(), n.min(rest.len()), rest.len() >= n),
        Framing::Chunked => chunks(rest).unwrap_or_else(|why| panic!("{why}")),
        Framing::ToClose => (rest.to_vec(), rest.len(), closed == Some(End::Cut)),
    };
    let end = if whole { End::Whole } else { end };
    (whole || closed.is_some()).then(|| (Reply { status, headers, body, end }, start + used))
}
