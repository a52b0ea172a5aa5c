//! One piece of work on the host's devices: nobody else looks or writes meanwhile, and every decision is made on a look of
//! its own.
//!
//! Looks and steps exclude each other because NVML does: a change of mode fails while anybody has a session open.

use std::sync::Arc;

use croft_gpu::apply::{Deferred, Left, Outcome, ResetOutcome, ResetRecord, StepError, TakenBack, Undone};
use croft_gpu::host::Host;
use croft_gpu::pci::PciAddress;
use croft_gpu::plan::{self, Plan, Reason, Step, Wish};
use tokio::sync::MutexGuard;
use uuid::Uuid;

use super::Inner;
use super::find;
use super::helper::Looked;
use super::obstacle::{self, Obstacle};
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
    /// Steps were carried out, and what came of them could not be looked at or written down.
    Unknown(Obstacle),
}

impl From<Setback> for Obstacle {
    fn from(setback: Setback) -> Self {
        match setback {
            Setback::AsBefore(obstacle)
            | Setback::Unclean(obstacle)
            | Setback::Marked(obstacle)
            | Setback::Unknown(obstacle) => obstacle,
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

    /// `device`: whom the plane knows; it is marked when the steps leave doubt. Nothing is written to hardware that is not the
    /// one that was remembered, nor to what hangs.
    pub async fn carry_out(&mut self, device: &str, plan: Plan) -> Result<Vec<ResetRecord>, Setback> {
        if plan.steps.is_empty() {
            return Ok(Vec::new());
        }
        self.untouchable(device).await.map_or(Ok(()), |obstacle| Err(Setback::AsBefore(obstacle)))?;
        let devices = self.devices;
        let _turn = devices.turn().await;
        // It has NVML open, and no GPU changes while anybody has.
        if let Err(obstacle) = self.devices.ear.rest().await
            && device.parse().is_ok_and(|address| find::is_gpu(self.host(), address))
        {
            return Err(Setback::AsBefore(obstacle));
        }
        tracing::info!(device, steps = plan.steps.len(), "changes a device");
        let outcome = self.devices.hands.apply(plan).await;
        // From here on only the outcome itself can say that the device is as before.
        self.settle(device, outcome).await.unwrap_or_else(|obstacle| Err(Setback::Unknown(obstacle)))
    }

    /// A plan for a mode. A GPU whose last change of mode was cut short says what it is only once it is back on its driver: what
    /// is left to be done then is a plan of its own.
    pub async fn carry_out_mode(
        &mut self,
        asker: Option<Uuid>,
        gpu: PciAddress,
        wish: &Wish,
        plan: Plan,
    ) -> Result<(), Setback> {
        self.carry_out(&gpu.to_string(), plan).await?;
        let rest = self.plan(asker, wish).await.map_err(|refusal| Setback::AsBefore(refusal.into()))?;
        self.carry_out(&gpu.to_string(), rest).await.map(drop)
    }

    /// The mark that forbids every write to the device, or to the card of which it is a function.
    async fn untouchable(&self, device: &str) -> Option<Obstacle> {
        let record = self.record().await;
        let (of, mark) = find::marks(self.host(), &record, device)
            .find(|(_, mark)| matches!(mark.kind, MarkKind::Changed | MarkKind::Stuck { .. }))?;
        Some(obstacle::of_mark(of, mark))
    }

    /// Writes down what became of a plan, and looks. An obstacle: that could not be done.
    async fn settle(&mut self, device: &str, outcome: Outcome) -> Result<Result<Vec<ResetRecord>, Setback>, Obstacle> {
        let (resets, result) = match outcome {
            Outcome::Applied { resets } => (resets, Ok(())),
            Outcome::Failed(failure) => {
                let reason = because(&failure.error, reasons::DEVICE_STEP_FAILED);
                let obstacle = Obstacle::new(reason, failure.to_string());
                let setback = match failure.undone {
                    // It was not tried: its turn comes again.
                    Undone::Whole if failure.error.deferred.is_some() => Setback::AsBefore(obstacle),
                    Undone::Whole if matches!(failure.step, Step::Reset { .. } | Step::ResetUsb { .. }) => {
                        Setback::Unclean(obstacle)
                    }
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
        self.keep_resets(device, &resets).await?;
        // A plan that did not work changed something all the same, for a while at least.
        self.look_again().await?;
        Ok(result.map(|()| resets))
    }

    /// Takes back what an earlier plan left done.
    pub async fn take_back(&mut self, device: &str, left: Vec<Left>) -> Result<(), Obstacle> {
        if left.is_empty() {
            return Ok(());
        }
        let devices = self.devices;
        let _turn = devices.turn().await;
        match devices.hands.take_back(left).await {
            TakenBack::Undone(Undone::Whole) => {
                self.note(|record| drop(record.left.remove(device))).await?;
                self.look_again().await
            }
            TakenBack::Undone(Undone::Not { error, left }) => {
                self.note(|record| drop(record.left.insert(device.to_owned(), left))).await?;
                Err(Obstacle::new(because(&error, reasons::DEVICE_NOT_RESTORED), error.to_string()))
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

    /// `device`: whose they are, but for functions that go along with it.
    async fn keep_resets(&self, device: &str, resets: &[ResetRecord]) -> Result<(), Obstacle> {
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
                let function = reset.device.parse::<PciAddress>().ok();
                if let Some(function) = function.filter(|_| clean) {
                    record.faults.remove(&function);
                }
                // A stick may sit in another port than the one that it is known by.
                let name = if function.is_some() { reset.device.as_str() } else { device };
                record.resets.insert(name.to_owned(), cleaned);
            }
        })
        .await
    }
}

/// One who has the device open at the moment, if that is all; `otherwise` else.
fn because(error: &StepError, otherwise: &'static str) -> &'static str {
    match error.deferred {
        Some(Deferred::HeldBy { .. }) => Reason::DeviceHeldOpen.word(),
        Some(Deferred::Stopped) | None => otherwise,
    }
}
