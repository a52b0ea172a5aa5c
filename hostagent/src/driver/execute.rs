//! Carries out one action. What must survive a crash is in the journal before the effect where losing it would do harm
//! (a stop's deadline, who pulled the plug), and after it where a repetition is harmless (counters).

use croft_proto::agent::v1::{DesiredDevice, DesiredInstance};

use super::decide::devices::work;
use super::decide::{Action, Intent, Memory, Trouble, Why};
use super::exit::{self, Machine};
use super::{BREATH, Driver, MOST_BREATHS};
use crate::clock::Moment;
use crate::crash;
use crate::devices::Obstacle;
use crate::hypervisor::{Error, HostDevice, OffReason, Power, Seed};
use crate::journal::{self, End, Ended, Reboot, Record, Run, Stop};
use crate::reasons;

/// Why an action did not get done.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(Why),
    /// Worth another try.
    Failed(Why),
    /// Intent changed so that it is not wanted any more.
    Overtaken,
}

impl From<Obstacle> for Failure {
    /// All of them may pass by themselves: a process ends, a device is plugged in again, an operator releases it.
    fn from(Obstacle { reason, message }: Obstacle) -> Self {
        Self::Failed(Why { reason, message })
    }
}

/// How a run came to be, as far as this agent knows.
#[derive(Debug, Clone, Copy)]
enum Began {
    /// It runs already: started before a crash of the agent, or by somebody else.
    Found,
    /// Somebody wanted it to run.
    Asked { power: i64 },
    /// It had ended, and the restart policy answered.
    ByPolicy { power: i64 },
}

impl Driver {
    /// Leaves a trouble behind when it fails; [`super::decide`] says when to try again.
    pub(super) async fn execute(&mut self, action: Action, record: &Record) {
        let outcome = match action {
            Action::Prepare => self.prepare(record).await,
            Action::ReplaceDisk => self.replace_disk(record).await,
            Action::Start => self.start(record).await,
            Action::AskStop => self.ask_stop(record).await,
            Action::Destroy => self.destroy(record).await,
            Action::AskReboot => self.ask_reboot(record).await,
            Action::Reset => self.reset(record).await,
            Action::Resume => self.resume().await,
            Action::Devices => self.devices(record).await,
            Action::ReplaceSeed => self.replace_seed(record).await,
            Action::Remove => self.remove(record).await,
            Action::NoteRun => self.note_run(Began::Found).await,
            Action::NoteEnd(off) => self.note_end(off).await,
            Action::NoteReboot => self.note_reboot().await,
            Action::ForgetStop => self.note(|record| record.stop = None).await,
            Action::Settle => self.settle(record).await,
            Action::Revive => self.revive().await,
        };
        let (why, refused) = match outcome {
            Ok(()) => return self.memory.troubles.retain(|trouble| trouble.action != action),
            Err(Failure::Overtaken) => return,
            Err(Failure::Refused(why)) => (why, true),
            Err(Failure::Failed(why)) => (why, false),
        };
        let previous = self.memory.troubles.iter().find(|trouble| trouble.action == action);
        // Said once, not at every try: a night of tries must not fill the disk that may be what is missing.
        if previous.is_some_and(|previous| previous.why == why) {
            tracing::debug!(uid = %self.entry.uid, action = action.name(), reason = why.reason, "again: {}", why.message);
        } else {
            tracing::warn!(
                uid = %self.entry.uid, action = action.name(), reason = why.reason, "instance: {}", why.message
            );
        }
        if action.is_note() {
            // Notes are not held back by a trouble: without them nothing else can be decided.
            tokio::time::sleep(BREATH * previous.map_or(1, |previous| previous.tries.min(MOST_BREATHS))).await;
        }
        let trouble = Trouble::after(previous, action, Intent::of(record), why, refused, self.shared.clock.steady());
        self.memory.troubles.retain(|trouble| trouble.action != action);
        self.memory.troubles.push(trouble);
    }

    async fn prepare(&mut self, record: &Record) -> Result<(), Failure> {
        let Some(desired) = &record.desired else { return Ok(()) };
        let intent = Intent::of(record);
        let fetched = tokio::select! {
            fetched = self.fetch(desired, record) => fetched?,
            // A tombstone does not wait for the end of a download. The definition below is never cut short: the
            // hypervisor might finish it behind our back.
            () = self.overtaken(intent) => return Err(Failure::Overtaken),
        };
        // After a reboot devices come back before anything starts.
        self.shared.devices.ready().await;
        self.define(desired, &fetched).await?;
        let look = self.shared.surveyor.fresh().await;
        if look.outcome.is_ok() && look.domain(self.entry.uid).is_none() {
            let message = "the domain was defined, and is not there";
            return Err(Failure::Failed(Why::new(reasons::DOMAIN_MISSING, message)));
        }
        self.memory.prepared = Some(desired.generation);
        Ok(())
    }

