//! Addresses, taken apart. Pure.

use std::path::PathBuf;

use object_store::path::Path;
use url::Url;

/// What is read, for errors.
const READ: &str = "file://, s3://BUCKET/KEY and https://HOST/BUCKET/KEY of an S3-compatible store are";

/// An object's address, or that of several below one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As the user wrote it; holds no secret.
    pub name: String,
    /// Scheme and host of the store, where the address names them.
    pub endpoint: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: Path,
}

/// The scheme of an address; none of a path.
pub fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let fine = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    (scheme.len() > 1 && fine).then_some(scheme)
}

impl Address {
    /// Takes an address apart; a file of this machine comes back as its path.
    ///
    /// # Errors
    /// What is wrong with it. The address is not repeated where a secret may be in it.
    pub fn parse(text: &str) -> Result<Result<Self, PathBuf>, String> {
        let url = Url::parse(text).map_err(|e| format!("this address is none: {e}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an address with a user or a password in it is not read: keys are taken from the environment \
                 (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
                .to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("an address with `?` or `#` in it, such as a signed one, is not read: keys are taken from the environment \
                 (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
                .to_owned());
        }
        let wrong = |why: String| format!("{text}: {why}");
        let host = url.host_str().unwrap_or_default();
        match url.scheme() {
            "file" => url.to_file_path().map(Err).map_err(|()| wrong("is no file of this machine".to_owned())),
            "s3" | "s3a" if !host.is_empty() => Self::of(text, None, host, url.path()).map(Ok).map_err(wrong),
            "http" | "https" => {
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                let (bucket, key) = url.path().trim_start_matches('/').split_once('/').unwrap_or_default();
                let endpoint = format!("{}://{host}{port}", url.scheme());
                Self::of(text, Some(endpoint), bucket, key).map(Ok).map_err(wrong)
            }
            _ => Err(wrong(format!("cannot be read; {READ}"))),
        }
    }

    fn of(text: &str, endpoint: Option<String>, bucket: &str, key: &str) -> Result<Self, String> {
        let key = Path::from_url_path(key).map_err(|e| format!("is no key of a store: {e}"))?;
        if bucket.is_empty() || key.as_ref().is_empty() {
            return Err(format!("names no bucket and key; {READ} read"));
        }
        Ok(Self { name: text.to_owned(), endpoint, bucket: bucket.to_owned(), key })
    }

    /// The address of another object of the same store.
    pub fn at(&self, key: Path) -> Self {
        let name = match &self.endpoint {
            Some(endpoint) => format!("{endpoint}/{}/{key}", self.bucket),
            None => format!("s3://{}/{key}", self.bucket),
        };
        Self { name, key, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_and_paths_are_left_alone() {
        for path in ["log.jsonl", "/a/b", "C:\\log", "a:b", "days/day=1", "c://x", "://x"] {
            assert_eq!(scheme(path), None, "{path}");
        }
        let s3 = Address::parse("s3://logs/june/day=1/a%20b.jsonl").unwrap().unwrap();
        assert_eq!((s3.bucket.as_str(), s3.key.as_ref(), &s3.endpoint), ("logs", "june/day=1/a b.jsonl", &None));
        let http = Address::parse("http://127.0.0.1:9000/logs/x.jsonl.gz").unwrap().unwrap();
        assert_eq!(http.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!((http.bucket.as_str(), http.key.as_ref()), ("logs", "x.jsonl.gz"));
        assert_eq!(http.at(Path::from("y/z")).name, "http://127.0.0.1:9000/logs/y/z");
        assert_eq!(Address::parse("file:///tmp/a%20b").unwrap(), Err(PathBuf::from("/tmp/a b")));
        for (address, want) in [
            ("gs://b/k", "gs://b/k: cannot be read; file://, s3://"),
            ("s3://bucket", "names no bucket and key"),
            ("https://host/bucket", "names no bucket and key"),
        ] {
            let said = Address::parse(address).unwrap_err();
            assert!(said.contains(want), "{said}");
        }
    }

    #[test]
    fn an_address_that_may_hold_a_secret_is_refused_and_not_repeated() {
        for address in
            ["https://key:hush@host/b/k", "https://host/b/k?X-Amz-Signature=hush", "s3://hush@b/k", "s3://b/k#hush"]
        {
            let said = Address::parse(address).unwrap_err();
            assert!(!said.contains("hush") && said.contains("from the environment"), "{said}");
        }
    }
}
