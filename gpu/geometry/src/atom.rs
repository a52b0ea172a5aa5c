//! The names of the smallest pieces of a GPU that a claim can hold. The database keeps one row for each, under a primary
//! key, so that it refuses by itself what would overlap.

use std::fmt;
use std::str::FromStr;

use crate::MAX_SLICES;

/// One indivisible piece of a MIG board. Written `m0`, `c0`, `e0`, `me0`.
///
/// Made only here, by parsing and by [`crate::Occupancy`]: the number always fits the bit sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// A memory slice, numbered as the driver numbers placements.
    #[non_exhaustive]
    Memory { slice: u8 },
    /// A compute slice. The hardware only counts them; the numbers are ours.
    #[non_exhaustive]
    Compute { slice: u8 },
    /// A share of the media engines, on boards whose instances may have all or none of them. The numbers are ours.
    #[non_exhaustive]
    Engine { share: u8 },
    /// The media extension engines (`+me`), of which a board lends one set.
    #[non_exhaustive]
    Media { set: u8 },
}

/// Not the name of an atom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAtomError(String);

impl fmt::Display for ParseAtomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no atom: expected m0 to m7, c0 to c7, e0 to e7 or me0", self.0)
    }
}

impl std::error::Error for ParseAtomError {}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Memory { slice } => write!(f, "m{slice}"),
            Atom::Compute { slice } => write!(f, "c{slice}"),
            Atom::Engine { share } => write!(f, "e{share}"),
            Atom::Media { set } => write!(f, "me{set}"),
        }
    }
}

impl FromStr for Atom {
    type Err = ParseAtomError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseAtomError(text.to_owned());
        let digits_from = text.find(|c: char| c.is_ascii_digit()).ok_or_else(bad)?;
        let (kind, number) = text.split_at(digits_from);
        // One digit, so that an atom has one spelling: `m07` would be a second row for the same slice.
        let [digit @ b'0'..=b'9'] = number.as_bytes() else { return Err(bad()) };
        let number = digit - b'0';
        match kind {
            "m" if number < MAX_SLICES => Ok(Atom::Memory { slice: number }),
            "c" if number < MAX_SLICES => Ok(Atom::Compute { slice: number }),
            "e" if number < MAX_SLICES => Ok(Atom::Engine { share: number }),
            "me" if number == 0 => Ok(Atom::Media { set: number }),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_atom_reads_back_as_itself() {
        let of = |n| [Atom::Memory { slice: n }, Atom::Compute { slice: n }, Atom::Engine { share: n }];
        let slices = (0..MAX_SLICES).flat_map(of);
        for atom in slices.chain([Atom::Media { set: 0 }]) {
            assert_eq!(atom.to_string().parse(), Ok(atom));
        }
        assert_eq!(
            [Atom::Memory { slice: 0 }, Atom::Compute { slice: 6 }, Atom::Media { set: 0 }].map(|a| a.to_string()),
            ["m0", "c6", "me0"]
        );
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in ["", "m", "0", "m8", "e8", "m07", "c-1", "me1", "M0", "m0 ", "x0", "m0x", "mé0"] {
            assert!(text.parse::<Atom>().is_err(), "{text:?} was taken for an atom");
        }
    }
}
