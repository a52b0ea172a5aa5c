//! Every layout of every board, against brute force.

use std::collections::BTreeSet;

use crate::boards::{self, Listed};
use crate::model::{Piece, allows, every, most_more, names, occupancy, with};
use croft_gpu_geometry::Occupancy;

/// Every set of pieces that the model allows. A part of an allowed set is allowed, so that adding one by one meets all.
fn layouts(listed: &Listed) -> Vec<Vec<Piece>> {
    fn add(listed: &Listed, all: &[Piece], pieces: &[Piece], found: &mut Vec<Vec<Piece>>) {
        found.push(pieces.to_vec());
        for (n, piece) in all.iter().enumerate() {
            let more = with(pieces, *piece);
            if allows(listed, &more) {
                add(listed, &all[n + 1..], &more, found);
            }
        }
    }
    let mut found = Vec::new();
    add(listed, &every(&listed.board), &[], &mut found);
    found
}

/// In each layout, for each piece that a board lists: taken if the model allows it, and refused if not.
#[test]
fn each_piece_fits_where_the_model_allows_it() {
    for listed in &boards::all() {
        let Listed { name, board, .. } = listed;
        let all = every(board);
        for layout in layouts(listed) {
            let taken = occupancy(board, &layout).unwrap_or_else(|| panic!("{name}: {:?}", names(board, &layout)));
            let held = layout.iter().map(|piece| board.profiles()[piece.0].memory_slices).sum::<u8>();
            let memory = taken.atoms().filter(|atom| atom.to_string().starts_with('m') && atom.to_string() != "me0");
            assert_eq!(memory.count(), usize::from(held), "{name}: {:?}", names(board, &layout));
            let free: BTreeSet<Piece> = taken
                .placements_free(board)
                .map(|(profile, claim)| {
                    assert!(!claim.atoms.overlaps(taken));
                    (board.profiles().iter().position(|listed| listed == profile).unwrap(), claim.placement.start)
                })
                .collect();
            let allowed: BTreeSet<Piece> =
                all.iter().copied().filter(|piece| allows(listed, &with(&layout, *piece))).collect();
            assert_eq!(free, allowed, "{name}: {:?}", names(board, &layout));
        }
    }
}

/// How many layouts there are, so that a change of a board's file or of a rule is noticed.
#[test]
fn each_board_has_as_many_layouts_as_counted() {
    let counts: Vec<_> = boards::all().iter().map(|listed| (listed.name, layouts(listed).len())).collect();
    let expected = [
        ("a30_pcie_24gb", 76),
        ("a100_40gb", 2319),
        ("a100_80gb", 2319),
        ("h100_80gb", 2319),
        ("h200_141gb", 2319),
        ("b200_180gb", 2319),
        ("rtx_pro_6000_96gb", 717),
    ];
    assert_eq!(counts, expected);
}

/// The driver's own maximum of each profile follows from the rulers.
#[test]
fn an_empty_board_holds_as_many_of_each_as_its_driver_says() {
    for listed in &boards::all() {
        let Listed { name, board, max, .. } = listed;
        let room = Occupancy::EMPTY.room(board);
        for (at, profile) in board.profiles().iter().enumerate() {
            assert_eq!(most_more(listed, &[], at), max[at], "{name}: {}", profile.name);
            assert_eq!(room.of(board, &profile.name).map(usize::from), Some(max[at]), "{name}: {}", profile.name);
        }
    }
}

#[test]
fn room_is_what_brute_force_finds() {
    for listed in &boards::all() {
        let Listed { name, board, .. } = listed;
        for layout in layouts(listed).iter().step_by(13) {
            let room = occupancy(board, layout).unwrap().room(board);
            for (at, profile) in board.profiles().iter().enumerate() {
                let counted = room.of(board, &profile.name).map(usize::from);
                assert_eq!(
                    counted,
                    Some(most_more(listed, layout, at)),
                    "{name}: {} in {:?}",
                    profile.name,
                    names(board, layout)
                );
            }
        }
    }
}

/// Of all places the one after which, from the largest profile down, most is left.
#[test]
fn the_best_place_is_the_one_that_brute_force_finds() {
    for listed in &boards::all() {
        let Listed { name, board, .. } = listed;
        let mut ranked: Vec<usize> = (0..board.profiles().len()).collect();
        let size = |at: &usize| (board.profiles()[*at].compute_slices, board.profiles()[*at].memory_slices);
        ranked.sort_by_key(|at| std::cmp::Reverse(size(at)));
        for layout in layouts(listed).iter().step_by(41) {
            let taken = occupancy(board, layout).unwrap();
            let before: Vec<usize> = ranked.iter().map(|at| most_more(listed, layout, *at)).collect();
            for (at, profile) in board.profiles().iter().enumerate() {
                let lost = |start: u8| -> Vec<usize> {
                    let after = with(layout, (at, start));
                    ranked.iter().zip(&before).map(|(at, before)| before - most_more(listed, &after, *at)).collect()
                };
                let places = profile.starts.iter().copied().filter(|start| allows(listed, &with(layout, (at, *start))));
                let least = places.clone().map(lost).min();
                let best = taken.best(board, profile);
                let found = best.map(|claim| lost(claim.placement.start));
                assert_eq!(found, least, "{name}: {} in {:?}", profile.name, names(board, layout));
                // The order of losses is the order of the counts.
                let claims = places.map(|start| taken.fits(board, profile, start).unwrap());
                let mut claims: Vec<_> =
                    claims.map(|claim| (taken.loss(board, &claim), lost(claim.placement.start))).collect();
                claims.sort();
                assert!(
                    claims.is_sorted_by_key(|(_, lost)| lost),
                    "{name}: {} in {:?}",
                    profile.name,
                    names(board, layout)
                );
            }
        }
    }
}

#[test]
fn small_pieces_keep_out_of_the_way_of_large_ones() {
    let boards = boards::all();
    let h100 = &boards.iter().find(|listed| listed.name == "h100_80gb").unwrap().board;
    let best = |taken: Occupancy, profile: &str| {
        let claim = taken.best(h100, h100.profile(profile).unwrap()).unwrap();
        (claim.placement.start, taken.union(claim.atoms))
    };
    let mut taken = Occupancy::EMPTY;
    for (profile, expected) in [("1g.10gb", 6), ("2g.20gb", 4), ("1g.20gb", 2), ("1g.10gb", 1), ("1g.10gb+me", 0)] {
        let (start, then) = best(taken, profile);
        assert_eq!(
            start,
            expected,
            "{profile} beside {:?}",
            taken.atoms().map(|atom| atom.to_string()).collect::<Vec<_>>()
        );
        taken = then;
    }
    assert_eq!(best(Occupancy::EMPTY, "3g.40gb").0, 4, "the other half can be a 4g");
    // Cutting a board that is cut already loses less than beginning another.
    let (_, cut) = best(Occupancy::EMPTY, "1g.10gb");
    let loss = |taken: Occupancy| taken.loss(h100, &taken.best(h100, h100.profile("1g.10gb").unwrap()).unwrap());
    assert!(loss(cut) < loss(Occupancy::EMPTY));
}
