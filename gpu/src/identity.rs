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
    /// The same hardware answers at another address.
    Moved {
        remembered: Identity,
        found: Identity,
    },
    /// It said who it was before, and does not now (its driver is gone, for example): not proven, not denied.
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
        } else if said_something && !proven {
            Sameness::Unproven
        } else if self.slot_path != found.slot_path {
            let (remembered, found) = pair();
            Sameness::Moved { remembered, found }
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
        // In another slot, and it does not say who it is: that proves nothing.
        assert_eq!(card.compare(&identity("pci0000:40/03.1/00.0", None, None)), Sameness::Unproven);
        // One that never said who it is, is known by its slot alone.
        let nameless = identity(slot, None, None);
        assert_eq!(nameless.compare(&card), Sameness::Same);
        assert!(matches!(nameless.compare(&moved), Sameness::Moved { .. }));
    }

    #[test]
    fn what_it_cannot_say_now_is_not_forgotten() {
        let card = identity("a/b", None, Some("GPU-1"));
        let on_vfio = identity("a/b", Some("58-a2"), None);
        assert_eq!(card.updated(&on_vfio), identity("a/b", Some("58-a2"), Some("GPU-1")));
    }
}
