//! Giving back what an instance held, once its domain is gone or has let go: cleaned, home, and on nobody's account.
//!
//! From the last wish to the first. What fails is tried again; what leaves doubt, or never works, is marked and let go: the
//! instance has nothing to do with it any more, and nobody else gets it before an operator has looked.

use std::collections::BTreeMap;

use croft_gpu::apply::{ResetOutcome, ResetRecord};
use croft_gpu::pci::PciAddress;
use croft_gpu::plan::{self, Home, Plan, Reason, Step, Wish};
use uuid::Uuid;

use super::find;
use super::obstacle::Obstacle;
use super::record::MarkKind;
use super::session::{Session, Setback};
use crate::crash;
use crate::reasons;

/// How often a way home is tried before the device is marked and let go.
const TRIES: u32 = 5;

impl Session<'_> {
    /// By one request. Nothing to do when nothing is held by it.
    pub async fn give_back_one(&mut self, uid: Uuid, id: &str) -> Result<(), Obstacle> {
        crash::point("agent.give_back.before");
        let mut gpus = Vec::new();
        while let Some(hold) = self.record().await.hold(uid, id).cloned() {
            let Some(last) = hold.taken.last() else { break };
            if let Wish::Mode { gpu, .. } = last.wish {
                gpus.push(gpu);
            }
            if let Some(back) = &last.back {
                match self.way_home(Some(uid), &hold.device, back).await {
                    Ok(()) => {}
                    Err(obstacle) => {
                        self.insist(uid, id, &hold.device, obstacle).await?;
                        break;
                    }
                }
            }
            self.note(|record| {
                let hold = record.holds.get_mut(&uid).and_then(|holds| holds.get_mut(id));
                drop(hold.and_then(|hold| hold.taken.pop()));
            })
            .await?;
        }
        self.note(|record| {
            if let Some(holds) = record.holds.get_mut(&uid) {
                holds.remove(id);
                if holds.is_empty() {
                    record.holds.remove(&uid);
                }
            }
        })
        .await?;
        self.devices.tries().remove(&(uid, id.to_owned()));
        crash::point("agent.give_back.after");
        for gpu in gpus {
            self.home_mode(gpu).await;
        }
        Ok(())
    }

    /// One wish that leads home. An obstacle: it is worth another try, unless the device is marked by now.
    pub async fn way_home(&mut self, asker: Option<Uuid>, device: &str, back: &Wish) -> Result<(), Obstacle> {
        let planned = self.plan(asker, back).await;
        let mut plan = match planned {
            Ok(plan) => plan,
            // It is not there, and nothing was wrong with the look: there is nothing to take home.
            Err(refusal) if refusal.reason == Reason::DeviceNotSeen && self.is_gone(back) => {
                let message = format!(
                    "it vanished while it was held ({}); look at it before anybody else gets it",
                    refusal.message
                );
                let reason = reasons::DEVICE_MISSING;
                return Err(self.mark(device, MarkKind::Quarantined, reason, message, Vec::new()).await?);
            }
            Err(refusal) => return Err(refusal.into()),
        };
        let mut cleaned = BTreeMap::new();
        if let Wish::Return { homes } = back {
            self.cleaned_too(&mut plan, homes);
            cleaned = self.to_be_cleaned(&plan, homes);
        }
        let resets = match self.carry_out(device, plan).await {
            Ok(resets) => resets,
            Err(Setback::Unclean(obstacle)) => {
                let message = format!("it could not be cleaned: {}", obstacle.message);
                let reason = reasons::DEVICE_NOT_CLEANED;
                return Err(self.mark(device, MarkKind::Quarantined, reason, message, Vec::new()).await?);
            }
            Err(setback) => return Err(setback.into()),
        };
        let doubts: Vec<String> = cleaned
            .into_iter()
            .filter(|(address, matters)| *matters && !is_clean(&resets, *address))
            .map(|(address, _)| address.to_string())
            .collect();
        if doubts.is_empty() {
            return Ok(());
        }
        let message = format!(
            "no reset of {} leaves its neighbours alone: what its last guest left in it may be there",
            doubts.join(", ")
        );
        self.mark(device, MarkKind::Quarantined, reasons::DEVICE_NOT_CLEANED, message, Vec::new()).await?;
        // It is home all the same.
        Ok(())
    }

    /// Whose home is vfio-pci stays where it is, and is cleaned there.
    fn cleaned_too(&self, plan: &mut Plan, homes: &BTreeMap<PciAddress, Home>) {
        for (&address, home) in homes {
            let stays = self.function_driver(address) == home.driver && is_vfio(home.driver.as_deref());
            let methods = plan::ladder(self.host(), address);
            if stays && !methods.is_empty() {
                plan.steps.insert(0, Step::Reset { address, methods });
            }
        }
    }

    /// Which functions come from a guest, and whether a missing reset of each is a doubt. A companion that has no reset of its
    /// own (a card's sound function) keeps nothing that could be read from it.
    fn to_be_cleaned(&self, plan: &Plan, homes: &BTreeMap<PciAddress, Home>) -> BTreeMap<PciAddress, bool> {
        let reset = |address: PciAddress| {
            plan.steps.iter().any(|step| matches!(step, Step::Reset { address: of, .. } if *of == address))
        };
        let from_guest = homes.keys().filter(|address| is_vfio(self.function_driver(**address).as_deref()));
        from_guest
            .map(|address| (*address, reset(*address) || address.function == 0 || self.is_virtual(*address)))
            .collect()
    }

    fn function_driver(&self, address: PciAddress) -> Option<String> {
        self.host().pci.devices.iter().find(|function| function.address == address)?.driver.clone()
    }

    fn is_virtual(&self, address: PciAddress) -> bool {
        self.host().pci.devices.iter().any(|function| function.address == address && function.is_virtual())
    }

    /// Is what the wish is about off the bus, by a look without an error that could stand for it?
    fn is_gone(&self, back: &Wish) -> bool {
        let gone = |address: &PciAddress| {
            let id = address.to_string();
            self.function_driver(*address).is_none()
                && !self.host().pci.devices.iter().any(|function| function.address == *address)
                && find::unread(self.host(), &id).is_none()
        };
        match back {
            Wish::Return { homes } => homes.keys().any(gone),
            Wish::NoVgpu { function, .. } => gone(function),
            Wish::NoMdev { parent, .. } => parent.parse().is_ok_and(|address| gone(&address)),
            _ => false,
        }
    }

    /// Another try later; or, for a device that is marked or that never works, on to the operator.
    async fn insist(&mut self, uid: Uuid, id: &str, device: &str, obstacle: Obstacle) -> Result<(), Obstacle> {
        let tries = {
            let mut all = self.devices.tries();
            let tries = all.entry((uid, id.to_owned())).or_default();
            *tries += 1;
            *tries
        };
        let record = self.record().await;
        // Somebody has it open: that ends by itself, and taking it away would hurt them.
        let held_open = obstacle.reason == Reason::DeviceHeldOpen.word();
        if !record.marks.contains_key(device) {
            if tries < TRIES || held_open {
                return Err(obstacle);
            }
            let message = format!("it could not be taken home: {}", obstacle.message);
            self.mark(device, MarkKind::Quarantined, reasons::DEVICE_NOT_RESTORED, message, Vec::new()).await?;
        }
        let wishes = record.hold(uid, id).into_iter().flat_map(|hold| hold.taken.iter().rev());
        let wishes: Vec<Wish> = wishes.filter_map(|taken| taken.back.clone()).collect();
        self.note(|record| record.unreturned.entry(device.to_owned()).or_default().extend(wishes)).await
    }
}

fn is_clean(resets: &[ResetRecord], address: PciAddress) -> bool {
    resets.iter().any(|reset| reset.device == address && reset.outcome == ResetOutcome::Clean)
}

fn is_vfio(driver: Option<&str>) -> bool {
    driver.is_some_and(|driver| driver.replace('_', "-").ends_with("vfio-pci"))
}
