//! What the name of one of NVIDIA's vGPU types says: whether it stands on a GPU instance, and on which kind.
//!
//! ```text
//!  H100XM-20C      a time-sliced share of 20 GB
//!  H100XM-2-20C    on an instance of 2 compute slices and 20 GB: 2g.20gb
//!  A100D-1-10CME   on 1g.10gb+me
//!  DC-1-3Q         one of several of 3 GB on an instance of 1 slice that does graphics: 1g.24gb+gfx
//! ```

/// A type's name in its parts. The letters `Q`, `C`, `B` and `A` name the licence and are of no concern here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName {
    /// Compute slices of the GPU instance below; `None`: time-sliced over the whole GPU.
    pub slices: Option<u8>,
    /// Nominal framebuffer, in GB as the name counts it.
    pub gigabytes: u32,
    /// The suffix of the instance's profile: ``, `+me`, `-me`, `+me.all`, `+gfx`.
    suffix: &'static str,
}

impl TypeName {
    /// `None`: not a name of this form, from which nothing is to be concluded. (`H100-80` is one of them without its `C`.)
    #[must_use]
    pub fn parse(name: &str) -> Option<TypeName> {
        let (rest, last) = name.rsplit_once('-')?;
        let letters = last.trim_start_matches(|c: char| c.is_ascii_digit());
        let gigabytes = last[..last.len() - letters.len()].parse().ok()?;
        let suffix = match letters.strip_prefix(['Q', 'C', 'B', 'A']).unwrap_or(letters) {
            "" => "",
            "ME" => "+me",
            "NOME" => "-me",
            "MEALL" => "+me.all",
            "GFX" => "+gfx",
            _ => return None,
        };
        // One digit behind the board: `RTX6000-Ada-48Q` has a word there and is time-sliced.
        let slices = match rest.rsplit_once('-').map(|(_, slices)| slices.as_bytes()) {
            Some([digit @ b'1'..=b'9']) => Some(digit - b'0'),
            _ => None,
        };
        Some(TypeName { slices, gigabytes, suffix })
    }

    /// Can it stand on an instance of this profile (`2g.20gb`, `1g.24gb+gfx`)? The driver decides; this only refuses early
    /// what it is known to refuse.
    #[must_use]
    pub fn stands_on(&self, profile: &str) -> bool {
        let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).count();
        let Some((slices, rest)) = profile.split_once("g.") else { return false };
        let (gigabytes, rest) = rest.split_at(digits(rest));
        let (Ok(slices), Ok(gigabytes)) = (slices.parse::<u8>(), gigabytes.parse::<u32>()) else { return false };
        let Some(suffix) = rest.strip_prefix("gb") else { return false };
        if self.slices != Some(slices) {
            return false;
        }
        // Instances that do graphics are shared out in smaller pieces, and their types need not say so in their names.
        let shared = suffix == "+gfx" && matches!(self.suffix, "" | "+gfx") && self.gigabytes <= gigabytes;
        shared || self.suffix == suffix && self.gigabytes == gigabytes
    }

    /// Does one of them take all the memory of an instance of this profile?
    #[must_use]
    pub fn fills(&self, profile: &str) -> bool {
        profile.split_once("g.").is_some_and(|(_, memory)| memory.starts_with(&format!("{}gb", self.gigabytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_stand_on() {
        let parsed = |name| TypeName::parse(name).map(|name| (name.slices, name.gigabytes, name.suffix));
        assert_eq!(parsed("H100XM-20C"), Some((None, 20, "")));
        assert_eq!(parsed("H100XM-2-20C"), Some((Some(2), 20, "")));
        assert_eq!(parsed("GRID A100D-1-10CME"), Some((Some(1), 10, "+me")));
        assert_eq!(parsed("RTX6000-Ada-48Q"), Some((None, 48, "")));
        assert_eq!(parsed("DC-1-24QGFX"), Some((Some(1), 24, "+gfx")));
        assert_eq!(parsed("H100-80"), Some((None, 80, "")));
        for name in ["", "mtty-x", "H100XM", "H100XM-", "H100XM-2-20X", "H100XM-2-C"] {
            assert_eq!(parsed(name), None, "{name:?}");
        }
    }

    /// The tables of types by board: each stands on the profile that is named beside it, and on no other of that board.
    #[test]
    fn types_stand_on_their_own_profile_only() {
        let h100 = ["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"];
        let h200 = ["1g.18gb", "1g.18gb+me", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"];
        let types = |board: &str, names: [&str; 7]| names.map(|name| format!("{board}-{name}"));
        let boards = [
            (types("H100XM", ["1-10C", "1-10CME", "1-20C", "2-20C", "3-40C", "4-40C", "7-80C"]), h100),
            (types("H200X", ["1-18C", "1-18CME", "1-35C", "2-35C", "3-71C", "4-71C", "7-141C"]), h200),
        ];
        for (types, profiles) in boards {
            for (name, own) in types.iter().zip(profiles) {
                let name = TypeName::parse(name).unwrap();
                let standing: Vec<_> = profiles.into_iter().filter(|profile| name.stands_on(profile)).collect();
                assert_eq!(standing, [own], "{name:?}");
            }
        }
        assert!(!TypeName::parse("H100XM-20C").unwrap().stands_on("2g.20gb"), "time-sliced");
        let small = TypeName::parse("DC-1-3Q").unwrap();
        assert!(small.stands_on("1g.24gb+gfx") && !small.stands_on("1g.24gb") && !small.stands_on("2g.48gb+gfx"));
        assert!(!TypeName::parse("DC-1-48Q").unwrap().stands_on("1g.24gb+gfx"));
        for garbage in ["", "1g", "g.gb", "1g.gb", "1g.24", "xg.24gb+gfx"] {
            assert!(!small.stands_on(garbage), "{garbage:?}");
        }
    }
}
