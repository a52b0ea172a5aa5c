//! Who is who: every device that is seen is remembered by what the hardware says of itself, and one that is another now is
//! marked, never guessed.

use std::collections::BTreeMap;

use croft_gpu::host::Host;
use croft_proto::v1;

use super::find;
use super::obstacle::Obstacle;
use super::record::{DeviceId, Known, Mark, MarkKind, Record, Who};
use super::report;
use super::session::Session;
use crate::reasons;

impl Session<'_> {
    pub async fn remember(&self) -> Result<(), Obstacle> {
        let record = self.record().await;
        if record.corrupt.is_some() {
            return Ok(());
        }
        let (known, changed) = after(self.host(), &record);
        let time = self.devices.clock.wall().0;
        self.note(|record| {
            record.known = known;
            for (id, message) in changed {
                tracing::error!(device = id, "{message}");
                let reason = reasons::DEVICE_CHANGED.to_owned();
                record.marks.insert(id, Mark { kind: MarkKind::Changed, reason, message, time });
            }
        })
        .await
    }
}

/// Who is known after a look; and which ones are another now, and how they differ.
fn after(host: &Host, record: &Record) -> (BTreeMap<DeviceId, Known>, BTreeMap<DeviceId, String>) {
    let (mut known, mut changed, mut seen) = (record.known.clone(), BTreeMap::new(), BTreeMap::new());
    for (id, found) in find::all(host, record) {
        let now = find::who(host, found);
        let device = report::lasting(host, &id, found);
        seen.insert(id.clone(), now.clone());
        let Some(then) = known.get(&id) else {
            known.insert(id, Known { who: now, device });
            continue;
        };
        match find::differs(then, &now) {
            // What was doubted of the card before is said of one that is not there.
            Some(message) if record.marks.get(&id).is_none_or(|mark| mark.kind == MarkKind::Quarantined) => {
                changed.insert(id, message);
            }
            Some(_) => {}
            None => {
                let device = report::with_what_it_told(device, &then.device);
                let who = find::updated(&then.who, now);
                known.insert(id, Known { who, device });
            }
        }
    }
    // Virtual functions come and go with their physical one's count: one that nobody misses is forgotten. So are the names of
    // sticks that go by another port now.
    known.retain(|id, known| {
        let comes_and_goes = match &known.who {
            Who::Usb(then) => seen.values().any(|now| matches!(now, Who::Usb(now) if then.is_same(now))),
            Who::Pci(_) | Who::Named => known.device.kind() == v1::device::Kind::VirtualFunction,
        };
        let missed = record.is_spoken_for(id) || find::unread(host, id).is_some();
        !comes_and_goes || seen.contains_key(id) || missed
    });
    (known, changed)
}

#[cfg(test)]
mod tests;
