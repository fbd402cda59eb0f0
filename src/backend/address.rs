//! Which addresses a configured host may turn out to have. Pure.
//!
//! Invariant: a name in a cloud's address is never followed into this machine or its network, and a local backend's
//! name is never followed out of it, whatever a resolver says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that are expected of a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The internet only.
    Public,
    /// This machine and private networks only.
    Near,
}

impl Reach {
    /// Whether this address is no surprise.
    pub fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Public => public(address),
            Self::Near => near(address),
        }
    }
}

/// Loopback, private networks, shared carrier space (also overlay networks) and unique local IPv6. Never link-local:
/// machines' metadata services live there.
pub fn near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || shared(v4),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

fn public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => public_v4(v4),
        IpAddr::V6(v6) => public_v6(v6),
    }
}

fn shared(v4: Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    a == 100 && (64..128).contains(&b)
}

fn public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let special = matches!((a, b, c), (0 | 224..=255, _, _) | (192, 0, 0) | (192, 88, 99) | (198, 18..=19, _));
    let inner = v4.is_loopback() || v4.is_private() || v4.is_link_local() || shared(v4);
    !(special || inner || v4.is_documentation())
}

fn public_v6(v6: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b) {
        // NAT64 and 6to4 carry an IPv4 address that must itself be public.
        (0x64, 0xff9b) => [c, d, e, f] == [0; 4] && embedded(g, h),
        (0x2002, high) => embedded(high, c),
        // Teredo, documentation.
        (0x2001, 0 | 0xdb8) | (0x3fff, 0..=0xfff) => false,
        _ => (0x2000..0x4000).contains(&a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reach: Reach, addresses: &[&str], allowed: bool) {
        for address in addresses {
            assert_eq!(reach.allows(address.parse().unwrap()), allowed, "{reach:?} {address}");
        }
    }

    const INNER: [&str; 31] = [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.127.255.255",
        "192.0.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.2.1",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:db8::1",
        "::127.0.0.1",
    ];
    const OUTER: [&str; 7] = [
        "1.1.1.1",
        "104.18.7.192",
        "172.32.0.1",
        "100.128.0.1",
        "2606:4700::6812:7c0",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ];

    #[test]
    fn a_clouds_name_never_leads_inside() {
        check(Reach::Public, &INNER, false);
        check(Reach::Public, &OUTER, true);
    }

    #[test]
    fn a_local_name_never_leads_outside_or_to_metadata() {
        check(Reach::Near, &OUTER, false);
        check(Reach::Near, &["169.254.169.254", "fe80::1", "0.0.0.0", "::ffff:169.254.169.254", "224.0.0.1"], false);
        check(Reach::Near, &["127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "100.64.1.1", "fd12::1"], true);
    }
}
