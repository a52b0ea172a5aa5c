//! Which addresses a host may fetch images from.
//!
//! A tenant chooses the URL and the host sends the request: without this, a tenant could read what only the host can
//! reach (its own services, the operator's network, a metadata server). So only addresses of the public internet are
//! dialled, and what the operator allows by prefix. Names are checked after they were resolved, and the checked address
//! is the one dialled ([`Resolver`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::prefix::Prefix;

/// Public addresses, and what the operator added.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    pub allow: Vec<Prefix>,
}

/// An address that hosts do not fetch from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{ip} is {kind}; an operator can allow it with --image-allow-prefix")]
pub struct Refused {
    pub ip: IpAddr,
    pub kind: &'static str,
}

impl Policy {
    pub fn check(&self, ip: IpAddr) -> Result<(), Refused> {
        // ::ffff:10.0.0.1 is dialled as 10.0.0.1.
        let plain = ip.to_canonical();
        if self.allow.iter().any(|prefix| prefix.contains(plain)) {
            return Ok(());
        }
        match special(plain) {
            Some(kind) => Err(Refused { ip, kind }),
            None => Ok(()),
        }
    }
}

/// What kind of address it is, when it is not one of the public internet (IANA's special-purpose registries).
fn special(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => special_v4(ip),
        IpAddr::V6(ip) => special_v6(ip),
    }
}

fn special_v4(ip: Ipv4Addr) -> Option<&'static str> {
    const TABLE: &[(Prefix, &str)] = &[
        (Prefix::v4(0, 0, 0, 0, 8), "an address of this host (unspecified)"),
        (Prefix::v4(10, 0, 0, 0, 8), "a private address"),
        (Prefix::v4(100, 64, 0, 0, 10), "a carrier-grade NAT address"),
        (Prefix::v4(127, 0, 0, 0, 8), "a loopback address"),
        (Prefix::v4(169, 254, 0, 0, 16), "a link-local address"),
        (Prefix::v4(172, 16, 0, 0, 12), "a private address"),
        (Prefix::v4(192, 0, 0, 0, 24), "an address of a special protocol"),
        (Prefix::v4(192, 0, 2, 0, 24), "a documentation address"),
        (Prefix::v4(192, 88, 99, 0, 24), "a 6to4 relay address"),
        (Prefix::v4(192, 168, 0, 0, 16), "a private address"),
        (Prefix::v4(198, 18, 0, 0, 15), "a benchmarking address"),
        (Prefix::v4(198, 51, 100, 0, 24), "a documentation address"),
        (Prefix::v4(203, 0, 113, 0, 24), "a documentation address"),
        (Prefix::v4(224, 0, 0, 0, 4), "a multicast address"),
        (Prefix::v4(240, 0, 0, 0, 4), "a reserved address"),
    ];
    TABLE.iter().find(|(prefix, _)| prefix.contains(ip.into())).map(|row| row.1)
}

fn special_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let [a, b, c, d, ..] = ip.segments();
    let low = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    let [.., y, z] = ip.segments();
    match (a, b) {
        _ if ip.is_unspecified() => Some("an address of this host (unspecified)"),
        _ if ip.is_loopback() => Some("a loopback address"),
        (0xfe80..=0xfebf, _) => Some("a link-local address"),
        (0xfc00..=0xfdff, _) => Some("a private (unique local) address"),
        (0xfec0..=0xfeff, _) => Some("a site-local address"),
        (0xff00..=0xffff, _) => Some("a multicast address"),
        // Addresses that carry an IPv4 address go where that one goes.
        (0x0064, 0xff9b) if c == 0 && d == 0 => special_v4(low(y, z)),
        (0x2002, _) => special_v4(low(b, c)),
        (0x2001, 0x0000..=0x01ff) => Some("an address of a special protocol"),
        (0x2001, 0x0db8) | (0x3fff, 0x0000..=0x0fff) => Some("a documentation address"),
        (0x2000..=0x3fff, _) => None,
        _ => Some("not an address of the public internet"),
    }
}

/// Resolves names for the HTTP client and lets through only addresses that the policy permits: the address that was
/// checked is the address that is dialled, so a name cannot change between check and use.
#[derive(Debug, Clone)]
pub struct Resolver(pub Policy);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let mut refused = None;
            let permitted: Vec<SocketAddr> = found
                .filter(|address| match policy.check(address.ip()) {
                    Ok(()) => true,
                    Err(reason) => {
                        refused = Some(reason);
                        false
                    }
                })
                .collect();
            match (permitted.is_empty(), refused) {
                (true, Some(refused)) => Err(refused.into()),
                (true, None) => Err(format!("{} has no address", name.as_str()).into()),
                (false, _) => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(allow: &[&str], ip: &str) -> bool {
        let policy = Policy { allow: allow.iter().map(|p| p.parse().unwrap()).collect() };
        policy.check(ip.parse().unwrap()).is_ok()
    }

    #[test]
    fn public_addresses_only() {
        for ip in ["1.1.1.1", "8.8.8.8", "151.101.2.132", "172.32.0.1", "100.128.0.1", "2a04:4e42::644", "2606:4700::1"]
        {
            assert!(permits(&[], ip), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "4000::1",
        ] {
            assert!(!permits(&[], ip), "{ip}");
        }
        // An embedded public address is as public as itself.
        assert!(permits(&[], "64:ff9b::1.1.1.1"));
        assert!(permits(&[], "::ffff:1.1.1.1"));
    }

    #[test]
    fn the_operator_may_allow_a_prefix_and_only_that() {
        assert!(permits(&["10.0.0.0/8"], "10.200.3.4"));
        assert!(permits(&["10.0.0.0/8"], "::ffff:10.200.3.4"));
        assert!(!permits(&["10.0.0.0/8"], "11.0.0.1") || permits(&[], "11.0.0.1"));
        assert!(!permits(&["10.0.0.0/8"], "192.168.0.1"));
        assert!(permits(&["127.0.0.1/32"], "127.0.0.1"));
        assert!(!permits(&["127.0.0.1/32"], "127.0.0.2"));
        assert!(permits(&["fd00::/8"], "fd12::1"));
        assert!(permits(&["0.0.0.0/0"], "127.0.0.1"));
        assert!(!permits(&["0.0.0.0/0"], "::1"));
    }
}
