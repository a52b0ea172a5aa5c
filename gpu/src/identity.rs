//! Which piece of hardware a device is, whatever its address says today.
//!
//! An address is where a device sits; bus numbers may change when a card is added. What a host remembers of a device is its
//! *slot path* (bridge by bridge from the root complex, without bus numbers) and what the hardware says of itself. When the two
//! no longer agree the device is refused, never guessed.

use serde::{Deserialize, Serialize};

use crate::pci::PciFunction;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `pci0000:40/01.1/00.0`: the root complex, then device and function at each bridge.
    pub slot_path: String,
    /// `10de:2330`
    pub pci_id: String,
    /// The PCI device serial number (`58-a2-e1-ff-ff-00-3c-08`). `None`: the hardware has none, or was not asked.
    pub serial: Option<String>,
    /// `GPU-8c7b…`: told by the driver, so only while that holds the GPU.
    pub uuid: Option<String>,
}

/// What became of a remembered device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sameness {
    Same,
    /// Another card sits in the slot.
    Swapped {
        remembered: Identity,
        found: Identity,
    },
    /// It sits elsewhere: the same hardware, or what does not say which it is.
    Moved {
        remembered: Identity,
        found: Identity,
    },
    /// In its slot, and it said who it was before, and does not now (its driver is gone, for example): not proven, not denied.
    Unproven,
}

impl Identity {
    /// Of a function of which no driver tells more.
    #[must_use]
    pub fn of(function: &PciFunction) -> Identity {
        Identity {
            slot_path: function.slot_path.clone(),
            pci_id: function.id(),
            serial: function.serial.clone(),
            uuid: None,
        }
    }

    /// Is `found`, at the same address, what was remembered?
    #[must_use]
    pub fn compare(&self, found: &Identity) -> Sameness {
        // Like with like: a GPU whose driver is gone has no UUID any more, and may still have its serial number.
        let words = [(&self.serial, &found.serial), (&self.uuid, &found.uuid)];
        let differs = words.iter().any(|(then, now)| then.is_some() && now.is_some() && then != now);
        let proven = words.iter().any(|(then, now)| then.is_some() && then == now);
        let said_something = words.iter().any(|(then, _)| then.is_some());
        let pair = || (self.clone(), found.clone());
        if self.pci_id != found.pci_id || differs {
            let (remembered, found) = pair();
            Sameness::Swapped { remembered, found }
        } else if self.slot_path != found.slot_path {
            let (remembered, found) = pair();
            Sameness::Moved { remembered, found }
        } else if said_something && !proven {
            Sameness::Unproven
        } else {
            Sameness::Same
        }
    }

    /// What to remember after `found` was taken for the same device: what it says now, and what it said before and cannot
    /// say at the moment.
    #[must_use]
    pub fn updated(&self, found: &Identity) -> Identity {
        let mut newer = found.clone();
        newer.serial = newer.serial.or_else(|| self.serial.clone());
        newer.uuid = newer.uuid.or_else(|| self.uuid.clone());
        newer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(slot: &str, serial: Option<&str>, uuid: Option<&str>) -> Identity {
        let (serial, uuid) = (serial.map(str::to_owned), uuid.map(str::to_owned));
        Identity { slot_path: slot.to_owned(), pci_id: "10de:2330".to_owned(), serial, uuid }
    }

    #[test]
    fn a_card_is_the_same_only_by_what_both_looks_know() {
        let card = identity("pci0000:40/01.1/00.0", Some("58-a2"), Some("GPU-1"));
        let slot = "pci0000:40/01.1/00.0";
        assert_eq!(card.compare(&card), Sameness::Same);
        assert_eq!(card.compare(&identity(slot, Some("58-a2"), None)), Sameness::Same, "on vfio-pci it has no UUID");
        assert_eq!(card.compare(&identity(slot, None, None)), Sameness::Unproven);
        for other in [identity(slot, Some("58-a3"), None), identity(slot, Some("58-a2"), Some("GPU-2"))] {
            assert!(matches!(card.compare(&other), Sameness::Swapped { .. }), "{other:?}");
        }
        let model = Identity { pci_id: "10de:2335".to_owned(), ..card.clone() };
        assert!(matches!(card.compare(&model), Sameness::Swapped { .. }));
        let moved = identity("pci0000:40/03.1/00.0", Some("58-a2"), None);
        assert!(matches!(card.compare(&moved), Sameness::Moved { .. }));
        // In another slot, and it does not say who it is: least of all there it passes for the one that is remembered.
        let silent = identity("pci0000:40/03.1/00.0", None, None);
        assert!(matches!(card.compare(&silent), Sameness::Moved { .. }));
        // One that never said who it is, is known by its slot alone.
        let nameless = identity(slot, None, None);
        assert_eq!(nameless.compare(&card), Sameness::Same);
        assert!(matches!(nameless.compare(&moved), Sameness::Moved { .. }));
    }

    /// Every look at a card that a look at a host can have: model, slot, and what it says of itself, which is little at times.
    fn looks() -> impl Strategy<Value = Identity> {
        let word = |kind: &'static str| proptest::option::of((0..3_u8).prop_map(move |n| format!("{kind}-{n}")));
        let slot = (0..2_u8).prop_map(|n| format!("pci0000:40/0{n}.1/00.0"));
        let model = proptest::sample::select(vec!["10de:2330", "10de:2335"]).prop_map(str::to_owned);
        (slot, model, word("58-a2"), word("GPU")).prop_map(|(slot_path, pci_id, serial, uuid)| Identity {
            slot_path,
            pci_id,
            serial,
            uuid,
        })
    }

    proptest! {
        #[test]
        fn nothing_passes_for_a_card_without_a_reason(then in looks(), now in looks()) {
            let both = [(&then.serial, &now.serial), (&then.uuid, &now.uuid)];
            let contradicted = both.iter().any(|(then, now)| then.is_some() && now.is_some() && then != now);
            let proven = both.iter().any(|(then, now)| then.is_some() && then == now);
            let nameless = then.serial.is_none() && then.uuid.is_none();
            let (same_model, same_slot) = (then.pci_id == now.pci_id, then.slot_path == now.slot_path);
            let sameness = then.compare(&now);
            prop_assert_eq!(matches!(sameness, Sameness::Swapped { .. }), !same_model || contradicted);
            // Only in its slot is a card taken for what is remembered, and for certain only when it says so, or never did.
            if matches!(sameness, Sameness::Same | Sameness::Unproven) {
                prop_assert!(same_model && same_slot && !contradicted);
                prop_assert_eq!(sameness == Sameness::Same, proven || nameless);
            }
            // A card that says more, or less, than before stays itself; and who is taken for it is still known by all it said.
            if sameness == Sameness::Same {
                let newer = then.updated(&now);
                prop_assert_eq!(newer.compare(&now), Sameness::Same);
                prop_assert_eq!(then.compare(&newer), Sameness::Same);
                prop_assert!(newer.serial.is_some() || then.serial.is_none());
                prop_assert!(newer.uuid.is_some() || then.uuid.is_none());
            }
            if now.serial.is_none() && now.uuid.is_none() && !nameless {
                prop_assert!(sameness != Sameness::Same, "silence proves nothing");
            }
        }
    }

    #[test]
    fn what_it_cannot_say_now_is_not_forgotten() {
        let card = identity("a/b", None, Some("GPU-1"));
        let on_vfio = identity("a/b", Some("58-a2"), None);
        assert_eq!(card.updated(&on_vfio), identity("a/b", Some("58-a2"), Some("GPU-1")));
    }
}
