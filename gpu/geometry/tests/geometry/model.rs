//! The rules of cutting so plain that they can be read at a glance: a list of pieces, each compared with each. Slow, and no
//! part of it is shared with what it judges.

use croft_gpu_geometry::{Board, Occupancy, Profile};

use crate::boards::Listed;

/// A profile, by its index on the board, and where its piece starts.
pub type Piece = (usize, u8);

pub fn slices(board: &Board, (profile, start): Piece) -> std::ops::Range<u8> {
    start..start + board.profiles()[profile].memory_slices
}

/// Can these pieces be on the board at once? Engines are counted by the numbers of the listing; the crate knows their names only.
pub fn allows(Listed { board, engines, each, .. }: &Listed, pieces: &[Piece]) -> bool {
    let apart = |a: Piece, b: Piece| slices(board, a).all(|slice| !slices(board, b).contains(&slice));
    let pairs_apart = pieces.iter().enumerate().all(|(n, a)| pieces[..n].iter().all(|b| apart(*a, *b)));
    let profiles = || pieces.iter().map(|(profile, _)| &board.profiles()[*profile]);
    let compute: u8 = profiles().map(|profile| profile.compute_slices).sum();
    let engines_left = |kind: usize| pieces.iter().map(|piece| each[piece.0][kind]).sum::<u8>() <= engines[kind];
    let listed = pieces.iter().all(|(profile, start)| board.profiles()[*profile].starts.contains(start));
    listed && pairs_apart && compute <= board.compute_slices() && (0..3).all(engines_left)
}

pub fn with(pieces: &[Piece], piece: Piece) -> Vec<Piece> {
    pieces.iter().copied().chain([piece]).collect()
}

/// Everything that the board lists, whether or not it fits.
pub fn every(board: &Board) -> Vec<Piece> {
    let of = |(n, profile): (usize, &Profile)| profile.starts.iter().map(move |start| (n, *start)).collect::<Vec<_>>();
    board.profiles().iter().enumerate().flat_map(of).collect()
}

/// The most pieces of one profile that can still be added, by trying every set of its starts.
pub fn most_more(listed: &Listed, pieces: &[Piece], profile: usize) -> usize {
    let starts = &listed.board.profiles()[profile].starts;
    let sets = 0_u32..1 << starts.len();
    let chosen = |set: u32| (0..starts.len()).filter(move |n| set & (1 << n) != 0).map(|n| (profile, starts[n]));
    let fitting = sets.filter(|set| {
        let all: Vec<Piece> = pieces.iter().copied().chain(chosen(*set)).collect();
        allows(listed, &all)
    });
    fitting.map(|set| set.count_ones() as usize).max().unwrap()
}

/// What the crate under test makes of the same pieces, cut in this order; `None`: it refuses one.
pub fn occupancy(board: &Board, pieces: &[Piece]) -> Option<Occupancy> {
    pieces.iter().try_fold(Occupancy::EMPTY, |taken, (profile, start)| {
        taken.fits(board, &board.profiles()[*profile], *start).ok().map(|claim| taken.union(claim.atoms))
    })
}

pub fn names(board: &Board, pieces: &[Piece]) -> Vec<String> {
    pieces.iter().map(|(profile, start)| format!("{}@{start}", board.profiles()[*profile].name)).collect()
}

/// Numbers by chance, the same in each run.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % limit as u64).unwrap()
    }
}