    /// The image is there before the old disk goes. Which disk there is, the hypervisor knows: nothing is journaled.
    async fn replace_disk(&mut self, record: &Record) -> Result<(), Failure> {
        crash::point("agent.disk_replace.before");
        self.prepare(record).await?;
        crash::point("agent.disk_replace.after");
        Ok(())
    }

    /// Devices, and the definition that names them. The domain does not run.
    async fn define(&self, desired: &DesiredInstance, seed: &Seed) -> Result<(), Failure> {
        let wanted: Vec<_> = desired.devices.iter().filter(|device| !device.detach).cloned().collect();
        let devices = self.shared.devices.hold(self.entry.uid, &wanted).await?;
        crash::point("agent.ensure_defined.before");
        let defined = self.shared.hypervisor.ensure_defined(desired, seed, &devices).await;
        self.checked("ensure_defined", defined)?;
        crash::point("agent.ensure_defined.after");
        // Only now nothing names them any more.
        Ok(self.shared.devices.give_back(self.entry.uid, &desired.devices, &wanted).await?)
    }

    /// Returns when intent is not what it was.
    async fn overtaken(&self, intent: Intent) {
        loop {
            if Intent::of(&self.entry.read().await) != intent {
                // The permit that this wait took is the driver's next one.
                self.entry.wake();
                return;
            }
            self.entry.woken().await;
        }
    }

    async fn start(&mut self, record: &Record) -> Result<(), Failure> {
        if self.shared.hypervisor.host_is_stopping().await {
            let message = "the host is going down; it starts when the host is back";
            return Err(Failure::Failed(Why::new(reasons::HOST_STOPPING, message)));
        }
        if let Some(desired) = record.desired.as_ref().filter(|desired| !desired.devices.is_empty()) {
            // They may have been plugged in anew since, or be gone.
            let seed = self.fetch(desired, record).await?;
            self.define(desired, &seed).await?;
        }
        crash::point("agent.start.before");
        let started = self.checked("start", self.shared.hypervisor.start(self.entry.uid).await);
        if let Err(failure) = started {
            // Whatever the reason was, image, disk, network and definition are made sure of before the next try.
            self.memory.prepared = None;
            return Err(failure);
        }
        crash::point("agent.start.after");
        let power = power_wanted(record);
        // What Croft itself ended, for a new disk, is no end that a policy answers.
        let of_its_own = |ended: &&Ended| !matches!(ended.kind, End::Stopped | End::Killed);
        let ended = record.ended.as_ref().filter(of_its_own);
        let by_policy = ended.is_some_and(|ended| !ended.answered && ended.power_generation >= power);
        self.note_run(if by_policy { Began::ByPolicy { power } } else { Began::Asked { power } }).await
    }

    async fn ask_stop(&mut self, record: &Record) -> Result<(), Failure> {
        let (moment, power) = (self.moment(), stop_wanted(record));
        self.note(|record| match &record.stop {
            Some(stop) if stop.power_generation >= power => {}
            _ => record.stop = Some(Stop { asked: moment, power_generation: power, pulled: false }),
        })
        .await?;
        self.memory.asked_to_stop = Some(self.shared.clock.steady());
        crash::point("agent.stop.before");
        self.checked("request_shutdown", self.shared.hypervisor.request_shutdown(self.entry.uid).await)?;
        crash::point("agent.stop.after");
        Ok(())
    }

    async fn destroy(&mut self, record: &Record) -> Result<(), Failure> {
        let (moment, power) = (self.moment(), stop_wanted(record));
        self.note(|record| match &mut record.stop {
            Some(stop) => {
                stop.pulled = true;
                stop.power_generation = stop.power_generation.max(power);
            }
            None => record.stop = Some(Stop { asked: moment, power_generation: power, pulled: true }),
        })
        .await?;
        crash::point("agent.destroy.before");
        self.checked("destroy", self.shared.hypervisor.destroy(self.entry.uid).await)?;
        crash::point("agent.destroy.after");
        Ok(())
    }

