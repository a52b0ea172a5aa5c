//! What an operator wants the host's devices to be like, whoever uses them: standing virtual functions, and the mode that a
//! GPU is kept in. And the way back for what nobody wants any more.

use std::collections::BTreeMap;

use croft_gpu::identity::{Identity, Sameness};
use croft_gpu::pci::PciAddress;
use croft_gpu::plan::{self, Mode, Wish};
use croft_proto::agent::v1::HostPolicy;
use croft_proto::v1::gpu;

use super::find;
use super::obstacle::{self, Obstacle};
use super::record::{Layout, LayoutMode, Record, Who};
use super::request;
use super::session::Session;
use crate::reasons;

impl Layout {
    #[must_use]
    pub fn of(policy: &HostPolicy) -> Layout {
        let mut layout = Layout { generation: policy.layout_generation, ..Layout::default() };
        for device in &policy.layout {
            let Ok(address) = device.device.parse::<PciAddress>() else {
                layout.nonsense.push(format!("{}: is no PCI address", device.device));
                continue;
            };
            let mode = match device.gpu_mode() {
                gpu::Mode::Unspecified => None,
                gpu::Mode::Idle => Some(LayoutMode::Idle),
                gpu::Mode::Vgpu => Some(LayoutMode::Vgpu),
                gpu::Mode::MigVgpu => Some(LayoutMode::MigVgpu),
                gpu::Mode::Foreign => Some(LayoutMode::Foreign),
                gpu::Mode::Passthrough => {
                    layout.nonsense.push(format!("{address}: passthrough is no mode to be kept in; IDLE is"));
                    continue;
                }
            };
            match (mode, u16::try_from(device.virtual_functions)) {
                (Some(mode), _) => drop(layout.modes.insert(address, mode)),
                (None, Ok(count)) => drop(layout.functions.insert(address, count)),
                (None, Err(_)) => {
                    layout.nonsense.push(format!("{address}: {} virtual functions", device.virtual_functions));
                }
            }
        }
        layout
    }

    /// The same wishes are meant for the same hardware; what is named anew, for what is there now.
    #[must_use]
    pub fn after(self, before: Layout) -> Layout {
        let meant = before.meant.into_iter().filter(|(address, _)| self.names(*address)).collect();
        Layout { meant, ..self }
    }
}

/// As far as it says who it is.
fn is_it(then: &Identity, now: &Identity) -> bool {
    matches!(then.compare(now), Sameness::Same | Sameness::Unproven)
}

