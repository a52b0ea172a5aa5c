//! Pools: named sets of interchangeable devices. A limit above 0 on `devices/{pool}` is the grant; there is no other. A pool of
//! GPUs gives whole ones; slices are asked for by profile or type.

use serde::{Deserialize, Serialize};

use super::{Assignment, Device, Kind};
use crate::id::{DeviceId, HostId, PoolId};
use crate::meta::{Labels, Meta, selects};
use crate::validate::Violations;

pub const POOL_ID_MAX: usize = 40;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    pub id: PoolId,
    pub meta: Meta,
    pub description: String,
    pub matches: PoolMatch,
}

impl Pool {
    #[must_use]
    pub fn name(&self) -> String {
        format!("pools/{}", self.id)
    }
}

/// Everything that is set must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolMatch {
    pub kind: Kind,
    /// `8086:10ca`
    pub ids: Vec<String>,
    /// The first two to six hex digits of a PCI class.
    pub classes: Vec<String>,
    pub devices: Vec<(HostId, DeviceId)>,
    pub host_selector: Labels,
}

impl PoolMatch {
    #[must_use]
    pub fn holds(&self, host: &HostId, labels: &Labels, device: &Device) -> bool {
        self.fits(host, labels, &device.id, (device.kind, &device.pci_id, &device.class))
    }

    /// Whether what was placed is still one of it: an operator may have changed the pool since.
    #[must_use]
    pub fn holds_piece(&self, host: &HostId, labels: &Labels, piece: &Assignment) -> bool {
        self.fits(host, labels, &piece.device, (piece.kind, &piece.pci_id, &piece.class))
    }

    fn fits(&self, host: &HostId, labels: &Labels, id: &DeviceId, (kind, pci_id, class): (Kind, &str, &str)) -> bool {
        let any = |list: &[String], holds: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|one| holds(one));
        kind == self.kind
            && any(&self.ids, &|id| pci_id == id)
            && any(&self.classes, &|start| class.starts_with(start))
            && (self.devices.is_empty() || self.devices.iter().any(|(on, listed)| on == host && listed == id))
            && selects(&self.host_selector, labels)
    }

    pub fn check(&self, violations: &mut Violations) {
        let field = |name: &str| format!("pool.match.{name}");
        violations.check(
            !(self.ids.is_empty() && self.classes.is_empty() && self.devices.is_empty()),
            "pool.match",
            "at least one of ids, classes, devices must be set: a pool of everything would give away the host's own disk",
        );
        let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        for (at, id) in self.ids.iter().enumerate() {
            let good = id.split_once(':').is_some_and(|(vendor, device)| {
                vendor.len() == 4 && device.len() == 4 && is_hex(vendor) && is_hex(device)
            });
            violations.check(
                good,
                &format!("pool.match.ids[{at}]"),
                "vendor:device in four hex digits each, `8086:10ca`",
            );
        }
        for (at, class) in self.classes.iter().enumerate() {
            let good = (2..=6).contains(&class.len()) && is_hex(class);
            violations.check(
                good,
                &format!("pool.match.classes[{at}]"),
                "two to six hex digits of a PCI class, `0200`",
            );
        }
        violations.check(
            self.classes.is_empty() || self.kind != Kind::Usb,
            &field("classes"),
            "USB devices have no PCI class; match them by ids or devices",
        );
    }
}
