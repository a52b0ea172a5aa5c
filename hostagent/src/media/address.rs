//! Which addresses a host may fetch images from.
//!
//! A tenant chooses the URL and the host sends the request: without this, a tenant could read what only the host can
//! reach (its own services, the operator's network, a metadata server). So only addresses of the public internet are
//! dialled, and what the operator allows by prefix. Names are checked after they were resolved, and the checked address
//! is the one dialled ([`Resolver`]).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A network prefix such as `10.0.0.0/8` or `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => covers(net.to_bits().into(), ip.to_bits().into(), 32, self.length),
            (IpAddr::V6(net), IpAddr::V6(ip)) => covers(net.to_bits(), ip.to_bits(), 128, self.length),
            _ => false,
        }
    }
}

fn covers(net: u128, ip: u128, width: u8, length: u8) -> bool {
    let shift = u32::from(width.saturating_sub(length));
    // A shift by the whole width (a /0) covers everything.
    (net ^ ip).checked_shr(shift).unwrap_or(0) == 0
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a network prefix such as 10.0.0.0/8 or fd00::/8");
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().map_err(|_| wrong())?;
        if length > if address.is_ipv4() { 32 } else { 128 } {
            return Err(wrong());
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

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
    const TABLE: &[(Ipv4Addr, u8, &str)] = &[
        (Ipv4Addr::new(0, 0, 0, 0), 8, "an address of this host (unspecified)"),
        (Ipv4Addr::new(10, 0, 0, 0), 8, "a private address"),
        (Ipv4Addr::new(100, 64, 0, 0), 10, "a carrier-grade NAT address"),
        (Ipv4Addr::new(127, 0, 0, 0), 8, "a loopback address"),
        (Ipv4Addr::new(169, 254, 0, 0), 16, "a link-local address"),
        (Ipv4Addr::new(172, 16, 0, 0), 12, "a private address"),
        (Ipv4Addr::new(192, 0, 0, 0), 24, "an address of a special protocol"),
        (Ipv4Addr::new(192, 0, 2, 0), 24, "a documentation address"),
        (Ipv4Addr::new(192, 88, 99, 0), 24, "a 6to4 relay address"),
        (Ipv4Addr::new(192, 168, 0, 0), 16, "a private address"),
        (Ipv4Addr::new(198, 18, 0, 0), 15, "a benchmarking address"),
        (Ipv4Addr::new(198, 51, 100, 0), 24, "a documentation address"),
        (Ipv4Addr::new(203, 0, 113, 0), 24, "a documentation address"),
        (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast address"),
        (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved address"),
    ];
    let hit = |(net, length, _): &&(Ipv4Addr, u8, &str)| covers(net.to_bits().into(), ip.to_bits().into(), 32, *length);
    TABLE.iter().find(hit).map(|row| row.2)
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

    #[test]
    fn prefixes_are_parsed_strictly() {
        for wrong in ["10.0.0.0", "10.0.0.0/33", "fd00::/129", "/8", "x/8", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
        assert_eq!("10.0.0.0/8".parse::<Prefix>().unwrap().to_string(), "10.0.0.0/8");
    }
}