    async fn ask_reboot(&mut self, record: &Record) -> Result<(), Failure> {
        let Some(desired) = &record.desired else { return Ok(()) };
        let (moment, generation) = (self.moment(), desired.reboot_generation);
        let before = self.shared.hypervisor.guest_restarts(self.entry.uid);
        self.note(|record| match &record.reboot {
            Some(reboot) if reboot.generation >= generation => {}
            _ => record.reboot = Some(Reboot { asked: moment, generation }),
        })
        .await?;
        crash::point("agent.reboot.before");
        self.checked("request_reboot", self.shared.hypervisor.request_reboot(self.entry.uid).await)?;
        crash::point("agent.reboot.after");
        self.memory.reboot_from = before;
        if before.is_none() {
            // This hypervisor cannot tell whether the guest restarts; a reset of one that did would be worse.
            self.note_reboot().await?;
        }
        Ok(())
    }

    /// Answers a reset, and a reboot that the guest ignored: both counters are then where the plane wants them.
    async fn reset(&mut self, record: &Record) -> Result<(), Failure> {
        let Some(desired) = &record.desired else { return Ok(()) };
        let (reboot, reset) = (desired.reboot_generation, desired.reset_generation);
        crash::point("agent.reset.before");
        self.checked("reset", self.shared.hypervisor.reset(self.entry.uid).await)?;
        crash::point("agent.reset.after");
        self.guest.stop();
        self.note(|record| {
            record.done.reboot = record.done.reboot.max(reboot);
            record.done.reset = record.done.reset.max(reset);
            record.reboot = None;
        })
        .await
    }

    /// What is to leave goes first: it may be in the place of what is to come.
    async fn devices(&mut self, record: &Record) -> Result<(), Failure> {
        let Some(desired) = &record.desired else { return Ok(()) };
        let look = self.shared.surveyor.fresh().await;
        let Some(domain) = look.domain(self.entry.uid) else { return Ok(()) };
        let view = self.shared.devices.view(self.entry.uid).await;
        let work = work(desired, domain, &view);
        if matches!(domain.power, Power::Off(_)) {
            let seed = self.fetch(desired, record).await?;
            return self.define(desired, &seed).await;
        }
        for device in work.leave.iter().chain(&work.anew).chain(&work.gone) {
            let aliases = domain.devices.iter().map(|attached| attached.alias.as_str());
            for alias in aliases.filter(|alias| HostDevice::request_of(alias) == device.id) {
                crash::point("agent.detach.before");
                self.checked("detach", self.shared.hypervisor.detach(self.entry.uid, alias).await)?;
                crash::point("agent.detach.after");
            }
        }
        let leaves = |device: &DesiredDevice| work.leave.iter().any(|leaves| leaves.id == device.id);
        let kept: Vec<_> = desired.devices.iter().filter(|device| !leaves(device)).cloned().collect();
        self.shared.devices.give_back(self.entry.uid, &desired.devices, &kept).await?;
        for device in work.anew.iter().chain(&work.come) {
            if !self.shared.devices.hot_pluggable(device).await? {
                let message = format!("{} is given to a guest when it starts: stop and start the instance", device.id);
                return Err(Failure::Refused(Why::new(reasons::DEVICE_NEEDS_RESTART, message)));
            }
            let one = std::slice::from_ref(*device);
            for device in self.shared.devices.hold(self.entry.uid, one).await? {
                crash::point("agent.attach.before");
                self.checked("attach", self.shared.hypervisor.attach(self.entry.uid, &device).await)?;
                crash::point("agent.attach.after");
            }
        }
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), Failure> {
        self.memory.resumed = Some(self.shared.clock.steady());
        self.checked("resume", self.shared.hypervisor.resume(self.entry.uid).await)
    }

