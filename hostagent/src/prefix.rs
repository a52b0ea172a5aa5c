//! Network prefixes, as operators write them in options.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network prefix such as `10.0.0.0/8` or `fd00::/8`, aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// For tables in the source; the address must be aligned.
    #[must_use]
    pub const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), length }
    }

    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        masked(ip, self.length) == self.address
    }

    /// Whether `other` lies in this one; two prefixes that share an address always lie one in the other.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && self.contains(other.address)
    }
}

/// `ip` without the bits beyond `length`.
fn masked(ip: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a network prefix such as 10.0.0.0/8 or fd00::/8");
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = length.parse().ok().filter(|length| *length <= width).ok_or_else(wrong)?;
        let prefix = Self { address: masked(address, length), length };
        if prefix.address != address {
            return Err(format!("`{text}` has bits set beyond its length; did you mean {prefix}?"));
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_in_it_or_not() {
        let contains = |text: &str, ip: &str| prefix(text).contains(ip.parse().unwrap());
        assert!(contains("172.16.0.0/12", "172.31.255.255") && !contains("172.16.0.0/12", "172.32.0.0"));
        assert!(contains("fc00::/7", "fdff::1") && !contains("fc00::/7", "fe00::"));
        assert!(contains("10.1.2.3/32", "10.1.2.3") && !contains("10.1.2.3/32", "10.1.2.2"));
        assert!(contains("0.0.0.0/0", "255.255.255.255") && !contains("0.0.0.0/0", "::"));
        assert!(contains("::/0", "ffff::") && !contains("::/0", "1.1.1.1"));
    }

    #[test]
    fn a_prefix_is_in_another_or_not() {
        assert!(prefix("10.0.0.0/8").covers(&prefix("10.20.0.0/16")));
        assert!(prefix("10.0.0.0/8").covers(&prefix("10.0.0.0/8")));
        assert!(!prefix("10.20.0.0/16").covers(&prefix("10.0.0.0/8")));
        assert!(!prefix("10.0.0.0/8").covers(&prefix("11.0.0.0/9")));
        assert!(!prefix("::/0").covers(&prefix("10.0.0.0/8")));
        assert_eq!(Prefix::v4(10, 0, 0, 0, 8), prefix("10.0.0.0/8"));
    }

    #[test]
    fn parsed_strictly() {
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "/8", "x/8", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            let error = wrong.parse::<Prefix>().unwrap_err();
            assert!(error.contains("is not a network prefix"), "{error}");
        }
        for (wrong, meant) in [("10.0.0.1/8", "10.0.0.0/8"), ("fd00::1/8", "fd00::/8"), ("1.2.3.4/0", "0.0.0.0/0")] {
            let error = wrong.parse::<Prefix>().unwrap_err();
            assert!(error.contains(&format!("did you mean {meant}?")), "{error}");
        }
        assert_eq!(prefix("fd00::/8").to_string(), "fd00::/8");
    }
}
