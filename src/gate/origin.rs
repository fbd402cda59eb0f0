//! Who may reach a loopback listener: programs on this machine, and no web page (DNS rebinding).
//!
//! A page of a foreign site can make a browser on this machine send requests here, and with a name of its own that
//! resolves to 127.0.0.1 it could even read the answers. The browser then names that site in `Host` or `Origin`.

use std::net::IpAddr;

use http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use http::uri::{Authority, Uri};

use crate::fault::{Fault, Kind};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses a request that names another host than this machine's own loopback, or that a foreign page sent.
pub fn check_local(uri: &Uri, headers: &HeaderMap) -> Result<(), Fault> {
    if let Some(authority) = uri.authority()
        && !is_local(authority)
    {
        return Err(foreign("the request names another host"));
    }
    // HTTP/1.0 may leave Host out; no browser does.
    for host in headers.get_all(HOST) {
        if !is_usual(host.as_bytes())
            && !Authority::try_from(host.as_bytes()).is_ok_and(|authority| is_local(&authority))
        {
            return Err(foreign("Host must be localhost, 127.0.0.1 or [::1] on a loopback listener"));
        }
    }
    for origin in headers.get_all(ORIGIN) {
        if !Uri::try_from(origin.as_bytes()).is_ok_and(|page| is_local_page(&page)) {
            return Err(foreign("pages of other origins may not use a loopback listener"));
        }
    }
    // Browsers leave Origin out of some requests, but say this of all.
    if headers.get(SEC_FETCH_SITE).is_some_and(|site| site.as_bytes() == b"cross-site") {
        return Err(foreign("pages of other sites may not use a loopback listener"));
    }
    Ok(())
}

fn is_local_page(page: &Uri) -> bool {
    matches!(page.scheme_str(), Some("http" | "https")) && page.authority().is_some_and(is_local)
}

/// What nearly all clients send, without reading it as an address.
fn is_usual(host: &[u8]) -> bool {
    let rest = host.strip_prefix(b"127.0.0.1").or(host.strip_prefix(b"localhost"));
    rest.is_some_and(|rest| match rest.strip_prefix(b":") {
        Some(port) => {
            let number = std::str::from_utf8(port).ok().and_then(|port| port.parse::<u16>().ok());
            number.is_some() && port.iter().all(u8::is_ascii_digit)
        }
        None => rest.is_empty(),
    })
}

fn is_local(authority: &Authority) -> bool {
    let text = authority.as_str();
    let host = authority.host();
    // `host:port` with nothing around it: no user, and a port that is one.
    let rest = text.strip_prefix(host);
    let port_ok = rest
        .is_some_and(|rest| rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()));
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    port_ok
        && (host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

fn foreign(message: &str) -> Fault {
    Fault::new(Kind::Forbidden, message)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(uri: &str, fields: &[(&str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        match check_local(&uri.parse().unwrap(), &headers) {
            Ok(()) => true,
            Err(fault) => {
                assert_eq!(fault.kind, Kind::Forbidden);
                false
            }
        }
    }

    #[test]
    fn this_machine_by_any_of_its_loopback_names_passes() {
        for host in
            ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "127.1.2.3:1", "[::1]", "[::1]:65535"]
        {
            assert!(check("/v1/models", &[("host", host)]), "{host}");
            let origin = format!("http://{host}");
            assert!(check("/v1/models", &[("host", host), ("origin", &origin)]), "{origin}");
        }
        assert!(check("http://localhost:1/v1/models", &[("host", "localhost:1")]));
        assert!(check("/", &[]));
        assert!(check("/", &[("host", "localhost"), ("sec-fetch-site", "same-origin")]));
    }

    #[test]
    fn foreign_hosts_are_refused() {
        for host in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost@evil.example",
            "evil@localhost",
            "192.168.0.1",
            "0.0.0.0",
            "[::]",
            "[::ffff:10.0.0.1]",
            "2130706433",
            "0x7f.1",
            "localhost:99999",
            "localhost:",
            "localhost:80x",
            "",
        ] {
            assert!(!check("/v1/models", &[("host", host)]), "{host:?}");
        }
        assert!(!check("http://evil.example/", &[("host", "localhost")]));
        assert!(!check("/", &[("host", "localhost"), ("host", "evil.example")]));
    }

    #[test]
    fn foreign_pages_are_refused() {
        for origin in
            ["null", "http://evil.example", "https://localhost.evil.example", "file://", "chrome-extension://abc", ""]
        {
            assert!(!check("/", &[("host", "localhost"), ("origin", origin)]), "{origin:?}");
        }
        assert!(!check("/", &[("host", "localhost"), ("sec-fetch-site", "cross-site")]));
    }
}
