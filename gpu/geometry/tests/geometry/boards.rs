//! Boards as they list themselves, one file each; the head of a file says where its lines are from and what of them nobody
//! has seen on a real board.

use croft_gpu_geometry::{Board, Media, Profile};

pub struct Listed {
    pub name: &'static str,
    pub board: Board,
    /// Beside each profile of the board: the most of it at once, by its driver's word.
    pub max: Vec<usize>,
    /// Decoders, JPEG and optical flow engines: of the board, and beside each profile.
    pub engines: [u8; 3],
    pub each: Vec<[u8; 3]>,
}

pub fn all() -> Vec<Listed> {
    [
        ("a30_pcie_24gb", include_str!("../boards/a30_pcie_24gb.txt")),
        ("a100_40gb", include_str!("../boards/a100_40gb.txt")),
        ("a100_80gb", include_str!("../boards/a100_80gb.txt")),
        ("h100_80gb", include_str!("../boards/h100_80gb.txt")),
        ("h200_141gb", include_str!("../boards/h200_141gb.txt")),
        ("b200_180gb", include_str!("../boards/b200_180gb.txt")),
        ("rtx_pro_6000_96gb", include_str!("../boards/rtx_pro_6000_96gb.txt")),
    ]
    .map(|(name, text)| read(name, text))
    .into()
}

fn read(name: &'static str, text: &str) -> Listed {
    assert!(text.lines().any(|line| line.starts_with("# Unverified: ")), "{name} does not say what is unverified");
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let number = |word: &str| word.trim_end_matches(',').parse::<u8>().unwrap();
    let three = |word: &str| <[u8; 3]>::try_from(word.split('/').map(number).collect::<Vec<_>>()).unwrap();
    let rulers: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    let ["memory", "slices", memory, "compute", "slices", compute, "engines", engines] = rulers[..] else {
        panic!("{name}: {rulers:?}")
    };
    let (mut profiles, mut max, mut each) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        let words: Vec<_> = line.split_whitespace().collect();
        let [profile, memory, compute, most, its, starts] = words[..] else { panic!("{name}: {line:?}") };
        profiles.push(Profile {
            name: profile.to_owned(),
            memory_slices: number(memory),
            starts: starts.split(',').map(number).collect(),
            compute_slices: number(compute),
            media: Media::of(profile),
        });
        max.push(usize::from(number(most)));
        each.push(three(its));
    }
    let board = Board::new(number(memory), number(compute), profiles).unwrap();
    Listed { name, board, max, engines: three(engines), each }
}
