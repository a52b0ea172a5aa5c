//! What a GPU-instance profile is called.
//!
//! The driver calls it by a name in version 2 of its description (`MIG 1g.10gb`). Older drivers have no name, and R580 leaves
//! the one in version 3 empty; then the rule of NVIDIA's own tools makes it from what the profile takes of the board.

/// `MIG 1g.10gb+me` to `1g.10gb+me`; nothing from what does not look like one.
pub(super) fn from_driver(text: &str) -> Option<String> {
    let name = text.trim().strip_prefix("MIG ").unwrap_or(text.trim());
    let (slices, rest) = name.split_once("g.")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(slices) && digits(rest.split_once("gb")?.0)).then(|| name.to_owned())
}

/// By the rule. `enumerated` is the profile's place in the driver's enumeration, not its id.
pub(super) fn by_rule(enumerated: u32, compute_slices: u32, memory_mib: u64, board_bytes: u64) -> String {
    format!("{compute_slices}g.{}gb{}", gigabytes(memory_mib, board_bytes), attribute(enumerated))
}

/// The share of the board in eighths, rounded up, of the board's size in whole GiB, rounded up: nominal, not usable.
fn gigabytes(memory_mib: u64, board_bytes: u64) -> u64 {
    if board_bytes == 0 {
        return memory_mib.div_ceil(1024);
    }
    let eighths = (memory_mib.saturating_mul(1 << 20).saturating_mul(8)).div_ceil(board_bytes);
    let board_gib = board_bytes.div_ceil(1 << 30);
    // To the nearest, half of one upwards.
    eighths.saturating_mul(board_gib).saturating_add(4) / 8
}

/// nvml.h, NVML_GPU_INSTANCE_PROFILE_*. The double-memory profile (9) differs in its size alone.
fn attribute(enumerated: u32) -> &'static str {
    match enumerated {
        0x07 | 0x08 => "+me",
        0x0a..=0x0c | 0x11 => "+gfx",
        0x0d | 0x0e => "-me",
        0x0f | 0x10 => "+me.all",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of real boards: the total that they report, and for each profile its place in the enumeration, compute slices and MiB.
    #[test]
    fn the_rule_gives_the_names_that_the_driver_gives() {
        // Captured from an H100 SXM5 80GB with driver 580.159.04, which fills in names: both ways are the same.
        let h100 = [
            (0, 1, 9984, "1g.10gb"),
            (1, 2, 20096, "2g.20gb"),
            (2, 3, 40448, "3g.40gb"),
            (3, 4, 40448, "4g.40gb"),
            (4, 7, 81152, "7g.80gb"),
            (7, 1, 9984, "1g.10gb+me"),
            (9, 1, 20096, "1g.20gb"),
        ];
        for (enumerated, slices, mib, name) in h100 {
            assert_eq!(by_rule(enumerated, slices, mib, 85_520_809_984), name);
            assert_eq!(from_driver(&format!("MIG {name}")).unwrap(), name);
        }
        // An H200, of 140.4 GiB.
        let h200 =
            [(0, 1, 16384, "1g.18gb"), (1, 2, 33280, "2g.35gb"), (2, 3, 71424, "3g.71gb"), (4, 7, 143_360, "7g.141gb")];
        for (enumerated, slices, mib, name) in h200 {
            assert_eq!(by_rule(enumerated, slices, mib, 150_754_820_096), name);
        }
        // By the listings of nvidia-smi: A30, and RTX PRO 6000 with its own attributes.
        assert_eq!(by_rule(0, 1, 5952, 25_769_803_776), "1g.6gb");
        assert_eq!(by_rule(8, 2, 11968, 25_769_803_776), "2g.12gb+me");
        for (enumerated, name) in [(0x0a, "1g.24gb+gfx"), (0x0d, "1g.24gb-me"), (0x0f, "1g.24gb+me.all")] {
            assert_eq!(by_rule(enumerated, 1, 24192, 102_641_958_912), name);
        }
    }

    #[test]
    fn an_empty_or_odd_name_is_none() {
        for odd in ["", "MIG ", "MIG 1g", "g.10gb", "NVIDIA H100", "1c.1g.10gb", "MIG xg.10gb", "1g.gb"] {
            assert_eq!(from_driver(odd), None, "{odd:?}");
        }
        assert_eq!(from_driver("MIG 1g.24gb+me.all").unwrap(), "1g.24gb+me.all");
        assert_eq!(by_rule(0, 1, 9984, 0), "1g.10gb", "a board that does not know its size");
    }
}
