//! Occupancy against a model so plain that it can be read at a glance: a list of pieces, each compared with each.

use croft_gpu_geometry::{Atom, Board, BoardError, Media, Misfit, Occupancy, Placement, Profile};
use proptest::prelude::*;

fn profile(name: &str, memory_slices: u8, starts: &[u8], compute_slices: u8) -> Profile {
    let (name, starts) = (name.to_owned(), starts.to_vec());
    Profile { media: Media::of(&name), name, memory_slices, starts, compute_slices }
}

/// As an H100 80GB reports itself (`nvidia-smi mig -lgip` and `-lgipp`).
fn h100() -> Board {
    let every = [0, 1, 2, 3, 4, 5, 6];
    let profiles = vec![
        profile("1g.10gb", 1, &every, 1),
        profile("1g.10gb+me", 1, &every, 1),
        profile("1g.20gb", 2, &[0, 2, 4, 6], 1),
        profile("2g.20gb", 2, &[0, 2, 4], 2),
        profile("3g.40gb", 4, &[0, 4], 3),
        profile("4g.40gb", 4, &[0], 4),
        profile("7g.80gb", 8, &[0], 7),
    ];
    Board::new(8, 7, profiles).expect("a real board")
}

fn atoms(names: &str) -> Vec<Atom> {
    names.split_whitespace().map(|name| name.parse().expect("an atom")).collect()
}

/// The model: pieces lie beside each other when no two share a memory slice, and the counts are kept.
fn model_allows(pieces: &[(&Profile, u8)]) -> bool {
    let apart = |a: &(&Profile, u8), b: &(&Profile, u8)| {
        (a.1..a.1 + a.0.memory_slices).all(|slice| !(b.1..b.1 + b.0.memory_slices).contains(&slice))
    };
    let pairs_apart = pieces.iter().enumerate().all(|(n, a)| pieces[..n].iter().all(|b| apart(a, b)));
    let compute: u8 = pieces.iter().map(|(profile, _)| profile.compute_slices).sum();
    let media = pieces.iter().filter(|(profile, _)| profile.media == Media::Extension).count();
    pairs_apart && compute <= 7 && media <= 1
}

/// (start, size) within eight slices.
fn run_of_slices() -> impl Strategy<Value = (u8, u8)> {
    (0_u8..8).prop_flat_map(|start| (Just(start), 1..=8 - start))
}

proptest! {
    /// Any history of cutting and giving back: every answer agrees with the model, and no two pieces share an atom.
    #[test]
    fn fits_agrees_with_the_model(history in prop::collection::vec((0_usize..7, 0_u8..9, any::<bool>(), any::<usize>()), 1..60)) {
        let board = h100();
        let mut held: Vec<(&Profile, u8, Occupancy)> = Vec::new();
        for (which, start, give_back, victim) in history {
            if give_back && !held.is_empty() {
                held.swap_remove(victim % held.len());
            }
            let taken = held.iter().fold(Occupancy::EMPTY, |all, piece| all.union(piece.2));
            let profile = &board.profiles()[which];
            let mut pieces: Vec<_> = held.iter().map(|(profile, start, _)| (*profile, *start)).collect();
            pieces.push((profile, start));
            let allowed = profile.starts.contains(&start) && model_allows(&pieces);
            let answer = taken.fits(&board, profile, start);
            prop_assert_eq!(answer.is_ok(), allowed, "{} at {} beside {:?}: {:?}", profile.name, start, held, answer);
            let offered = taken.placements_free(&board).any(|(free, claim)| free == profile && claim.placement.start == start);
            prop_assert_eq!(offered, allowed);
            if let Ok(claim) = answer {
                prop_assert!(!claim.atoms.overlaps(taken));
                let names: Vec<String> = claim.atoms.atoms().map(|atom| atom.to_string()).collect();
                let counted = names.iter().filter(|name| name.starts_with('c')).count();
                prop_assert_eq!(counted, usize::from(profile.compute_slices));
                let read_back: Occupancy = names.iter().map(|name| name.parse::<Atom>().expect("its own name")).collect();
                prop_assert_eq!(read_back, claim.atoms);
                prop_assert_eq!(taken.union(claim.atoms).without(claim.atoms), taken);
                held.push((profile, start, claim.atoms));
            }
        }
    }

    #[test]
    fn overlap_is_a_shared_slice(a in run_of_slices(), b in run_of_slices()) {
        let shared = (a.0..a.0 + a.1).any(|slice| (b.0..b.0 + b.1).contains(&slice));
        let place = |(start, size)| Placement { start, size };
        prop_assert_eq!(place(a).overlaps(place(b)), shared);
    }
}

/// The most of one kind that any order of cutting reaches.
fn most(board: &Board, profile: &Profile, taken: Occupancy) -> usize {
    let tries = profile.starts.iter().filter_map(|&start| taken.fits(board, profile, start).ok());
    tries.map(|claim| 1 + most(board, profile, taken.union(claim.atoms))).max().unwrap_or(0)
}

