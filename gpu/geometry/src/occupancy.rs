//! What of a board is taken, and whether one more piece fits beside it.

use std::fmt;

use crate::board::{Board, Media, Placement, Profile, low_bits};
use crate::{Atom, MAX_SLICES};

/// A set of atoms of one board: what one claim holds, or what all of them hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Occupancy {
    /// Bit n: `m{n}`.
    memory: u8,
    /// Bit n: `c{n}`.
    compute: u8,
    /// Bit n: `e{n}`.
    engines: u8,
    /// Bit n: `me{n}`.
    media: u8,
}

/// A piece that fits: where it lies, and every atom it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub placement: Placement,
    pub atoms: Occupancy,
}

/// The first thing that keeps a piece from fitting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The profile is never placed there, taken or not.
    NoSuchStart { start: u8, starts: Vec<u8> },
    /// Memory slices under the placement that others hold.
    MemoryTaken(Vec<Atom>),
    /// Fewer compute slices are free than the profile takes.
    ComputeShort { needs: u8, free: u8 },
    /// Others hold more of the media engines than the profile can do without.
    EnginesShort { needs: u8, free: u8 },
    /// Another instance holds the media extension engines.
    MediaTaken,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::NoSuchStart { start, starts } => write!(f, "no placement starts at {start}, only at {starts:?}"),
            Misfit::MemoryTaken(atoms) => {
                let names: Vec<_> = atoms.iter().map(Atom::to_string).collect();
                write!(f, "memory slices {} are taken", names.join(", "))
            }
            Misfit::ComputeShort { needs, free } => write!(f, "{needs} compute slices are needed and {free} are free"),
            Misfit::EnginesShort { needs, free } => {
                write!(f, "{needs} shares of the media engines are needed and {free} are free")
            }
            Misfit::MediaTaken => write!(f, "the media extension engines are taken"),
        }
    }
}

impl std::error::Error for Misfit {}

impl Occupancy {
    /// Nothing is taken.
    pub const EMPTY: Occupancy = Occupancy { memory: 0, compute: 0, engines: 0, media: 0 };

    /// Every atom of the board: what a claim on the whole GPU holds.
    #[must_use]
    pub fn whole(board: &Board) -> Occupancy {
        let (memory, compute) = (low_bits(board.memory_slices()), low_bits(board.compute_slices()));
        Occupancy { memory, compute, engines: low_bits(board.engine_shares()), media: 1 }
    }

    /// The atoms of several claims together.
    #[must_use]
    pub fn union(self, other: Occupancy) -> Occupancy {
        Occupancy {
            memory: self.memory | other.memory,
            compute: self.compute | other.compute,
            engines: self.engines | other.engines,
            media: self.media | other.media,
        }
    }

    /// What stays when `other` is given back.
    #[must_use]
    pub fn without(self, other: Occupancy) -> Occupancy {
        Occupancy {
            memory: self.memory & !other.memory,
            compute: self.compute & !other.compute,
            engines: self.engines & !other.engines,
            media: self.media & !other.media,
        }
    }

    /// Do the two share an atom?
    #[must_use]
    pub fn overlaps(self, other: Occupancy) -> bool {
        let shared = [
            self.memory & other.memory,
            self.compute & other.compute,
            self.engines & other.engines,
            self.media & other.media,
        ];
        shared != [0; 4]
    }

    /// In order: memory, compute, engines, media.
    pub fn atoms(self) -> impl Iterator<Item = Atom> {
        let compute = bits(self.compute).map(|slice| Atom::Compute { slice });
        let engines = bits(self.engines).map(|share| Atom::Engine { share });
        memory(self.memory).chain(compute).chain(engines).chain(bits(self.media).map(|set| Atom::Media { set }))
    }

    /// The piece that `profile` at `start` would take beside what is taken, or the first reason why not.
    ///
    /// Compute slices and engines are handed out from the lowest free one: they are alike, so any choice is as good for what follows.
    pub fn fits(self, board: &Board, profile: &Profile, start: u8) -> Result<Claim, Misfit> {
        let placement = Placement { start, size: profile.memory_slices };
        if !profile.starts.contains(&start) || placement.end() > board.memory_slices() {
            return Err(Misfit::NoSuchStart { start, starts: profile.starts.clone() });
        }
        let slices = low_bits(placement.end()) & !low_bits(start);
        let taken = self.memory & slices;
        if taken != 0 {
            return Err(Misfit::MemoryTaken(memory(taken).collect()));
        }
        let free = Occupancy::whole(board).without(self);
        let compute = lowest(free.compute, profile.compute_slices)
            .ok_or(Misfit::ComputeShort { needs: profile.compute_slices, free: count(free.compute) })?;
        let needs = board.engine_shares_of(profile);
        let engines = lowest(free.engines, needs).ok_or(Misfit::EnginesShort { needs, free: count(free.engines) })?;
        let media = match profile.media {
            Media::None | Media::Share => 0,
            Media::Extension | Media::All if self.media == 0 => 1,
            Media::Extension | Media::All => return Err(Misfit::MediaTaken),
        };
        Ok(Claim { placement, atoms: Occupancy { memory: slices, compute, engines, media } })
    }

    pub(crate) fn memory_count(self) -> u8 {
        count(self.memory)
    }

    /// What of the board is free: its memory slices, and how many of one profile the rest is enough for.
    pub(crate) fn free(self, board: &Board, profile: &Profile) -> (u8, u8) {
        let free = Occupancy::whole(board).without(self);
        let by_engines = count(free.engines).checked_div(board.engine_shares_of(profile));
        let by_media = match profile.media {
            Media::None | Media::Share => None,
            Media::Extension | Media::All => Some(count(free.media)),
        };
        let limits = [Some(count(free.compute) / profile.compute_slices), by_engines, by_media];
        (free.memory, limits.into_iter().flatten().min().unwrap_or(0))
    }

    /// Every piece that would fit now, in the order of the board's profiles and their starts. They exclude each other:
    /// take one and ask again.
    pub fn placements_free<'a>(self, board: &'a Board) -> impl Iterator<Item = (&'a Profile, Claim)> + 'a {
        board.profiles().iter().flat_map(move |profile| {
            profile.starts.iter().filter_map(move |&start| Some((profile, self.fits(board, profile, start).ok()?)))
        })
    }
}

impl FromIterator<Atom> for Occupancy {
    fn from_iter<I: IntoIterator<Item = Atom>>(atoms: I) -> Self {
        let mut occupancy = Occupancy::EMPTY;
        for atom in atoms {
            match atom {
                Atom::Memory { slice } => occupancy.memory |= 1 << slice,
                Atom::Compute { slice } => occupancy.compute |= 1 << slice,
                Atom::Engine { share } => occupancy.engines |= 1 << share,
                Atom::Media { set } => occupancy.media |= 1 << set,
            }
        }
        occupancy
    }
}

fn count(bits: u8) -> u8 {
    u8::try_from(bits.count_ones()).unwrap_or(MAX_SLICES)
}

fn bits(mask: u8) -> impl Iterator<Item = u8> {
    (0..MAX_SLICES).filter(move |n| mask & (1 << n) != 0)
}

fn memory(mask: u8) -> impl Iterator<Item = Atom> {
    bits(mask).map(|slice| Atom::Memory { slice })
}

/// The lowest `count` bits of `free`, if it has so many.
fn lowest(free: u8, count: u8) -> Option<u8> {
    let chosen = bits(free).take(usize::from(count)).fold(0_u8, |mask, n| mask | (1 << n));
    (chosen.count_ones() == u32::from(count)).then_some(chosen)
}
