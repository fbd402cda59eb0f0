//! Client keys: where a request may carry one, and whose it is.
//!
//! Only hashes are known. A key is hashed once, found by the first bytes of its hash, and compared in constant time.
//! A key is never logged, echoed, or kept longer than the look-up.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use subtle::ConstantTimeEq;

use super::room::Room;
use crate::config::checked::ClientKey;
use crate::fault::{Fault, Kind};

/// Longest key in bytes. Providers' keys are at most about 200.
pub const KEY_BYTES: usize = 512;

/// The name under which callers without a key are counted, where no key is needed.
pub const OPEN_TENANT: &str = "local";

const BEARER: &[u8] = b"bearer ";

/// Whose key it is.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    pub name: Arc<str>,
    pub private: bool,
    /// Shared by all keys of one tenant.
    pub room: Arc<Room>,
}

/// The known keys. Without any, every caller is [`OPEN_TENANT`].
pub(super) struct Keys {
    /// By the first eight bytes of the hash, which a guesser learns nothing from.
    by_prefix: HashMap<[u8; 8], Vec<([u8; 32], Tenant)>>,
    open: Tenant,
}

impl Keys {
    /// Each tenant gets `seats`.
    pub fn new(keys: &[ClientKey], seats: usize) -> Self {
        let mut by_prefix: HashMap<_, Vec<_>> = HashMap::with_capacity(keys.len());
        let mut rooms: HashMap<&str, Arc<Room>> = HashMap::new();
        for key in keys {
            let room = rooms.entry(&key.tenant).or_insert_with(|| Room::new(seats)).clone();
            let tenant = Tenant { name: key.tenant.clone(), private: key.private, room };
            by_prefix.entry(prefix(&key.hash)).or_default().push((key.hash, tenant));
        }
        let open = Tenant { name: OPEN_TENANT.into(), private: false, room: Room::new(seats) };
        Self { by_prefix, open }
    }

    pub fn is_open(&self) -> bool {
        self.by_prefix.is_empty()
    }

    /// Who sends these headers.
    pub fn tenant(&self, headers: &HeaderMap) -> Result<&Tenant, Fault> {
        if self.is_open() {
            return Ok(&self.open);
        }
        let hash = *blake3::hash(presented(headers)?).as_bytes();
        let known = self.by_prefix.get(&prefix(&hash)).map(Vec::as_slice).unwrap_or_default();
        known
            .iter()
            .find(|(hash_known, _)| bool::from(hash_known.ct_eq(&hash)))
            .map(|(_, tenant)| tenant)
            .ok_or_else(|| unauthorized("the API key is not known here"))
    }
}

fn prefix(hash: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    first.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    first
}

/// The one key that these headers carry. Two keys are refused even where they are the same: it is not known which one
/// another reader of the same request would take.
fn presented(headers: &HeaderMap) -> Result<&[u8], Fault> {
    let mut found: Option<&[u8]> = None;
    let places = [(AUTHORIZATION, true), (HeaderName::from_static("api-key"), false)];
    for (name, bearer) in places.into_iter().chain([(HeaderName::from_static("x-api-key"), false)]) {
        for value in headers.get_all(name) {
            if found.replace(key_of(value, bearer)?).is_some() {
                return Err(unauthorized("more than one API key: send exactly one"));
            }
        }
    }
    found.ok_or_else(|| unauthorized("no API key: send `Authorization: Bearer KEY`"))
}

fn key_of(value: &HeaderValue, bearer: bool) -> Result<&[u8], Fault> {
    let bytes = value.as_bytes();
    let key = if bearer {
        bytes
            .split_at_checked(BEARER.len())
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(BEARER))
            .map(|(_, key)| key.trim_ascii_start())
            .ok_or_else(|| unauthorized("Authorization is not of the form `Bearer KEY`"))?
    } else {
        bytes
    };
    if key.is_empty() || key.len() > KEY_BYTES || !key.iter().all(u8::is_ascii_graphic) {
        return Err(unauthorized("the API key is not well formed"));
    }
    Ok(key)
}

fn unauthorized(message: &str) -> Fault {
    Fault::new(Kind::Unauthorized, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "wr-test-0123456789";

    fn keys() -> Keys {
        let key = |tenant: &str, text: &str, private| ClientKey {
            tenant: tenant.into(),
            hash: *blake3::hash(text.as_bytes()).as_bytes(),
            private,
        };
        Keys::new(&[key("alice", KEY, false), key("bob", "another-key", true)], 1)
    }

    fn check(fields: &[(&str, &[u8])]) -> Result<String, Kind> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        keys().tenant(&headers).map(|tenant| tenant.name.to_string()).map_err(|fault| {
            assert!(!format!("{fault:?} {fault} {}", fault.body()).contains(KEY), "the key leaked into {fault:?}");
            fault.kind
        })
    }

    #[test]
    fn a_known_key_names_its_tenant() {
        let bearer = format!("Bearer {KEY}");
        assert_eq!(check(&[("authorization", bearer.as_bytes())]), Ok("alice".into()));
        assert_eq!(check(&[("authorization", b"bEARER   another-key")]), Ok("bob".into()));
        assert_eq!(check(&[("api-key", KEY.as_bytes())]), Ok("alice".into()));
        assert_eq!(check(&[("x-api-key", KEY.as_bytes())]), Ok("alice".into()));
    }

    #[test]
    fn every_other_key_is_unauthorized() {
        let bearer = format!("Bearer {KEY}");
        let longer = format!("Bearer {KEY}0");
        let huge = format!("Bearer {}", "k".repeat(20_000));
        let cases: &[&[(&str, &[u8])]] = &[
            &[],
            &[("authorization", b"")],
            &[("authorization", b"Bearer")],
            &[("authorization", b"Bearer ")],
            &[("authorization", KEY.as_bytes())],
            &[("authorization", b"Basic d3ItdGVzdA==")],
            &[("authorization", longer.as_bytes())],
            &[("authorization", b"Bearer wr-test-012345678")],
            &[("authorization", b"Bearer WR-TEST-0123456789")],
            &[("authorization", b"Bearer wr-test-0123456789, x")],
            &[("authorization", b"Bearer wr-test 0123456789")],
            &[("authorization", "Bearer wr-test-0123456789é".as_bytes())],
            &[("authorization", b"Bearer \xff\xfe")],
            &[("authorization", huge.as_bytes())],
            &[("authorization", bearer.as_bytes()), ("authorization", bearer.as_bytes())],
            &[("authorization", bearer.as_bytes()), ("api-key", KEY.as_bytes())],
            &[("x-api-key", KEY.as_bytes()), ("x-api-key", KEY.as_bytes())],
            &[("x-api-key", b"' OR 1=1 --")],
            &[("openai-api-key", KEY.as_bytes())],
        ];
        for case in cases {
            assert_eq!(check(case), Err(Kind::Unauthorized), "{case:?}");
        }
    }
}
