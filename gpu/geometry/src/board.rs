//! What can be cut from one board, as its host reports it.

use std::fmt;

use crate::MAX_SLICES;

/// What an instance takes of its board's media engines (decoders, JPEG, optical flow). Its profile's name says it.
///
/// By the listings of an RTX PRO 6000, the one board here that lists all four kinds: of its four decoders a 1g has one and a
/// 2g two, a `-me` none, and a `+me.all` all four. Instances share no engine, so beside a `+me.all` only `-me` fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `-me`
    None,
    /// As large a part of them as of the compute slices.
    Share,
    /// `+me`: and those of which a board lends one set.
    Extension,
    /// `+me.all`
    All,
}

impl Media {
    /// By a profile's name, as every board spells it.
    #[must_use]
    pub fn of(profile: &str) -> Media {
        match profile.find(['+', '-']).map(|at| &profile[at..]) {
            Some("-me") => Media::None,
            Some("+me") => Media::Extension,
            Some("+me.all") => Media::All,
            _ => Media::Share,
        }
    }
}

/// A kind of GPU instance, by its name on this board. Numeric profile ids differ between boards and are no part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// `3g.40gb`, `1g.10gb+me`
    pub name: String,
    /// Length of a placement, in memory slices.
    pub memory_slices: u8,
    /// Memory slices where a placement may start, as the driver lists them.
    pub starts: Vec<u8>,
    /// Compute slices each instance takes. Not to be derived from `memory_slices`: a 3g takes 4 and 3.
    pub compute_slices: u8,
    pub media: Media,
}

/// A run of memory slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Placement {
    pub start: u8,
    pub size: u8,
}

impl Placement {
    /// Do the two share a memory slice?
    #[must_use]
    pub fn overlaps(self, other: Placement) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// The first memory slice behind it.
    #[must_use]
    pub fn end(self) -> u8 {
        self.start.saturating_add(self.size)
    }
}

/// The lowest `count` bits of a slice set; all of them from [`MAX_SLICES`] on.
pub(crate) fn low_bits(count: u8) -> u8 {
    !u8::MAX.checked_shl(count.into()).unwrap_or(0)
}

/// One model of board: its rulers, and the profiles that divide them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    memory_slices: u8,
    compute_slices: u8,
    /// Shares of the media engines, where instances may take more or less of them than of compute slices; else 0: then the
    /// compute slices tell all.
    engine_shares: u8,
    profiles: Vec<Profile>,
    /// Indices into `profiles`.
    largest_first: Vec<usize>,
}

/// A reported board that contradicts itself. Nothing is placed on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoardError {
    /// A ruler of no length, or longer than [`MAX_SLICES`].
    Slices { memory: u8, compute: u8 },
    /// A profile larger than the board, of no size, or without a start.
    Size { profile: String },
    /// A placement that ends beyond the board.
    Start { profile: String, start: u8 },
    /// Two profiles, or two starts of one profile, of the same name.
    Twice { profile: String },
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BoardError::Slices { memory, compute } => {
                write!(f, "{memory} memory and {compute} compute slices: each must be 1 to {MAX_SLICES}")
            }
            BoardError::Size { profile } => write!(f, "profile {profile} can be placed nowhere on its board"),
            BoardError::Start { profile, start } => write!(f, "profile {profile} at {start} ends beyond its board"),
            BoardError::Twice { profile } => write!(f, "profile {profile} or one of its starts is listed twice"),
        }
    }
}

impl std::error::Error for BoardError {}

impl Board {
    /// Takes a report, if it can be true of any board.
    pub fn new(memory_slices: u8, compute_slices: u8, profiles: Vec<Profile>) -> Result<Board, BoardError> {
        let lengths = 1..=MAX_SLICES;
        if !lengths.contains(&memory_slices) || !lengths.contains(&compute_slices) {
            return Err(BoardError::Slices { memory: memory_slices, compute: compute_slices });
        }
        for (at, profile) in profiles.iter().enumerate() {
            let name = || profile.name.clone();
            if !(1..=memory_slices).contains(&profile.memory_slices)
                || !(1..=compute_slices).contains(&profile.compute_slices)
                || profile.starts.is_empty()
            {
                return Err(BoardError::Size { profile: name() });
            }
            if let Some(&start) = profile.starts.iter().find(|&&start| start > memory_slices - profile.memory_slices) {
                return Err(BoardError::Start { profile: name(), start });
            }
            let start_twice = profile.starts.iter().enumerate().any(|(n, start)| profile.starts[..n].contains(start));
            if start_twice || profiles[..at].iter().any(|earlier| earlier.name == profile.name) {
                return Err(BoardError::Twice { profile: name() });
            }
        }
        let mut largest_first: Vec<usize> = (0..profiles.len()).collect();
        largest_first.sort_by_key(|&at| std::cmp::Reverse((profiles[at].compute_slices, profiles[at].memory_slices)));
        let lists_all = profiles.iter().any(|profile| profile.media == Media::All);
        let engine_shares = if lists_all { compute_slices } else { 0 };
        Ok(Board { memory_slices, compute_slices, engine_shares, profiles, largest_first })
    }

    #[must_use]
    pub fn memory_slices(&self) -> u8 {
        self.memory_slices
    }

    #[must_use]
    pub fn compute_slices(&self) -> u8 {
        self.compute_slices
    }

    pub(crate) fn engine_shares(&self) -> u8 {
        self.engine_shares
    }

    /// How many of them an instance takes.
    pub(crate) fn engine_shares_of(&self, profile: &Profile) -> u8 {
        match profile.media {
            Media::None => 0,
            Media::Share | Media::Extension => profile.compute_slices.min(self.engine_shares),
            Media::All => self.engine_shares,
        }
    }

    #[must_use]
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// The order in which profiles weigh: by compute slices, then memory; alike ones as they are listed.
    pub(crate) fn largest_first(&self) -> &[usize] {
        &self.largest_first
    }

    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }
}
