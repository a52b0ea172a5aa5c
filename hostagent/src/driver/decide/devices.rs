//! Devices of an instance: what its domain has, against what it should have.

use std::collections::BTreeSet;

use croft_proto::agent::v1::{DesiredDevice, DesiredInstance};
use croft_proto::v1::Condition;
use croft_proto::v1::condition::Status;

use super::{Seen, View};
use crate::devices;
use crate::hypervisor::{Domain, HostDevice, Power};
use crate::reasons;

pub const DEVICES_ATTACHED: &str = "DevicesAttached";

/// What is to be done, so that the domain has what it should have.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Work<'a> {
    /// Out of the domain, cleaned, and on nobody's account.
    pub leave: Vec<&'a DesiredDevice>,
    /// Attached under numbers that mean nothing any more: they were plugged in anew.
    pub anew: Vec<&'a DesiredDevice>,
    /// Unplugged from the host: out of the domain, so that its guest sees them go, and still held by it.
    pub gone: Vec<&'a DesiredDevice>,
    pub come: Vec<&'a DesiredDevice>,
}

#[must_use]
pub fn work<'a>(desired: &'a DesiredInstance, domain: &Domain, view: &devices::View) -> Work<'a> {
    let has = ids(domain);
    let runs = !matches!(domain.power, Power::Off(_));
    let mut work = Work::default();
    for device in &desired.devices {
        let (held, attached) = (view.held.contains(&device.id), has.contains(device.id.as_str()));
        if device.detach {
            if held || attached {
                work.leave.push(device);
            }
        } else if view.unplugged.contains(&device.id) {
            // A domain that is off is told when it starts.
            if attached && runs {
                work.gone.push(device);
            }
        } else if !attached {
            work.come.push(device);
        } else if is_stale(domain, device, view) {
            work.anew.push(device);
        }
    }
    work
}

fn is_stale(domain: &Domain, device: &DesiredDevice, view: &devices::View) -> bool {
    let attached = domain.devices.iter().find(|attached| attached.alias == device.id).and_then(|attached| attached.usb);
    let (Some(attached), Some(now)) = (attached, view.usb.get(&device.id)) else { return false };
    attached != *now
}

pub(super) fn is_work(view: &View<'_>, desired: &DesiredInstance) -> bool {
    let Seen::Present(domain) = view.seen else { return false };
    work(desired, domain, view.devices) != Work::default()
}

fn ids(domain: &Domain) -> BTreeSet<&str> {
    domain.devices.iter().map(|attached| HostDevice::request_of(&attached.alias)).collect()
}

/// What the plane hears of an instance's devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// `None`: it asks for none.
    pub condition: Option<Condition>,
    pub attached: Vec<String>,
    pub released: Vec<String>,
}

#[must_use]
pub fn condition(view: &View<'_>) -> Told {
    let Some(desired) = view.record.desired.as_ref().filter(|desired| !desired.devices.is_empty()) else {
        return Told::default();
    };
    let has = match view.seen {
        Seen::Present(domain) => ids(domain),
        Seen::Absent => BTreeSet::new(),
        // Nothing is known of what it has: what was told before stands.
        Seen::Nothing(_) => return Told { condition: None, ..Told::default() },
    };
    let wanted: Vec<_> = desired.devices.iter().filter(|device| !device.detach).collect();
    let ids = |devices: &[&DesiredDevice]| devices.iter().map(|device| device.id.clone()).collect::<Vec<_>>();
    let attached: Vec<_> = desired.devices.iter().filter(|device| has.contains(device.id.as_str())).collect();
    let released = desired.devices.iter().filter(|device| device.detach);
    let released = released.filter(|device| {
        let held = view.devices.held.contains(&device.id) || view.devices.untold.is_some();
        !held && !has.contains(device.id.as_str())
    });
    let released: Vec<_> = released.collect();
    let trouble = view.memory.troubles.iter().map(|trouble| &trouble.why).find(|why| devices::is_obstacle(why.reason));
    let ill = wanted.iter().find_map(|device| view.devices.ill.get(&device.id)).or(view.devices.untold.as_ref());
    let condition = match (trouble, ill) {
        (Some(why), _) => Some((Status::False, why.reason, why.message.clone())),
        (None, Some(obstacle)) => Some((Status::False, obstacle.reason, obstacle.message.clone())),
        (None, None) if !view.devices.looked => None,
        (None, None) if wanted.iter().all(|device| has.contains(device.id.as_str())) => {
            (!wanted.is_empty()).then(|| (Status::True, reasons::DEVICES_ATTACHED, String::new()))
        }
        (None, None) => Some((Status::False, reasons::DEVICES_PENDING, "its devices are not ready yet".to_owned())),
    };
    let condition = condition.map(|(status, reason, message)| Condition {
        r#type: DEVICES_ATTACHED.to_owned(),
        status: status.into(),
        reason: reason.to_owned(),
        message,
        last_transition_time: None,
    });
    Told { condition, attached: ids(&attached), released: ids(&released) }
}
