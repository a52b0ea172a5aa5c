//! One piece of work on the host's devices: nobody else looks or writes meanwhile, and every decision is made on a look of
//! its own.
//!
//! Looks and steps exclude each other because NVML does: a change of mode fails while anybody has a session open.

use std::sync::Arc;

use croft_gpu::apply::{Left, Outcome, ResetOutcome, ResetRecord, TakenBack, Undone};
use croft_gpu::host::Host;
use croft_gpu::plan::{self, Plan, Step, Wish};
use tokio::sync::MutexGuard;
use uuid::Uuid;

use super::Inner;
use super::helper::Looked;
use super::obstacle::Obstacle;
use super::owners;
use super::record::{Cleaned, Mark, MarkKind, Record};
use crate::reasons;

pub(super) struct Session<'a> {
    pub devices: &'a Inner,
    looked: Arc<Looked>,
    _hand: MutexGuard<'a, ()>,
}

/// Why a plan was not carried out, and how that leaves the device.
#[derive(Debug)]
pub(super) enum Setback {
    AsBefore(Obstacle),
    /// As before, and that is with what its last guest left in it.
    Unclean(Obstacle),
    /// In doubt, or in the hands of a process that hangs. It is marked.
    Marked(Obstacle),
}

impl From<Obstacle> for Setback {
    fn from(obstacle: Obstacle) -> Self {
        Self::AsBefore(obstacle)
    }
}

impl From<Setback> for Obstacle {
    fn from(setback: Setback) -> Self {
        match setback {
            Setback::AsBefore(obstacle) | Setback::Unclean(obstacle) | Setback::Marked(obstacle) => obstacle,
        }
    }
}

impl<'a> Session<'a> {
    /// Looks; and after a reboot puts everything back before anybody asks for anything.
    pub async fn begin(devices: &'a Inner) -> Result<Session<'a>, Obstacle> {
        let hand = devices.hand.lock().await;
        let looked = devices.look().await?;
        let mut session = Session { devices, looked, _hand: hand };
        session.remember().await?;
        session.replay().await?;
        Ok(session)
    }

    pub fn host(&self) -> &Host {
        &self.looked.host
    }

    pub fn boot_id(&self) -> String {
        self.looked.boot_id.clone()
    }

    pub async fn record(&self) -> Record {
        self.devices.record.read().await
    }

    pub async fn note(&self, change: impl FnOnce(&mut Record)) -> Result<(), Obstacle> {
        self.devices.note(change).await
    }

    pub async fn look_again(&mut self) -> Result<(), Obstacle> {
        self.looked = self.devices.look().await?;
        self.remember().await
    }

    /// What leads from here to the wish.
    pub async fn plan(&self, asker: Option<Uuid>, wish: &Wish) -> Result<Plan, plan::Refusal> {
        let record = self.record().await;
        plan::plan(self.host(), &owners::of(&record, self.host(), asker, wish), wish)
    }

    /// `device`: whom the plane knows; it is marked when the steps leave doubt.
    pub async fn carry_out(&mut self, device: &str, plan: Plan) -> Result<Vec<ResetRecord>, Setback> {
        if plan.steps.is_empty() {
            return Ok(Vec::new());
        }
        // It has NVML open, and nothing changes while anybody has.
        self.devices.ear.rest().await;
        tracing::info!(device, steps = plan.steps.len(), "changes a device");
        let outcome = self.devices.hands.apply(plan).await;
        let (resets, result) = match outcome {
            Outcome::Applied { resets } => (resets, Ok(())),
            Outcome::Failed(failure) => {
                let obstacle = Obstacle::new(reasons::DEVICE_STEP_FAILED, failure.to_string());
                let setback = match failure.undone {
                    Undone::Whole if matches!(failure.step, Step::Reset { .. }) => Setback::Unclean(obstacle),
                    Undone::Whole => Setback::AsBefore(obstacle),
                    Undone::Not { left, .. } => {
                        let kind = MarkKind::Quarantined;
                        Setback::Marked(
                            self.mark(device, kind, reasons::DEVICE_NOT_RESTORED, obstacle.message, left).await?,
                        )
                    }
                };
                (failure.resets, Err(setback))
            }
            Outcome::Stuck(stuck) => {
                let (kind, message) = (MarkKind::Stuck { boot_id: self.boot_id() }, stuck.to_string());
                let obstacle = self.mark(device, kind, reasons::DEVICE_STUCK, message, stuck.left).await?;
                (stuck.resets, Err(Setback::Marked(obstacle)))
            }
        };
        self.keep_resets(&resets).await?;
        // A plan that did not work changed something all the same, for a while at least.
        self.look_again().await?;
        result.map(|()| resets)
    }

    /// Takes back what an earlier plan left done.
    pub async fn take_back(&mut self, device: &str, left: Vec<Left>) -> Result<(), Obstacle> {
        if left.is_empty() {
            return Ok(());
        }
        match self.devices.hands.take_back(left).await {
            TakenBack::Undone(Undone::Whole) => {
                self.note(|record| drop(record.left.remove(device))).await?;
                self.look_again().await
            }
            TakenBack::Undone(Undone::Not { error, left }) => {
                self.note(|record| drop(record.left.insert(device.to_owned(), left))).await?;
                Err(Obstacle::new(reasons::DEVICE_NOT_RESTORED, error.to_string()))
            }
            TakenBack::Stuck { pid, left, .. } => {
                let kind = MarkKind::Stuck { boot_id: self.boot_id() };
                let message = format!("process {pid} hangs in the kernel: reboot the host");
                Err(self.mark(device, kind, reasons::DEVICE_STUCK, message, left).await?)
            }
        }
    }

    pub async fn mark(
        &self,
        device: &str,
        kind: MarkKind,
        reason: &'static str,
        message: String,
        left: Vec<Left>,
    ) -> Result<Obstacle, Obstacle> {
        tracing::error!(device, reason, "{message}");
        let mark =
            Mark { kind, reason: reason.to_owned(), message: message.clone(), time: self.devices.clock.wall().0 };
        self.note(|record| {
            // What hangs stays so, whatever else is found wrong with it.
            if !matches!(record.marks.get(device), Some(Mark { kind: MarkKind::Stuck { .. }, .. })) {
                record.marks.insert(device.to_owned(), mark);
            }
            if !left.is_empty() {
                record.left.insert(device.to_owned(), left);
            }
        })
        .await?;
        Ok(Obstacle { reason, message })
    }

    async fn keep_resets(&self, resets: &[ResetRecord]) -> Result<(), Obstacle> {
        if resets.is_empty() {
            return Ok(());
        }
        self.note(|record| {
            for reset in resets {
                let (clean, message) = match &reset.outcome {
                    ResetOutcome::Clean => (true, String::new()),
                    ResetOutcome::Doubtful { why } => (false, why.clone()),
                };
                let method = reset.method.clone().unwrap_or_default();
                let cleaned = Cleaned { method, time: reset.ended, clean, message };
                if clean {
                    record.faults.remove(&reset.device);
                }
                record.resets.insert(reset.device.to_string(), cleaned);
            }
        })
        .await
    }
}
