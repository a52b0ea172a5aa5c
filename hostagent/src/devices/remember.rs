//! Who is who: every device that is seen is remembered by what the hardware says of itself, and one that is another now is
//! marked, never guessed.

use std::collections::BTreeMap;

use croft_proto::v1;

use super::find;
use super::obstacle::Obstacle;
use super::record::{Known, Mark, MarkKind, Who};
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
        for (id, found) in find::all(self.host(), &record) {
            let now = find::who(self.host(), found);
            let device = report::lasting(self.host(), &id, found);
            let Some(then) = known.get(&id) else {
                known.insert(id, Known { who: now, device });
                continue;
            };
            match find::differs(then, &now) {
                // What was doubted of the card before is said of one that is not there.
                Some(message) if record.marks.get(&id).is_none_or(|mark| mark.kind == MarkKind::Quarantined) => {
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
        // So do the names of sticks: one that was plugged in elsewhere goes by its new port.
        let seen: BTreeMap<String, Who> =
            find::all(self.host(), &record).map(|(id, found)| (id, find::who(self.host(), found))).collect();
        known.retain(|id, known| {
            let comes_and_goes = match &known.who {
                Who::Usb(then) => seen.values().any(|now| matches!(now, Who::Usb(now) if then.is_same(now))),
                Who::Pci(_) | Who::Named => known.device.kind() == v1::device::Kind::VirtualFunction,
            };
            !comes_and_goes
                || seen.contains_key(id)
                || record.is_spoken_for(id)
                || find::unread(self.host(), id).is_some()
        });
        self.note(|record| {
            record.known = known;
            record.marks.extend(marks);
        })
        .await
    }
}
