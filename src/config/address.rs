//! Which hosts a configuration may name: the rules of `base_url` and of listeners.
//!
//! Clients never name a host; the file does, and here it is checked. What a name resolves to is checked again at
//! connect, with [`is_private`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::Uri;

use crate::policy::types::Place;

/// `ADDRESS:PORT`, port 0 allowed (the system picks one).
pub fn listener(text: &str) -> Result<SocketAddr, String> {
    let text = text.replace("localhost:", "127.0.0.1:");
    text.parse().map_err(|_| "must be ADDRESS:PORT, such as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned())
}

/// An upstream's base, without a trailing slash.
///
/// # Errors
/// Anything but `https://HOST[:PORT][/PATH]`; plain `http` beyond this machine and private networks; user names,
/// queries, fragments, backslashes, non-ASCII hosts, link-local addresses; a public host for a local backend.
pub fn base_url(text: &str, place: Place) -> Result<Uri, String> {
    const EXAMPLE: &str = "e.g. \"https://api.openai.com/v1\"";
    let text = text.trim_end_matches('/');
    if text.contains('\\') {
        return Err(format!("must not contain a backslash; {EXAMPLE}"));
    }
    if !text.is_ascii() || text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return Err(format!(
            "must be ASCII without spaces (a host in another script is written in punycode); {EXAMPLE}"
        ));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("must start with https:// (or http:// for a server on a private network); {EXAMPLE}"));
    };
    let secure = match scheme {
        "https" => true,
        "http" => false,
        other => return Err(format!("must start with https:// (got {}); {EXAMPLE}", super::problem::shown(other))),
    };
    if rest.contains('#') || rest.contains('?') {
        return Err(format!("must end with the path: no `?` and no `#`; {EXAMPLE}"));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err(format!("must not hold a user name or password: use key_env or key_file; {EXAMPLE}"));
    }
    if rest.split('/').any(|part| part == ".." || part == ".") || rest.contains("//") || rest.contains('%') {
        return Err(format!("must have a plain path; {EXAMPLE}"));
    }
    let uri: Uri = text.parse().map_err(|_| format!("is not a URL; {EXAMPLE}"))?;
    let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| format!("has no host; {EXAMPLE}"))?;
    if uri.port_u16() == Some(0) || (authority.ends_with(':')) {
        return Err(format!("has no usable port; {EXAMPLE}"));
    }
    let near = reach(host)?;
    if !secure && !near {
        return Err("plain http:// is for this machine and private networks only: use https://".to_owned());
    }
    if place == Place::Local && !near {
        return Err("a backend with place = \"local\" must be on this machine or a private network; \
                    name it by its private address, or set place = \"cloud\""
            .to_owned());
    }
    Ok(uri)
}

/// Whether a host is on this machine or a private network, as far as its name says.
fn reach(host: &str) -> Result<bool, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        if is_forbidden(ip) {
            return Err("must not be a link-local, multicast or unspecified address".to_owned());
        }
        return Ok(is_private(ip));
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    let plain = name.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    if !plain {
        return Err("has a host that is not a name or an address".to_owned());
    }
    // Resolvers read `127.1`, `0x7f.1` and `2130706433` as addresses; a last label of digits is never a name.
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") {
        return Err("must write an address in full, such as 127.0.0.1".to_owned());
    }
    let near = ["localhost", "local", "internal", "lan", "home", "intranet", "corp"];
    Ok(!name.contains('.') || near.contains(&last) || name.ends_with(".home.arpa"))
}

/// Loopback or a private network (RFC 1918, RFC 6598, unique local IPv6); mapped IPv6 counts as its IPv4.
pub fn is_private(ip: IpAddr) -> bool {
    match canonical(ip) {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || is_shared(v4),
        IpAddr::V6(v6) => v6.is_loopback() || is_unique_local(v6),
    }
}

/// Addresses that no upstream may have: link-local (cloud metadata services), multicast, broadcast, unspecified.
pub fn is_forbidden(ip: IpAddr) -> bool {
    match canonical(ip) {
        IpAddr::V4(v4) => {
            v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || v4.octets().first() == Some(&0)
        }
        IpAddr::V6(v6) => {
            v6.is_multicast() || v6.is_unspecified() || (v6.segments().first().copied().unwrap_or(0) & 0xffc0) == 0xfe80
        }
    }
}

fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

fn is_shared(v4: Ipv4Addr) -> bool {
    let [a, b, _, _] = v4.octets();
    a == 100 && (64..128).contains(&b)
}

fn is_unique_local(v6: Ipv6Addr) -> bool {
    (v6.segments().first().copied().unwrap_or(0) & 0xfe00) == 0xfc00
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_bases_pass_and_lose_the_trailing_slash() {
        for (text, place) in [
            ("https://api.openai.com/v1/", Place::Cloud),
            ("http://127.0.0.1:8081/v1", Place::Local),
            ("http://[::1]:8081/v1", Place::Local),
            ("http://10.1.2.3/v1", Place::Cloud),
            ("http://llama:8080/v1", Place::Local),
            ("http://gpu.lan:8000/v1", Place::Local),
            ("https://xn--bcher-kva.example/v1", Place::Cloud),
        ] {
            let uri = base_url(text, place).unwrap();
            assert!(!uri.to_string().ends_with("v1/"), "{text}");
        }
    }

    #[test]
    fn bases_that_could_reach_elsewhere_are_refused() {
        for text in [
            "api.openai.com/v1",
            "ftp://api.openai.com",
            "HTTPS//x",
            "http://api.openai.com/v1",
            "https://user:pass@api.openai.com/v1",
            "https://api.openai.com\\@evil.example/v1",
            "https://api.openai.com/v1?x=1",
            "https://api.openai.com/v1#x",
            "https://api.openai.com/../admin",
            "https://api.openai.com/%2e%2e/admin",
            "https:///v1",
            "https://bücher.example/v1",
            "http://169.254.169.254/latest",
            "https://169.254.169.254/latest",
            "http://[fe80::1]/v1",
            "http://[::ffff:169.254.169.254]/v1",
            "http://0.0.0.0:80/v1",
            "http://127.1/v1",
            "http://2130706433/v1",
            "http://0x7f000001/v1",
            "https://api.openai.com:0/v1",
            "https://a b/v1",
        ] {
            assert!(base_url(text, Place::Cloud).is_err(), "{text}");
        }
        assert!(base_url("https://api.openai.com/v1", Place::Local).is_err());
    }
}
