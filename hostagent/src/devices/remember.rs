//! Who is who: every device that is seen is remembered by what the hardware says of itself, and one that is another now is
//! marked, never guessed.

use std::collections::BTreeMap;

use croft_gpu::host::Host;
use croft_gpu::pci::PciAddress;
use croft_proto::v1;

use super::find::{self, Likeness};
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
        let (known, changed) = after(self.host(), &record, &self.boot_id());
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
fn after(host: &Host, record: &Record, boot_id: &str) -> (BTreeMap<DeviceId, Known>, BTreeMap<DeviceId, String>) {
    let (mut known, mut changed) = (record.known.clone(), BTreeMap::new());
    let all: Vec<_> = find::all(host, record).collect();
    let seen: BTreeMap<DeviceId, Who> = all.iter().map(|(id, found)| (id.clone(), find::who(host, *found))).collect();
    for (id, found) in all {
        let (mut now, mut device) = (seen[&id].clone(), report::lasting(host, &id, found));
        // One of which nobody knew until now who it is.
        let before = known.get(&id).is_none_or(|then| !find::says_who(&then.who));
        if let Some(before) = before.then(|| name_before(record, &seen, &id, &now)).flatten() {
            if record.is_spoken_for_or_laid_out(&before) {
                changed.insert(id, format!("it is the card that was known as {before}, and that is not free"));
                continue;
            }
            // With what it cannot say at the moment: the plane knows it by that.
            if let Some(then) = known.get(&before) {
                now = find::updated(&then.who, now);
                device = report::with_what_it_told(device, &then.device);
            }
            if !seen.contains_key(&before) {
                known.remove(&before);
            }
        }
        let Some(then) = known.get(&id) else {
            known.insert(id, Known { who: now, proven: boot_id.to_owned(), device });
            continue;
        };
        let proven = match find::likeness(&then.who, &now) {
            Likeness::Same => boot_id.to_owned(),
            // Nobody has it, and it says itself that it is the one.
            Likeness::Moved(_) if !record.is_spoken_for_or_laid_out(&id) => boot_id.to_owned(),
            // Written by an agent that did not note it: what it set up in this boot, it knew.
            Likeness::Unproven if then.proven.is_empty() => record.boot_id.clone(),
            Likeness::Unproven => then.proven.clone(),
            Likeness::Moved(message) | Likeness::Other(message) => {
                // What was doubted of the card before is said of one that is not there.
                if record.marks.get(&id).is_none_or(|mark| mark.kind == MarkKind::Quarantined) {
                    changed.insert(id, message);
                }
                continue;
            }
        };
        let device = report::with_what_it_told(device, &then.device);
        let who = find::updated(&then.who, now);
        known.insert(id, Known { who, proven, device });
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

/// What a card that nobody knows by this name was known as, where it says that it is that one and is not there any more. The
/// functions of a card say the same of themselves: they are told apart by their numbers.
fn name_before(record: &Record, seen: &BTreeMap<DeviceId, Who>, id: &str, now: &Who) -> Option<DeviceId> {
    let Who::Pci(now) = now else { return None };
    let number = |id: &str| id.parse().ok().map(|address: PciAddress| address.function);
    let says_it = |who: &Who| matches!(who, Who::Pci(who) if find::says_the_same(who, now));
    let mut before = record.known.iter().filter(|(other, then)| {
        number(other) == number(id) && says_it(&then.who) && !seen.get(*other).is_some_and(says_it)
    });
    before.next().map(|(other, _)| other.clone())
}

#[cfg(test)]
mod tests;