    async fn remove(&mut self, record: &Record) -> Result<(), Failure> {
        crash::point("agent.remove.before");
        self.checked("remove", self.shared.hypervisor.remove(self.entry.uid).await)?;
        crash::point("agent.remove.after");
        let look = self.shared.surveyor.fresh().await;
        match &look.outcome {
            Err(message) => {
                return Err(Failure::Failed(Why::new(reasons::HYPERVISOR_UNAVAILABLE, message)));
            }
            Ok(_) if look.domain(self.entry.uid).is_some() => {
                let message = "the domain was removed, and is still there";
                return Err(Failure::Failed(Why::new(reasons::REMOVE_INCOMPLETE, message)));
            }
            Ok(_) => {}
        }
        self.note(|record| {
            if let Some(grave) = &mut record.tombstone {
                grave.removed = true;
            }
        })
        .await?;
        self.shared.board.stir();
        // Its domain holds nothing any more: devices go home, and only then it is absent.
        let asked = record.desired.as_ref().map_or(&[][..], |desired| &desired.devices);
        self.shared.devices.give_back(self.entry.uid, asked, &[]).await?;
        crash::point("agent.tombstone.before");
        self.note(|record| {
            if let Some(grave) = &mut record.tombstone {
                grave.gone = true;
            }
            // Nobody needs it any more, and it may hold secrets.
            record.seed = None;
            (record.run, record.stop, record.reboot) = (None, None, None);
        })
        .await?;
        crash::point("agent.tombstone.after");
        Ok(())
    }

    async fn note_run(&mut self, how: Began) -> Result<(), Failure> {
        let (began, time) = (self.moment(), self.shared.clock.wall());
        self.note(|record| {
            record.run = Some(Run { began, time });
            if let Some(ended) = &mut record.ended {
                ended.answered = true;
            }
            match how {
                Began::Found => {}
                Began::ByPolicy { power } => {
                    record.restarts = record.restarts.saturating_add(1);
                    record.done.power = record.done.power.max(power);
                }
                Began::Asked { power } => {
                    record.streak = 0;
                    record.done.power = record.done.power.max(power);
                }
            }
        })
        .await
    }

    /// What `record` asks for is the case: it runs, or it rests. Not what may be asked for by now.
    async fn settle(&mut self, record: &Record) -> Result<(), Failure> {
        let Some(desired) = &record.desired else { return Ok(()) };
        let (power, reboot, reset) = (desired.power_generation, desired.reboot_generation, desired.reset_generation);
        self.note(|record| {
            record.done.power = record.done.power.max(power);
            if record.run.is_none() {
                // There is nothing to restart.
                record.done.reboot = record.done.reboot.max(reboot);
                record.done.reset = record.done.reset.max(reset);
                record.reboot = None;
            }
        })
        .await
    }

    async fn revive(&mut self) -> Result<(), Failure> {
        self.memory = Memory::default();
        self.note(|record| {
            if let Some(desired) = record.after.take() {
                *record = Record::new(desired);
            }
        })
        .await
    }

    async fn note_end(&mut self, off: Option<OffReason>) -> Result<(), Failure> {
        let stopping = self.shared.hypervisor.host_is_stopping().await;
        let machine = if stopping { Machine::Stopping } else { Machine::Up };
        let (boot_id, clock) = (self.boot_id.clone(), self.shared.clock.clone());
        self.note(|record| exit::note_end(record, off, &boot_id, machine, &clock)).await
    }

    async fn note_reboot(&mut self) -> Result<(), Failure> {
        self.guest.stop();
        self.note(|record| {
            if let Some(reboot) = record.reboot.take() {
                record.done.reboot = record.done.reboot.max(reboot.generation);
            }
        })
        .await
    }

    pub(super) async fn note(&self, change: impl FnOnce(&mut Record)) -> Result<(), Failure> {
        self.entry.update(change).await.map_err(|error| match error {
            journal::Error::Killed => Failure::Overtaken,
            error => Failure::Failed(Why::new(reasons::JOURNAL_UNWRITABLE, format!("{:#}", anyhow::Error::new(error)))),
        })
    }

    pub(super) fn checked(&self, verb: &'static str, outcome: Result<(), Error>) -> Result<(), Failure> {
        outcome.map_err(|error| {
            self.shared.metrics.hypervisor_error(verb);
            failure(&error)
        })
    }

    fn moment(&self) -> Moment {
        Moment { boot_id: self.boot_id.clone(), at: self.shared.clock.steady() }
    }
}

pub(super) fn failure(error: &Error) -> Failure {
    let why = Why::new(error.reason(), error.message());
    if matches!(error, Error::Refused { .. }) { Failure::Refused(why) } else { Failure::Failed(why) }
}

fn power_wanted(record: &Record) -> i64 {
    record.desired.as_ref().map_or(0, |desired| desired.power_generation)
}

/// Whose wish a stop is: a tombstone's overrules every other.
fn stop_wanted(record: &Record) -> i64 {
    if record.tombstone.is_some() { i64::MAX } else { power_wanted(record) }
}
