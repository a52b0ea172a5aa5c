//! Versions, as far as they are compared: the first two numbers.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The first `X.Y` in a text: of `QEMU emulator version 7.2.22 (Debian …)`, of `6.12.38+deb13-amd64`.
    #[must_use]
    pub fn find(text: &str) -> Option<Version> {
        let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
        words.filter(|word| !word.starts_with('.')).find_map(|word| {
            let mut numbers = word.split('.').map(str::parse);
            Some(Version(numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pair_of_numbers_counts() {
        assert_eq!(Version::find("libvirtd (libvirt) 9.0.0"), Some(Version(9, 0)));
        assert_eq!(Version::find("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"), Some(Version(10, 0)));
        assert_eq!(Version::find("6.12.38+deb13-amd64"), Some(Version(6, 12)));
        for none in ["", "version 9", "x86_64", "...", "1."] {
            assert_eq!(Version::find(none), None, "{none:?}");
        }
        assert!(Version(5, 15) < Version(6, 1) && Version(6, 2) < Version(6, 12));
    }
}
