//! IPv4 subnets: the range that tenants' networks come from, and which /24 of it is free.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 prefix, aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    length: u8,
}

impl Subnet {
    fn new(address: Ipv4Addr, length: u8) -> Self {
        Self { base: address.to_bits() & mask(length), length }
    }

    /// The /24 that the host's address in a tenant's network lies in.
    pub fn of_gateway(gateway: Ipv4Addr) -> Self {
        Self::new(gateway, 24)
    }

    /// The host's own address in it.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + 1)
    }

    /// Addresses for guests, lowest first.
    pub fn guests(self) -> impl Iterator<Item = Ipv4Addr> {
        let last = self.base | !mask(self.length);
        (self.base + 2..last).map(Ipv4Addr::from_bits)
    }

    fn overlaps(self, other: Self) -> bool {
        let common = mask(self.length.min(other.length));
        self.base & common == other.base & common
    }

    /// The first free /24 of this range, beginning anywhere (`seed`) and going round once.
    pub fn free_24(self, seed: u32, taken: &[Self]) -> Option<Self> {
        let count = 1u32 << (24 - self.length);
        let nth = |n: u32| Self { base: self.base + ((seed.wrapping_add(n) % count) << 8), length: 24 };
        (0..count).map(nth).find(|candidate| !taken.iter().any(|other| candidate.overlaps(*other)))
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(u32::from(32 - length.min(32))).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an IPv4 prefix from /8 to /24 such as 10.200.0.0/14");
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().ok().filter(|length| (8..=24).contains(length)).ok_or_else(wrong)?;
        let subnet = Self::new(address, length);
        if subnet.base != address.to_bits() {
            return Err(format!("`{text}` has bits set beyond its length; did you mean {subnet}?"));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.base), self.length)
    }
}

/// What this host routes somewhere, its own networks included; not the default route.
pub fn routed() -> std::io::Result<Vec<Subnet>> {
    Ok(parse_routes(&std::fs::read_to_string("/proc/net/route")?))
}

/// Columns: Iface Destination Gateway Flags RefCnt Use Metric Mask …, numbers in hex as they lie in memory.
fn parse_routes(text: &str) -> Vec<Subnet> {
    let number = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::from_le).map(u32::swap_bytes);
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (destination, mask) = (number(fields.get(1)?)?, number(fields.get(7)?)?);
        let length = u8::try_from(mask.leading_ones()).ok()?;
        (length > 0).then(|| Subnet::new(Ipv4Addr::from_bits(destination), length))
    };
    text.lines().skip(1).filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_free_subnet_beginning_anywhere() {
        let range = subnet("10.200.0.0/22");
        assert_eq!(range.free_24(5, &[]), Some(subnet("10.200.1.0/24")));
        assert_eq!(range.free_24(5, &[subnet("10.200.1.0/24")]), Some(subnet("10.200.2.0/24")));
        // A wider route and a narrower one both take the whole /24.
        let taken = [subnet("10.200.0.0/23"), Subnet::new(Ipv4Addr::new(10, 200, 2, 64), 28)];
        assert_eq!(range.free_24(5, &taken), Some(subnet("10.200.3.0/24")));
        assert_eq!(range.free_24(5, &[subnet("10.200.0.0/16")]), None);
        assert_eq!(range.free_24(u32::MAX, &[]), Some(subnet("10.200.3.0/24")));
    }

    #[test]
    fn guests_have_every_address_but_three() {
        let guests: Vec<_> = subnet("10.200.7.0/24").guests().collect();
        assert_eq!((guests.len(), guests[0]), (253, Ipv4Addr::new(10, 200, 7, 2)));
        assert_eq!(guests[252], Ipv4Addr::new(10, 200, 7, 254));
        assert_eq!(Subnet::of_gateway(Ipv4Addr::new(10, 200, 7, 1)).gateway(), Ipv4Addr::new(10, 200, 7, 1));
    }

    #[test]
    fn routes_as_the_kernel_prints_them() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                    eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t0000FFFF\t0\t0\t0\n\
                    tun0\t0500C80A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n";
        let routes: Vec<String> = parse_routes(text).iter().map(ToString::to_string).collect();
        assert_eq!(routes, ["192.168.0.0/16", "10.200.0.5/32"]);
    }

    #[test]
    fn ranges_are_parsed_strictly() {
        for wrong in ["10.0.0.0", "10.0.0.0/7", "10.0.0.0/25", "10.0.0.1/24", "fd00::/16", "x/16"] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
    }
}
