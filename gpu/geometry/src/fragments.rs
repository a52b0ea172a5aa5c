//! How broken up the free part of a board is.
//!
//! Free is not the same as usable: after `1g.10gb` at memory slice 0 and at 2 of an H100, slice 1 is free and the 7g is gone.
//! *Stranded* is what no profile can be placed on any more; *largest* is the biggest piece that somebody could still get.

use crate::board::Board;
use crate::occupancy::Occupancy;

/// All in memory slices of one board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragments {
    pub free: u8,
    /// Free, and under no placement that fits.
    pub stranded: u8,
    /// Of the largest profile that fits; 0: none does.
    pub largest: u8,
}

impl Occupancy {
    #[must_use]
    pub fn fragments(self, board: &Board) -> Fragments {
        let free = Occupancy::whole(board).without(self).memory_count();
        let (mut usable, mut largest) = (Occupancy::EMPTY, 0);
        for (profile, claim) in self.placements_free(board) {
            usable = usable.union(claim.atoms);
            largest = largest.max(profile.memory_slices);
        }
        Fragments { free, stranded: free - usable.memory_count(), largest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Media, Profile};

    /// As an H100 lists them, media engines left out.
    fn board() -> Board {
        let profile = |name: &str, memory_slices, compute_slices, starts: &[u8]| Profile {
            name: name.to_owned(),
            memory_slices,
            starts: starts.to_vec(),
            compute_slices,
            media: Media::None,
        };
        let profiles = vec![
            profile("1g.10gb", 1, 1, &[0, 1, 2, 3, 4, 5, 6]),
            profile("2g.20gb", 2, 2, &[0, 2, 4]),
            profile("3g.40gb", 4, 3, &[0, 4]),
            profile("4g.40gb", 4, 4, &[0]),
            profile("7g.80gb", 8, 7, &[0]),
        ];
        Board::new(8, 7, profiles).unwrap()
    }

    fn cut(board: &Board, pieces: &[(&str, u8)]) -> Fragments {
        let take = |taken: Occupancy, (name, start): &(&str, u8)| {
            taken.union(taken.fits(board, board.profile(name).unwrap(), *start).unwrap().atoms)
        };
        pieces.iter().fold(Occupancy::EMPTY, take).fragments(board)
    }

    #[test]
    fn what_is_free_what_is_stranded_and_the_largest_that_fits() {
        let board = board();
        let is = |free, stranded, largest| Fragments { free, stranded, largest };
        assert_eq!(cut(&board, &[]), is(8, 0, 8));
        // The last memory slice is in the 3g at 4 only: it goes with a 1g beside it.
        assert_eq!(cut(&board, &[("1g.10gb", 4)]), is(7, 1, 4));
        assert_eq!(cut(&board, &[("1g.10gb", 0), ("1g.10gb", 4)]), is(6, 1, 2));
        // No compute slice is left for the last memory slice.
        assert_eq!(cut(&board, &[("4g.40gb", 0), ("1g.10gb", 4), ("1g.10gb", 5), ("1g.10gb", 6)]), is(1, 1, 0));
        assert_eq!(cut(&board, &[("7g.80gb", 0)]), is(0, 0, 0));
    }
}
