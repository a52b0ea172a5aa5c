//! Which piece of hardware a device is, whatever its address says today.
//!
//! An address is where a device sits; bus numbers may change when a card is added. What a host remembers of a device is its
//! *slot path* (bridge by bridge from the root complex, without bus numbers) and what the hardware says of itself. When the two
//! no longer agree the device is refused, never guessed.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `pci0000:40/01.1/00.0`: the root complex, then device and function at each bridge.
    pub slot_path: String,
    /// `10de:2330`
    pub pci_id: String,
    /// The strongest thing the hardware says of itself: the GPU's UUID, else the PCI device serial number
    /// (`58-a2-e1-ff-ff-00-3c-08`). `None`: it says nothing.
    pub serial: Option<String>,
}

/// What became of a remembered device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sameness {
    Same,
    /// Another card sits in the slot.
    Swapped { remembered: Identity, found: Identity },
    /// The same hardware answers at another address.
    Moved { remembered: Identity, found: Identity },
    /// It said who it was before, and does not now (its driver is gone, for example): not proven, not denied.
    Unproven,
}

impl Identity {
    /// Is `found`, at the same address, what was remembered?
    #[must_use]
    pub fn compare(&self, found: &Identity) -> Sameness {
        let pair = || (self.clone(), found.clone());
        match (&self.serial, &found.serial) {
            _ if self.pci_id != found.pci_id => swapped(pair()),
            (Some(then), Some(now)) if then != now => swapped(pair()),
            (Some(_), Some(_)) | (None, _) if self.slot_path != found.slot_path => moved(pair()),
            (Some(_), None) => Sameness::Unproven,
            _ => Sameness::Same,
        }
    }
}

fn swapped((remembered, found): (Identity, Identity)) -> Sameness {
    Sameness::Swapped { remembered, found }
}

fn moved((remembered, found): (Identity, Identity)) -> Sameness {
    Sameness::Moved { remembered, found }
}
