//! The smallest pieces of a device that a claim can hold. The database keeps a row for each under a primary key (host, device,
//! atom), so that it refuses by itself whatever would overlap.
//!
//! | held | rows |
//! |---|---|
//! | a USB device, a function | `whole` of it; a virtual one also `vfN` of its physical function |
//! | a whole GPU or physical function | `whole`, every `vfN` it can have, every `mN` `cN` `me0` of its board |
//! | a companion of an IOMMU group | the same, as if it had been asked for |
//! | a MIG-backed vGPU | its `mN`, `cN`, `me0`, and one `vfN` |
//! | a time-sliced vGPU | one `vfN`, and framebuffer on the GPU's row |

use std::fmt;
use std::str::FromStr;

use croft_gpu_geometry as geometry;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    Whole,
    /// `vf3`: the virtual function of that index, which need not exist yet.
    Function(u16),
    Mig(geometry::Atom),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no atom of a device")]
pub struct ParseAtomError(String);

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("whole"),
            Self::Function(index) => write!(f, "vf{index}"),
            Self::Mig(atom) => atom.fmt(f),
        }
    }
}

impl FromStr for Atom {
    type Err = ParseAtomError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseAtomError(text.to_owned());
        if text == "whole" {
            return Ok(Self::Whole);
        }
        if let Some(index) = text.strip_prefix("vf") {
            let index: u16 = index.parse().map_err(|_| bad())?;
            // One spelling an atom: `vf03` would be a second row for the same function.
            return Some(Self::Function(index)).filter(|atom| atom.to_string() == text).ok_or_else(bad);
        }
        text.parse().map(Self::Mig).map_err(|_| bad())
    }
}

impl Serialize for Atom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Atom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_atom_has_one_spelling() {
        for text in ["whole", "vf0", "vf63", "m0", "c6", "me0"] {
            assert_eq!(text.parse::<Atom>().unwrap().to_string(), text);
        }
        for text in ["", "Whole", "vf", "vf03", "vf+1", "vf70000", "m9", "x"] {
            assert!(text.parse::<Atom>().is_err(), "{text:?}");
        }
    }
}
