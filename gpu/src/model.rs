//! Which model of GPU a PCI id is, in one word that quota counts by: `h100_sxm_80gb`.
//!
//! The word says product, form and nominal memory. It is ours and never changes; the driver's names do. A GPU whose id is not
//! in the table has no word: it is listed, and charged by nothing but `gpus`.

/// One row: PCI ids of the same product under one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// `h100_sxm_80gb`
    pub word: &'static str,
    /// What is charged for all of it: the nominal size, whatever the driver keeps for itself.
    pub memory_mib: u64,
    /// Has NVSwitch on its baseboard, and so a fabric to be set up, even where no switch shows on the PCI bus.
    pub needs_fabric: bool,
}

impl Model {
    /// By NVIDIA's list of products with MIG: for when no driver holds the board. What can be cut, the driver alone knows.
    #[must_use]
    pub fn has_mig(self) -> bool {
        const FAMILIES: [&str; 12] = [
            "a100_", "a30_", "h100_", "h800_", "h20_", "h200_", "gh200_", "b200_", "gb200_", "b300_", "gb300_",
            "rtx_pro_",
        ];
        FAMILIES.iter().any(|family| self.word.starts_with(family))
    }
}

const NVIDIA: u16 = 0x10de;
const AMD: u16 = 0x1002;
const INTEL: u16 = 0x8086;

const fn model(word: &'static str, gib: u64) -> Model {
    Model { word, memory_mib: gib * 1024, needs_fabric: false }
}

/// From the fourth NVSwitch on, the switches are no PCI functions of the host.
const fn with_fabric(word: &'static str, gib: u64) -> Model {
    Model { needs_fabric: true, ..model(word, gib) }
}

/// Ids by pci.ids of 2026-08; memory by NVIDIA's, AMD's and Intel's product pages.
const TABLE: &[(u16, &[u16], Model)] = &[
    (NVIDIA, &[0x1eb8], model("t4_16gb", 16)),
    (NVIDIA, &[0x20b0], model("a100_sxm_40gb", 40)),
    (NVIDIA, &[0x20b1, 0x20f1], model("a100_pcie_40gb", 40)),
    (NVIDIA, &[0x20b2], model("a100_sxm_80gb", 80)),
    (NVIDIA, &[0x20b5], model("a100_pcie_80gb", 80)),
    (NVIDIA, &[0x20b7], model("a30_pcie_24gb", 24)),
    (NVIDIA, &[0x2235], model("a40_48gb", 48)),
    (NVIDIA, &[0x2236], model("a10_24gb", 24)),
    (NVIDIA, &[0x2237], model("a10g_24gb", 24)),
    (NVIDIA, &[0x2230], model("rtx_a6000_48gb", 48)),
    (NVIDIA, &[0x27b8], model("l4_24gb", 24)),
    (NVIDIA, &[0x26b5], model("l40_48gb", 48)),
    (NVIDIA, &[0x26b9], model("l40s_48gb", 48)),
    (NVIDIA, &[0x26b1], model("rtx_6000_ada_48gb", 48)),
    (NVIDIA, &[0x2331], model("h100_pcie_80gb", 80)),
    (NVIDIA, &[0x2330], model("h100_sxm_80gb", 80)),
    (NVIDIA, &[0x2339], model("h100_sxm_94gb", 94)),
    (NVIDIA, &[0x2321], model("h100_nvl_94gb", 94)),
    (NVIDIA, &[0x233d], model("h100_96gb", 96)),
    (NVIDIA, &[0x2322], model("h800_pcie_80gb", 80)),
    (NVIDIA, &[0x2324], model("h800_sxm_80gb", 80)),
    (NVIDIA, &[0x2329], model("h20_96gb", 96)),
    (NVIDIA, &[0x233a], model("h800_nvl_94gb", 94)),
    (NVIDIA, &[0x2335], model("h200_sxm_141gb", 141)),
    (NVIDIA, &[0x233b], model("h200_nvl_141gb", 141)),
    (NVIDIA, &[0x2342], model("gh200_96gb", 96)),
    (NVIDIA, &[0x2348], model("gh200_144gb", 144)),
    (NVIDIA, &[0x2901], with_fabric("b200_sxm_180gb", 180)),
    (NVIDIA, &[0x2941], with_fabric("gb200_186gb", 186)),
    (NVIDIA, &[0x3182], with_fabric("b300_sxm_269gb", 269)),
    (NVIDIA, &[0x31c2], with_fabric("gb300_279gb", 279)),
    (NVIDIA, &[0x2bb5], model("rtx_pro_6000_96gb", 96)),
    (NVIDIA, &[0x2bb1], model("rtx_pro_6000_workstation_96gb", 96)),
    (NVIDIA, &[0x2bb4], model("rtx_pro_6000_max_q_96gb", 96)),
    (NVIDIA, &[0x2bb3], model("rtx_pro_5000_48gb", 48)),
    (AMD, &[0x74a1], model("mi300x_192gb", 192)),
    (AMD, &[0x74a5], model("mi325x_256gb", 256)),
    (AMD, &[0x75a0], model("mi350x_288gb", 288)),
    (AMD, &[0x75a3], model("mi355x_288gb", 288)),
    (INTEL, &[0x56c0], model("flex_170_16gb", 16)),
    (INTEL, &[0x56c1], model("flex_140_12gb", 12)),
    (INTEL, &[0xe211], model("arc_pro_b60_24gb", 24)),
    (INTEL, &[0xe212], model("arc_pro_b50_16gb", 16)),
];

/// `None`: not in the table.
#[must_use]
pub fn lookup(vendor: u16, device: u16) -> Option<Model> {
    TABLE.iter().find(|(of, ids, _)| *of == vendor && ids.contains(&device)).map(|(_, _, model)| *model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_one_word_and_an_id_one_model() {
        let mut words: Vec<_> = TABLE.iter().map(|(_, _, model)| model.word).collect();
        let mut ids: Vec<_> =
            TABLE.iter().flat_map(|(vendor, ids, _)| ids.iter().map(move |id| (vendor, id))).collect();
        let (all_words, all_ids) = (words.len(), ids.len());
        words.sort_unstable();
        words.dedup();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((words.len(), ids.len()), (all_words, all_ids));
        for word in words {
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{word}");
        }
    }

    #[test]
    fn the_word_says_the_memory() {
        for (_, _, model) in TABLE {
            assert!(model.word.ends_with(&format!("_{}gb", model.memory_mib / 1024)), "{model:?}");
        }
        assert_eq!(lookup(0x10de, 0x2330).unwrap().word, "h100_sxm_80gb");
        assert_eq!(lookup(0x10de, 0xffff), None);
        let with_mig: Vec<_> = [0x2330, 0x20b7, 0x2bb5, 0x2230, 0x27b8, 0x1eb8]
            .into_iter()
            .filter(|id| lookup(NVIDIA, *id).unwrap().has_mig())
            .collect();
        assert_eq!(with_mig, [0x2330, 0x20b7, 0x2bb5], "H100, A30, RTX PRO 6000; not RTX A6000, L4, T4");
        assert_eq!(lookup(0x8086, 0x2330), None, "another vendor's id");
    }
}