impl Session<'_> {
    /// Answers what is not as it should be, device by device.
    pub async fn lay_out(&mut self) -> Result<Vec<String>, Obstacle> {
        if self.record().await.corrupt.is_some() {
            return Ok(Vec::new());
        }
        self.note_meant().await?;
        let record = self.record().await;
        let mut problems = record.layout.nonsense.clone();
        for (physical, outcome) in self.functions(&record).await {
            problems.extend(outcome.err().map(|obstacle| format!("{physical}: {}", obstacle.message)));
        }
        for (gpu, mode) in &record.layout.modes {
            problems
                .extend(self.keep_mode(&record, *gpu, *mode).await.err().map(|why| format!("{gpu}: {}", why.message)));
        }
        // Modes that nobody needs any more, the layout neither.
        let unwanted = record.modes.keys().filter(|gpu| !record.layout.modes.contains_key(gpu));
        for gpu in unwanted.copied().collect::<Vec<_>>() {
            self.home_mode(gpu).await;
        }
        Ok(problems)
    }

    async fn functions(&mut self, record: &Record) -> BTreeMap<PciAddress, Result<(), Obstacle>> {
        let mut outcomes = BTreeMap::new();
        for (&physical, &count) in &record.layout.functions {
            let wish = Wish::VirtualFunctions { physical, count, autoprobe: false };
            outcomes.insert(physical, self.stand(physical, wish).await);
        }
        for (physical, home) in &record.functions {
            if !record.layout.functions.contains_key(physical) {
                let gone = self.stand_back(*physical, home).await;
                outcomes.insert(*physical, gone);
            }
        }
        outcomes
    }

    /// Writes down which hardware it is that the layout names, as far as that is known by now.
    async fn note_meant(&self) -> Result<(), Obstacle> {
        let record = self.record().await;
        let named = record.layout.functions.keys().chain(record.layout.modes.keys());
        let mut meant = record.layout.meant.clone();
        for address in named {
            let id = address.to_string();
            let Some(Who::Pci(known)) = record.known.get(&id).map(|known| &known.who) else { continue };
            let then = meant.get(address).unwrap_or(known);
            if is_it(then, known) && !record.marks.contains_key(&id) {
                let now = then.updated(known);
                meant.insert(*address, now);
            }
        }
        if meant == record.layout.meant {
            return Ok(());
        }
        self.note(|record| record.layout.meant = meant).await
    }

    /// May this be done to it? Nobody's wish but the host's: what is in doubt stays as it is until somebody has looked at it,
    /// and what the layout says of one card it does not say of another in its place.
    async fn is_meant(&self, device: PciAddress) -> Result<(), Obstacle> {
        let (record, id) = (self.record().await, device.to_string());
        if let Some((of, mark)) = find::marks(self.host(), &record, &id).next() {
            return Err(obstacle::of_mark(of, mark));
        }
        if let Some(obstacle) = find::unproven(&record, &self.boot_id(), &id) {
            return Err(obstacle);
        }
        let known = record.known.get(&id).map(|known| &known.who);
        let (Some(Who::Pci(now)), Some(then)) = (known, record.layout.meant.get(&device)) else { return Ok(()) };
        if is_it(then, now) {
            return Ok(());
        }
        let (meant, there) = (find::words(then), find::words(now));
        let message = format!(
            "the layout of this host was made for {meant} at {}, and {there} is there at {}: `croft device release` \
             {id} if it is meant for that one too",
            then.slot_path, now.slot_path
        );
        Err(Obstacle::new(reasons::DEVICE_CHANGED, message))
    }

    async fn stand(&mut self, physical: PciAddress, wish: Wish) -> Result<(), Obstacle> {
        self.is_meant(physical).await?;
        let plan = self.plan(None, &wish).await?;
        if plan.steps.is_empty() {
            return Ok(());
        }
        if let Some(home) = plan::give_back(self.host(), &wish)? {
            // The first one is where it began.
            self.note(|record| {
                record.functions.entry(physical).or_insert(home);
            })
            .await?;
        }
        self.carry_out(&physical.to_string(), plan).await?;
        Ok(())
    }

    async fn stand_back(&mut self, physical: PciAddress, home: &Wish) -> Result<(), Obstacle> {
        self.is_meant(physical).await?;
        let plan = self.plan(None, home).await?;
        self.carry_out(&physical.to_string(), plan).await?;
        self.note(|record| drop(record.functions.remove(&physical))).await
    }

    async fn keep_mode(&mut self, record: &Record, gpu: PciAddress, mode: LayoutMode) -> Result<(), Obstacle> {
        let Some(mode) = planned(mode) else { return Ok(()) };
        // Whoever holds some of it set it up; and who holds all of it has it away from its driver.
        if record.is_sliced(gpu) || record.holder_of_function(gpu).is_some() {
            return Ok(());
        }
        self.is_meant(gpu).await?;
        let now = request::current_mode(self.host(), gpu)?;
        let wish = Wish::Mode { gpu, mode };
        let plan = self.plan(None, &wish).await?;
        if plan.steps.is_empty() || (mode, now) == (Mode::Vgpu, Mode::VgpuMixed) {
            return Ok(());
        }
        self.note(|record| {
            record.modes.entry(gpu).or_insert(now);
        })
        .await?;
        Ok(self.carry_out_mode(None, gpu, &wish, plan).await?)
    }

    /// Once nobody holds a slice of it. What stands in the way is told in the log, and it is tried again at the next look.
    pub async fn home_mode(&mut self, gpu: PciAddress) {
        let record = self.record().await;
        let Some(home) = record.modes.get(&gpu).filter(|_| !record.is_sliced(gpu)) else { return };
        // Others have it by now, as the operator told them.
        if record.layout.modes.get(&gpu) == Some(&LayoutMode::Foreign) {
            return;
        }
        let kept = record.layout.modes.get(&gpu).copied().and_then(planned);
        let wish = Wish::Mode { gpu, mode: kept.unwrap_or(*home) };
        let returned = match (self.is_meant(gpu).await, self.plan(None, &wish).await) {
            (Ok(()), Ok(plan)) => self.carry_out_mode(None, gpu, &wish, plan).await.map_err(Obstacle::from),
            (Err(obstacle), _) => Err(obstacle),
            (Ok(()), Err(refusal)) => Err(refusal.into()),
        };
        let returned = match returned {
            Ok(()) if kept.is_none() => {
                self.note(|record| {
                    record.modes.remove(&gpu);
                })
                .await
            }
            other => other,
        };
        if let Err(Obstacle { reason, message }) = returned {
            tracing::warn!(%gpu, reason, "its mode stays as it is for now: {message}");
        }
    }
}

fn planned(mode: LayoutMode) -> Option<Mode> {
    match mode {
        LayoutMode::Idle => Some(Mode::Idle),
        LayoutMode::Vgpu => Some(Mode::Vgpu),
        LayoutMode::MigVgpu => Some(Mode::MigVgpu),
        LayoutMode::Foreign => None,
    }
}
