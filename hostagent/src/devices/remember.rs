//! Who is who: every device that is seen is remembered by what the hardware says of itself, and one that is another now is
//! marked, never guessed.

use std::collections::BTreeMap;

use croft_gpu::plan::usb;
use croft_gpu::usb::UsbDevice;
use croft_proto::v1;

use super::find::{self, Found};
use super::obstacle::Obstacle;
use super::record::{Known, Mark, MarkKind, Record, Who};
use super::report;
use super::session::Session;
use crate::reasons;

impl Session<'_> {
    pub async fn remember(&self) -> Result<(), Obstacle> {
        let record = self.record().await;
        if record.corrupt.is_some() {
            return Ok(());
        }
        let time = self.devices.clock.wall().0;
        let (mut known, mut marks) = (record.known.clone(), BTreeMap::new());
        for (id, found) in find::all(self.host()) {
            if stands_for_another(&record, self.host(), &id, found) {
                continue;
            }
            let now = find::who(self.host(), found);
            let device = report::lasting(self.host(), &id, found);
            let Some(then) = known.get(&id) else {
                known.insert(id, Known { who: now, device });
                continue;
            };
            match find::differs(then, &now) {
                Some(message) if !record.marks.contains_key(&id) => {
                    tracing::error!(device = id, "{message}");
                    let reason = reasons::DEVICE_CHANGED.to_owned();
                    marks.insert(id, Mark { kind: MarkKind::Changed, reason, message, time });
                }
                Some(_) => {}
                None => {
                    let device = report::with_what_it_told(device, &then.device);
                    let who = find::updated(&then.who, now);
                    known.insert(id, Known { who, device });
                }
            }
        }
        // Virtual functions come and go with their physical one's count: one that nobody misses is forgotten.
        let seen: Vec<String> = find::all(self.host()).map(|(id, _)| id).collect();
        let missed = |id: &String| record.holds.values().flat_map(BTreeMap::values).any(|hold| hold.device == *id);
        known.retain(|id, known| {
            let is_virtual = known.device.kind() == v1::device::Kind::VirtualFunction;
            !is_virtual || seen.contains(id) || missed(id) || find::unread(self.host(), id).is_some()
        });
        self.note(|record| {
            record.known = known;
            record.marks.extend(marks);
        })
        .await
    }
}

/// A USB device that somebody holds, found by its serial number in another port: it keeps the name under which it is held.
pub(super) fn stands_for_another(record: &Record, host: &croft_gpu::host::Host, id: &str, found: Found<'_>) -> bool {
    let Found::Usb(device) = found else { return false };
    let same = |other: &UsbDevice| other.port == device.port;
    let held = record.holds.values().flat_map(BTreeMap::values).map(|hold| &hold.device).filter(|held| *held != id);
    held.filter_map(|held| record.known.get(held)).any(|known| match &known.who {
        Who::Usb(identity) => usb::find(&host.usb.devices, identity).is_ok_and(same),
        Who::Pci(_) | Who::Named => false,
    })
}
