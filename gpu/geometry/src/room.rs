//! What a board can still take, and which place for a piece spoils least of it.
//!
//! A 1g at slice 0 of an empty H100 makes a 7g, the 4g and one of two 3g impossible; at slice 6 the 4g stays possible. *Room*
//! counts, for each profile by itself, how many more of it fit; a claim's *loss* is the room that goes with it. Losses are
//! compared from the largest profile down: one 4g more is worth any number of 1g. So compared, a place on a board that is cut
//! already beats one on an empty board, where it would lose the 7g.

use crate::board::{Board, Profile, low_bits};
use crate::occupancy::{Claim, Occupancy};

/// How many profiles are counted: four bits each. No board lists more than half of that.
const COUNTED: usize = 32;

/// How many more of each profile fit, each counted as if nothing else came. Of one board; ordered from its largest profile
/// down, more being greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Room(u128);

/// The room that a claim takes from its board. Smaller is better; of boards of one model it tells on which to cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Loss(u128);

impl Room {
    /// How many more of this profile fit; `None`: the board lists no such profile, or too many to count it.
    #[must_use]
    pub fn of(self, board: &Board, profile: &str) -> Option<u8> {
        let rank = board.largest_first().iter().take(COUNTED).position(|&at| board.profiles()[at].name == profile)?;
        u8::try_from(self.0 >> shift(rank) & 0xf).ok()
    }
}

fn shift(rank: usize) -> usize {
    4 * (COUNTED - 1 - rank)
}

impl Occupancy {
    /// What still fits beside what is taken.
    #[must_use]
    pub fn room(self, board: &Board) -> Room {
        let ranked = board.largest_first().iter().take(COUNTED).enumerate();
        Room(
            ranked
                .fold(0, |room, (rank, &at)| room | u128::from(self.most(board, &board.profiles()[at])) << shift(rank)),
        )
    }

    /// The room that the claim, which must fit, takes.
    #[must_use]
    pub fn loss(self, board: &Board, claim: &Claim) -> Loss {
        // No count grows by a claim, so that no group of four bits borrows from the next.
        Loss(self.room(board).0 - self.union(claim.atoms).room(board).0)
    }

    /// Where the profile fits with the least loss; of places that lose alike, the last. `None`: it fits nowhere.
    #[must_use]
    pub fn best(self, board: &Board, profile: &Profile) -> Option<Claim> {
        let places = profile.starts.iter().filter_map(|&start| self.fits(board, profile, start).ok());
        places.min_by_key(|claim| (self.loss(board, claim), std::cmp::Reverse(claim.placement.start)))
    }

    /// How many of one profile fit together. Placements of one length, taken from the lowest end up: nobody fits more.
    fn most(self, board: &Board, profile: &Profile) -> u8 {
        let (memory, limit) = self.free(board, profile);
        let (mut count, mut end) = (0, 0);
        for start in (0..board.memory_slices()).filter(|start| profile.starts.contains(start)) {
            let slices = low_bits(start + profile.memory_slices) & !low_bits(start);
            if count < limit && start >= end && memory & slices == slices {
                (count, end) = (count + 1, start + profile.memory_slices);
            }
        }
        count
    }
}
