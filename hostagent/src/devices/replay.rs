//! After a reboot: everything that was held is made true again, before any VM starts.
//!
//! The kernel forgets bindings, virtual functions, GPU instances and vGPUs; the journal does not. Each wish that is true
//! already costs nothing, so that a replay which was cut short begins anew. A device that is another now, or cannot be set up
//! again, is marked or left to its instance, which does not run and says why.

use croft_gpu::plan::Wish;

use super::find;
use super::obstacle::Obstacle;
use super::record::{MarkKind, Record};
use super::session::Session;
use crate::crash;

impl Session<'_> {
    pub async fn replay(&mut self) -> Result<(), Obstacle> {
        let record = self.record().await;
        if record.boot_id == self.boot_id() || record.corrupt.is_some() {
            return Ok(());
        }
        if !record.boot_id.is_empty() {
            let holds = record.holds.values().map(std::collections::BTreeMap::len).sum::<usize>();
            tracing::info!(holds, "another boot: the layout of the devices is made again");
        }
        crash::point("agent.replay.before");
        // What hung in the kernel hung in another one, and half-done steps went with it.
        self.note(|record| {
            record.marks.retain(|_, mark| !matches!(&mark.kind, MarkKind::Stuck { .. }));
            record.left.clear();
            record.faults.clear();
        })
        .await?;
        // What was stuck may be another card by now.
        self.remember().await?;
        // Functions first: those that instances hold are among them.
        self.lay_out().await?;
        self.hold_again(&record).await;
        let boot_id = self.boot_id();
        self.note(|record| record.boot_id = boot_id).await?;
        crash::point("agent.replay.after");
        Ok(())
    }

    async fn hold_again(&mut self, record: &Record) {
        // The modes of all GPUs before the slices of any: a slice in use forbids to change the mode below it.
        for modes in [true, false] {
            for (uid, holds) in &record.holds {
                for (id, hold) in holds {
                    let marked = |record: &Record| record.marks.contains_key(&hold.device);
                    for taken in hold.taken.iter().filter(|taken| matches!(taken.wish, Wish::Mode { .. }) == modes) {
                        let now = self.record().await;
                        // It may be another card: its instance takes it as soon as it has said that it is not.
                        let unproven = find::unproven(&now, &self.boot_id(), &hold.device);
                        if let Some(Obstacle { reason, message }) = &unproven {
                            tracing::warn!(%uid, request = id, reason, "not set up again: {message}");
                        }
                        if unproven.is_some() || marked(&now) {
                            continue;
                        }
                        if let Err(Obstacle { reason, message }) =
                            self.make_true(*uid, id, &hold.device, taken.clone()).await
                        {
                            // Its instance tries again before it starts, and says why it does not.
                            tracing::warn!(%uid, request = id, device = hold.device, reason, "not set up again: {message}");
                        }
                    }
                }
            }
        }
    }
}
