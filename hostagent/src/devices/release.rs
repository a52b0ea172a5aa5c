//! An operator's word that a device is fine, or that the hardware which is there now is the right one.

use std::collections::BTreeMap;

use croft_proto::agent::v1::HostPolicy;

use super::find;
use super::obstacle::Obstacle;
use super::record::{Known, MarkKind, Record};
use super::report;
use super::session::Session;

impl Session<'_> {
    /// Carries out those that rose. What stood in the way of a device's way home may stand there still: then it stays marked.
    pub async fn release(&mut self, policy: &HostPolicy) -> Result<(), Obstacle> {
        for release in &policy.releases {
            let device = release.device.as_str();
            let record = self.record().await;
            if record.corrupt.is_some() || record.releases.get(device).copied().unwrap_or(0) >= release.counter {
                continue;
            }
            let kind = record.marks.get(device).map(|mark| &mark.kind);
            let stuck = matches!(kind, Some(MarkKind::Stuck { .. }));
            // What is still to be done was meant for the card that is gone.
            let home = if stuck || kind == Some(&MarkKind::Changed) { Ok(()) } else { self.take_home(device).await };
            let counter = release.counter;
            match home {
                // What hangs in the kernel hangs there whatever anybody says.
                Ok(()) if stuck => {
                    self.note(|record| {
                        record.releases.insert(device.to_owned(), counter);
                    })
                    .await?;
                }
                Ok(()) => self.accept(device, counter).await?,
                Err(Obstacle { reason, message }) => {
                    tracing::warn!(device, reason, "not released: {message}");
                    self.note(|record| {
                        record.releases.insert(device.to_owned(), counter);
                        if let Some(mark) = record.marks.get_mut(device) {
                            mark.message = format!("not released: {message}");
                        }
                    })
                    .await?;
                }
            }
        }
        Ok(())
    }

    async fn take_home(&mut self, device: &str) -> Result<(), Obstacle> {
        let left = self.record().await.left.get(device).cloned().unwrap_or_default();
        self.take_back(device, left).await?;
        loop {
            let record = self.record().await;
            let Some(next) = record.unreturned.get(device).and_then(|wishes| wishes.first()).cloned() else { break };
            let before = record.marks.get(device).cloned();
            // Gone, or home already: either way there is nothing more to be done for it.
            let planned = self.plan(None, &next).await;
            let there = planned.is_ok() || find::device(self.host(), &record, device).is_ok();
            if there && !self.is_off_the_bus(device) {
                self.way_home(None, device, &next).await?;
                if self.record().await.marks.get(device) != before.as_ref() {
                    break;
                }
            }
            self.note(|record| {
                if let Some(wishes) = record.unreturned.get_mut(device) {
                    wishes.remove(0);
                }
            })
            .await?;
        }
        Ok(())
    }

    async fn accept(&mut self, device: &str, counter: i64) -> Result<(), Obstacle> {
        let record = self.record().await;
        let found = find::all(self.host(), &record).find(|(id, _)| id == device);
        let there = found.is_some();
        let changed = record.marks.get(device).is_some_and(|mark| mark.kind == MarkKind::Changed);
        // Who it is, is known of one that did not change; it may not be able to say so now.
        let proven = self.boot_id();
        let another = found.filter(|_| changed).map(|(id, found)| Known {
            who: find::who(self.host(), found),
            proven: proven.clone(),
            device: report::lasting(self.host(), &id, found),
        });
        tracing::info!(device, there, "released");
        self.note(|record| {
            record.releases.insert(device.to_owned(), counter);
            record.marks.remove(device);
            record.unreturned.remove(device);
            record.faults.retain(|gpu, _| gpu.to_string() != device);
            if changed {
                forget_the_card(record, device);
            }
            // What the layout says of this address is meant for what is there now.
            if let Ok(address) = device.parse()
                && there
            {
                record.layout.meant.remove(&address);
            }
            match another {
                Some(known) => drop(record.known.insert(device.to_owned(), known)),
                // Nobody misses it any more.
                None if !there && !record.is_held(device) => drop(record.known.remove(device)),
                // Somebody has looked who it is.
                None if there => {
                    if let Some(known) = record.known.get_mut(device) {
                        known.proven = proven;
                    }
                }
                // Its holder keeps it, and nobody has seen it: what comes back in its place says who it is.
                None => {}
            }
        })
        .await?;
        // What was said of it before is in the look of before.
        self.look_again().await
    }
}

/// What was made of a card that is gone: nothing of that leads anywhere on the one in its place.
fn forget_the_card(record: &mut Record, device: &str) {
    record.left.remove(device);
    if let Ok(address) = device.parse() {
        record.modes.remove(&address);
        record.functions.remove(&address);
    }
    let holds = record.holds.values_mut().flat_map(BTreeMap::values_mut);
    holds.filter(|hold| hold.device == device).for_each(|hold| hold.taken.clear());
}
