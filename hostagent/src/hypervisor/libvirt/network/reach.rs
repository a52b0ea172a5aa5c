//! What guests on tenants' networks reach through the host: the public internet, and of private networks only what the
//! operator opens.
//!
//! | in order | is |
//! |---|---|
//! | [`CLOSED`] | never reached: nothing there is anybody's to open |
//! | `--tenant-deny-prefix` | the operator's own additions; they beat what is allowed |
//! | `--tenant-allow-prefix` | beats what is private |
//! | [`PRIVATE`] | not reached: strangers' guests stand in the middle of the operator's network |
//! | the rest | reached |
//!
//! Guests have no IPv6 (the firewall drops all of it), so nothing of it can be allowed, and all of it is denied.

use std::fmt;

use crate::prefix::Prefix;

/// This host, loopback, multicast, reserved.
pub const CLOSED: &[Prefix] =
    &[Prefix::v4(0, 0, 0, 0, 8), Prefix::v4(127, 0, 0, 0, 8), Prefix::v4(224, 0, 0, 0, 4), Prefix::v4(240, 0, 0, 0, 4)];

/// What is not of the public internet: whoever answers there is the operator's, or the operator's provider's.
pub const PRIVATE: &[Prefix] = &[
    Prefix::v4(10, 0, 0, 0, 8),
    // Carrier-grade NAT; overlay networks and clouds' metadata live in it.
    Prefix::v4(100, 64, 0, 0, 10),
    Prefix::v4(169, 254, 0, 0, 16),
    Prefix::v4(172, 16, 0, 0, 12),
    // Special protocols; a cloud's services live in it.
    Prefix::v4(192, 0, 0, 0, 24),
    Prefix::v4(192, 168, 0, 0, 16),
    // Benchmarks of networks, by their owners.
    Prefix::v4(198, 18, 0, 0, 15),
];

/// The operator's word on it; both empty: the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    pub allow: Vec<Prefix>,
    pub deny: Vec<Prefix>,
}

impl Reach {
    /// IPv4 prefixes that overlap nowhere, as older releases of nft want them in a set.
    pub fn allowed(&self) -> Vec<Prefix> {
        disjoint(&self.allow)
    }

    /// As [`Reach::allowed`]; all of IPv6 is denied anyhow.
    pub fn denied(&self) -> Vec<Prefix> {
        disjoint(&self.deny)
    }

    /// What was allowed in vain.
    pub fn overruled(&self) -> impl Iterator<Item = (&Prefix, &Prefix)> {
        self.allow.iter().filter_map(|allowed| Some((allowed, self.deny.iter().find(|denied| denied.covers(allowed))?)))
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |prefixes: &[Prefix]| match prefixes {
            [] => "nothing".to_owned(),
            some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        write!(f, "private networks: {}; denied besides: {}", list(&self.allow), list(&self.deny))
    }
}

/// Two prefixes that overlap lie one in the other, so leaving out the inner ones is enough.
fn disjoint(prefixes: &[Prefix]) -> Vec<Prefix> {
    let mut widest: Vec<Prefix> = Vec::new();
    for prefix in prefixes.iter().filter(|prefix| prefix.is_ipv4()) {
        if !widest.iter().any(|wider| wider.covers(prefix)) {
            widest.retain(|narrower| !prefix.covers(narrower));
            widest.push(*prefix);
        }
    }
    widest
}

/// A value of `--tenant-allow-prefix`: refused where it would open nothing.
pub fn allowable(text: &str) -> Result<Prefix, String> {
    let prefix: Prefix = text.parse()?;
    if !prefix.is_ipv4() {
        return Err(format!("`{prefix}` is IPv6, which tenants' networks do not carry; allow an IPv4 prefix"));
    }
    match CLOSED.iter().find(|closed| closed.covers(&prefix)) {
        Some(closed) => Err(format!("nothing in {closed} (this host, loopback, multicast, reserved) can be opened")),
        None => Ok(prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_widest_of_those_that_overlap() {
        let reach = Reach {
            allow: prefixes(&["10.1.0.0/16", "10.0.0.0/8", "10.2.0.0/16", "192.168.1.0/24", "192.168.1.0/24"]),
            deny: prefixes(&["fd00::/8", "10.9.0.0/16"]),
        };
        assert_eq!(reach.allowed(), prefixes(&["10.0.0.0/8", "192.168.1.0/24"]));
        assert_eq!(reach.denied(), prefixes(&["10.9.0.0/16"]));
    }

    #[test]
    fn what_is_allowed_in_vain_is_named() {
        let reach = Reach { allow: prefixes(&["10.1.0.0/16", "10.2.0.0/16"]), deny: prefixes(&["10.1.0.0/16"]) };
        assert_eq!(reach.overruled().map(|(allowed, _)| allowed.to_string()).collect::<Vec<_>>(), ["10.1.0.0/16"]);
        // A narrower exception is what denying is for.
        let reach = Reach { allow: prefixes(&["10.0.0.0/8"]), deny: prefixes(&["10.1.0.0/16"]) };
        assert_eq!(reach.overruled().count(), 0);
    }

    #[test]
    fn what_cannot_be_opened_is_refused_with_the_reason() {
        for (text, why) in [
            ("10.0.0.0", "not a network prefix"),
            ("10.1.0.0/8", "did you mean 10.0.0.0/8?"),
            ("fd00::/8", "IPv6"),
            ("127.0.0.1/32", "127.0.0.0/8"),
            ("224.0.0.0/24", "224.0.0.0/4"),
            ("255.255.255.255/32", "240.0.0.0/4"),
        ] {
            let error = allowable(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        for text in ["10.20.0.0/16", "0.0.0.0/0", "169.254.169.254/32", "203.0.113.0/24"] {
            allowable(text).unwrap();
        }
    }

    #[test]
    fn the_tables_overlap_nowhere() {
        let all: Vec<Prefix> = CLOSED.iter().chain(PRIVATE).copied().collect();
        assert_eq!(disjoint(&all), all);
        for prefix in all {
            assert_eq!(prefix.to_string().parse(), Ok(prefix), "aligned");
        }
    }
}