#[test]
fn an_h100_holds_as_many_of_each_as_its_driver_says() {
    let board = h100();
    let counts: Vec<_> = board.profiles().iter().map(|profile| most(&board, profile, Occupancy::EMPTY)).collect();
    assert_eq!(counts, [7, 1, 4, 3, 2, 1, 1]);
}

#[test]
fn both_rulers_bind() {
    let board = h100();
    let [one, double, three, four] =
        ["1g.10gb", "1g.20gb", "3g.40gb", "4g.40gb"].map(|n| board.profile(n).expect("listed"));
    let cut =
        |taken: Occupancy, profile, start| taken.fits(&board, profile, start).map(|claim| taken.union(claim.atoms));

    // 3g + 3g: a compute slice is left over, and no memory slice to go with it.
    let threes = cut(Occupancy::EMPTY, three, 0).and_then(|taken| cut(taken, three, 4)).expect("two fit");
    assert_eq!(cut(threes, one, 6), Err(Misfit::MemoryTaken(atoms("m6"))));
    assert_eq!(threes.placements_free(&board).count(), 0);

    // 4g + 3g use all seven compute slices; 4g + three 1g leave m7, where no profile but 1g.20gb at 6 reaches.
    let full = cut(Occupancy::EMPTY, four, 0).and_then(|taken| cut(taken, three, 4)).expect("both fit");
    assert_eq!(full.atoms().filter(|atom| matches!(atom, Atom::Compute { .. })).count(), 7);
    let ones =
        [4, 5, 6].iter().try_fold(cut(Occupancy::EMPTY, four, 0).expect("fits"), |taken, &at| cut(taken, one, at));
    assert_eq!(cut(ones.expect("three fit"), double, 6), Err(Misfit::MemoryTaken(atoms("m6"))));

    // Compute runs out before memory.
    let six = (0..6).try_fold(Occupancy::EMPTY, |taken, at| cut(taken, one, at)).expect("six fit");
    let seven = cut(six, double, 6).expect("the seventh compute slice, both last memory slices");
    assert_eq!(seven, Occupancy::whole(&board).without(Occupancy::from_iter(atoms("me0"))));
    let short = Occupancy::from_iter(atoms("c0 c1 c2 c3 c4"));
    assert_eq!(cut(short, three, 4), Err(Misfit::ComputeShort { needs: 3, free: 2 }));
    assert_eq!(cut(short, three, 2), Err(Misfit::NoSuchStart { start: 2, starts: vec![0, 4] }));
}

/// RTX PRO: one instance with all media engines leaves room for those without any.
#[test]
fn all_media_engines_are_nobody_elses() {
    let every = [0, 1, 2, 3];
    let names = ["1g.24gb", "1g.24gb+me", "1g.24gb+gfx", "1g.24gb+me.all", "1g.24gb-me"];
    let board = Board::new(4, 4, names.map(|name| profile(name, 1, &every, 1)).into()).expect("a real board");
    let cut = |taken: Occupancy, name: &str, start| {
        taken.fits(&board, board.profile(name).expect("listed"), start).map(|claim| taken.union(claim.atoms))
    };
    let all = cut(Occupancy::EMPTY, "1g.24gb+me.all", 0).expect("fits");
    assert_eq!(
        all.atoms().map(|atom| atom.to_string()).collect::<Vec<_>>(),
        ["m0", "c0", "e0", "e1", "e2", "e3", "me0"]
    );
    for other in &names[..4] {
        assert_eq!(
            cut(all, other, 1),
            Err(Misfit::EnginesShort { needs: if *other == names[3] { 4 } else { 1 }, free: 0 })
        );
    }
    let full = (1..4).try_fold(all, |taken, at| cut(taken, "1g.24gb-me", at)).expect("those need none");
    assert_eq!(full, Occupancy::whole(&board));
    let one = cut(Occupancy::EMPTY, "1g.24gb+gfx", 0).expect("fits");
    assert_eq!(cut(one, "1g.24gb+me.all", 1), Err(Misfit::EnginesShort { needs: 4, free: 3 }));
}

#[test]
fn a_board_that_contradicts_itself_is_refused() {
    let of = |profiles| Board::new(8, 7, profiles).map(drop);
    let named = |profile: &str| profile.to_owned();
    assert_eq!(Board::new(9, 7, vec![]).map(drop), Err(BoardError::Slices { memory: 9, compute: 7 }));
    assert_eq!(Board::new(8, 0, vec![]).map(drop), Err(BoardError::Slices { memory: 8, compute: 0 }));
    for bad in [profile("p", 0, &[0], 1), profile("p", 9, &[0], 1), profile("p", 1, &[], 1), profile("p", 1, &[0], 8)] {
        assert_eq!(of(vec![bad]), Err(BoardError::Size { profile: named("p") }));
    }
    assert_eq!(of(vec![profile("p", 4, &[0, 5], 3)]), Err(BoardError::Start { profile: named("p"), start: 5 }));
    assert_eq!(of(vec![profile("p", 1, &[3, 3], 1)]), Err(BoardError::Twice { profile: named("p") }));
    assert_eq!(
        of(vec![profile("p", 1, &[0], 1), profile("p", 2, &[0], 1)]),
        Err(BoardError::Twice { profile: named("p") })
    );
}
