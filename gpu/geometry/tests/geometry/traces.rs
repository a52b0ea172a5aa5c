//! Ten thousand random cuts and returns on each board, nearly full all the while: no state that cannot be, no refusal that is
//! not true. The judge lays all pieces out anew each time.

use std::collections::BTreeSet;

use crate::boards::{self, Listed};
use crate::model::{Chance, Piece, allows, every, names, with};
use croft_gpu_geometry::{Board, Occupancy, Profile};

const STEPS: usize = 10_000;

/// How much of the ruler that is used most is used: seven 1g leave an eighth of the memory that nothing can have.
fn fullness(board: &Board, pieces: &[Piece]) -> f64 {
    let sum =
        |of: fn(&Profile) -> u8| pieces.iter().map(|piece| f64::from(of(&board.profiles()[piece.0]))).sum::<f64>();
    let memory = sum(|profile| profile.memory_slices) / f64::from(board.memory_slices());
    memory.max(sum(|profile| profile.compute_slices) / f64::from(board.compute_slices()))
}

fn trace(listed: &Listed, seed: u64) {
    let Listed { name, board, .. } = listed;
    let (mut chance, all) = (Chance(seed), every(board));
    let mut held: Vec<(Piece, Occupancy)> = Vec::new();
    let (mut asked, mut refused, mut full, mut made) = (0, 0, 0.0, BTreeSet::new());
    for step in 0..STEPS {
        let pieces: Vec<Piece> = held.iter().map(|(piece, _)| *piece).collect();
        let taken = held.iter().fold(Occupancy::EMPTY, |all, (_, atoms)| all.union(*atoms));
        let said = || format!("{name}, step {step}, beside {:?}", names(board, &pieces));
        full += fullness(board, &pieces);
        let fitting: Vec<Piece> = all.iter().copied().filter(|piece| allows(listed, &with(&pieces, *piece))).collect();
        // Only where nothing more fits is something given back, so that the board stays nearly full.
        if fitting.is_empty() && chance.below(5) == 0 {
            // Now and then by everybody, or the small pieces would keep the large ones out for ever.
            let gone = if chance.below(16) == 0 { held.len() } else { 1 };
            for _ in 0..gone {
                held.swap_remove(chance.below(held.len()));
            }
            continue;
        }
        let among = if fitting.is_empty() || chance.below(4) == 0 { &all } else { &fitting };
        // Each profile as often as any other, however many places it has.
        let kinds: Vec<usize> = among.iter().map(|piece| piece.0).collect::<BTreeSet<_>>().into_iter().collect();
        let at = kinds[chance.below(kinds.len())];
        let places: Vec<u8> = among.iter().filter(|piece| piece.0 == at).map(|piece| piece.1).collect();
        let wished = places[chance.below(places.len())];
        let profile = &board.profiles()[at];
        asked += 1;
        // Half of them leave the place to us, the others name it.
        let (claim, possible) = if chance.below(2) == 0 {
            (taken.best(board, profile), fitting.iter().any(|piece| piece.0 == at))
        } else {
            (taken.fits(board, profile, wished).ok(), fitting.contains(&(at, wished)))
        };
        assert_eq!(claim.is_some(), possible, "{}: {}", said(), profile.name);
        let Some(claim) = claim else {
            refused += 1;
            continue;
        };
        let piece = (at, claim.placement.start);
        assert!(allows(listed, &with(&pieces, piece)), "{}: {}", said(), profile.name);
        assert!(held.iter().all(|(_, atoms)| !atoms.overlaps(claim.atoms)), "{}: {}", said(), profile.name);
        held.push((piece, claim.atoms));
        made.insert(&profile.name);
    }
    println!("{name}: {refused} of {asked} refused, {full} of {STEPS} full");
    assert_eq!(made.len(), board.profiles().len(), "{name}: only {made:?} were ever made");
    assert!(refused * 5 >= asked, "{name}: {refused} of {asked} refused");
    assert!(full >= 0.9 * STEPS as f64, "{name}: {full} of {STEPS} full");
}

#[test]
fn no_board_is_ever_cut_in_a_way_that_cannot_be() {
    for (listed, seed) in boards::all().iter().zip(1..) {
        trace(listed, 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
    }
}

/// What a tenant notices of a good place: more of what is asked for can be had. Pieces come and go on one board; against the
/// first place that fits, and with the same demand.
#[test]
fn the_best_place_serves_more_than_the_first() {
    for listed in boards::all() {
        let served = |place: fn(Occupancy, &Board, &Profile) -> Option<croft_gpu_geometry::Claim>| {
            let board = &listed.board;
            let (mut served, mut chance) = (0_usize, Chance(0x2545_f491_4f6c_dd1d));
            for _ in 0..400 {
                let mut held: Vec<(usize, Occupancy)> = Vec::new();
                for now in 0..60 {
                    held.retain(|(until, _)| *until > now);
                    let profile = &board.profiles()[chance.below(board.profiles().len())];
                    let until = now + 1 + chance.below(8);
                    let taken = held.iter().fold(Occupancy::EMPTY, |all, (_, atoms)| all.union(*atoms));
                    if let Some(claim) = place(taken, board, profile) {
                        held.push((until, claim.atoms));
                        served += usize::from(profile.memory_slices);
                    }
                }
            }
            served
        };
        let first =
            served(|taken, board, profile| profile.starts.iter().find_map(|&at| taken.fits(board, profile, at).ok()));
        let best = served(|taken, board, profile| taken.best(board, profile));
        assert!(best > first, "{}: {best} memory slices were served, and {first} by the first place", listed.name);
    }
}
