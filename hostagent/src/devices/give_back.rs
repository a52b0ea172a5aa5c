//! Giving back what an instance held, once its domain is gone or has let go: cleaned, home, and on nobody's account.
//!
//! From the last wish to the first. What fails is tried again; what leaves doubt, or never works, is marked and let go: the
//! instance has nothing to do with it any more, and nobody else gets it before an operator has looked. A look that failed is
//! no try: it lets nothing go.

use std::collections::BTreeMap;

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
            // A piece went with all of its card: to whom that comes back, nobody can tell.
            Ok(plan) if plan.steps.is_empty() && self.is_off_the_bus(device) => {
                return Err(self.vanished(device, "it is not on the bus any more").await?);
            }
            Ok(plan) => plan,
            // It is not there, and nothing was wrong with the look: there is nothing to take home.
            Err(refusal) if refusal.reason == Reason::DeviceNotSeen && self.is_gone(back) => {
                return Err(self.vanished(device, &refusal.message).await?);
            }
            Err(refusal) => return Err(refusal.into()),
        };
        if let Wish::Return { homes } = back {
            self.cleaned_too(&mut plan, homes);
            let unclean = self.stays_unclean(device, &plan, homes);
            if !unclean.is_empty() {
                let message = format!(
                    "no reset of {} leaves its neighbours alone: what its last guest left in it may be there",
                    unclean.join(", ")
                );
                // Before the first step: at home it does not show any more that it comes from a guest.
                self.mark(device, MarkKind::Quarantined, reasons::DEVICE_NOT_CLEANED, message, Vec::new()).await?;
            }
        }
        match self.carry_out(device, plan).await {
            Ok(_) => Ok(()),
            Err(Setback::Unclean(obstacle)) => {
                let message = format!("it could not be cleaned: {}", obstacle.message);
                let reason = reasons::DEVICE_NOT_CLEANED;
                Err(self.mark(device, MarkKind::Quarantined, reason, message, Vec::new()).await?)
            }
            Err(setback) => Err(setback.into()),
        }
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

    /// Functions that come from a guest and that no step of the plan cleans. A card's sound or USB function without a reset of
    /// its own goes along, and keeps nothing that could be read from it.
    fn stays_unclean(&self, device: &str, plan: &Plan, homes: &BTreeMap<PciAddress, Home>) -> Vec<String> {
        let is_reset = |address: PciAddress| {
            plan.steps.iter().any(|step| matches!(step, Step::Reset { address: of, .. } if *of == address))
        };
        let functions = self.host().pci.devices.iter().filter(|function| homes.contains_key(&function.address));
        let from_guest = functions.filter(|function| is_vfio(function.driver.as_deref()));
        let unclean = from_guest.filter(|function| !is_reset(function.address)).filter(|function| {
            // What was asked for is no companion, whatever it is.
            function.address.to_string() == device || !keeps_nothing(function.class)
        });
        unclean.map(|function| function.address.to_string()).collect()
    }

    fn function_driver(&self, address: PciAddress) -> Option<String> {
        self.host().pci.devices.iter().find(|function| function.address == address)?.driver.clone()
    }

    /// Is what the wish is about off the bus?
    pub fn is_gone(&self, back: &Wish) -> bool {
        let gone = |address: &PciAddress| self.is_off_the_bus(&address.to_string());
        match back {
            Wish::Return { homes } => homes.keys().any(gone),
            Wish::NoVgpu { function, .. } => gone(function),
            Wish::NoMdev { parent, .. } => parent.parse().is_ok_and(|address| gone(&address)),
            _ => false,
        }
    }

    /// A PCI function that is not there, by a look without an error that could stand for it.
    pub fn is_off_the_bus(&self, device: &str) -> bool {
        let address: Option<PciAddress> = device.parse().ok();
        let is_there = |address| self.host().pci.devices.iter().any(|function| function.address == address);
        address.is_some_and(|address| !is_there(address)) && find::unread(self.host(), device).is_none()
    }

    async fn vanished(&self, device: &str, how: &str) -> Result<Obstacle, Obstacle> {
        let message = format!("it vanished while it was held ({how}); look at it before anybody else gets it");
        self.mark(device, MarkKind::Quarantined, reasons::DEVICE_MISSING, message, Vec::new()).await
    }

    /// Another try later; or, for a device that is marked or that never works, on to the operator.
    async fn insist(&mut self, uid: Uuid, id: &str, device: &str, obstacle: Obstacle) -> Result<(), Obstacle> {
        let record = self.record().await;
        if !record.marks.contains_key(device) {
            if passes(obstacle.reason) {
                return Err(with_what_helps(device, obstacle));
            }
            if self.counted(uid, id) < TRIES {
                return Err(obstacle);
            }
            let message = format!("it could not be taken home: {}", obstacle.message);
            self.mark(device, MarkKind::Quarantined, reasons::DEVICE_NOT_RESTORED, message, Vec::new()).await?;
        }
        let wishes = record.hold(uid, id).into_iter().flat_map(|hold| hold.taken.iter().rev());
        let wishes: Vec<Wish> = wishes.filter_map(|taken| taken.back.clone()).collect();
        self.note(|record| record.unreturned.entry(device.to_owned()).or_default().extend(wishes)).await
    }

    fn counted(&self, uid: Uuid, id: &str) -> u32 {
        let mut all = self.devices.tries();
        let tries = all.entry((uid, id.to_owned())).or_default();
        *tries += 1;
        *tries
    }
}

/// Companions of a display: sound, USB and its type C connector.
fn keeps_nothing(class: u32) -> bool {
    class >> 16 == 0x04 || matches!(class >> 8, 0x0c03 | 0x0c80)
}

/// Does it say of the look, or of who is there at the moment, and nothing of the device? That ends by itself, or by somebody's
/// hand; what is held is held until then.
fn passes(reason: &str) -> bool {
    const OF_THE_LOOK: [&str; 2] = [reasons::DEVICES_UNSEEN, reasons::JOURNAL_UNWRITABLE];
    const OF_A_PLAN: [Reason; 5] = [
        Reason::DeviceNotSeen,
        Reason::GpuModeUnknown,
        // A GPU whose driver is being loaded anew.
        Reason::DriverUnsuitable,
        Reason::FabricManagerUnavailable,
        // Taking it away would hurt whoever has it open.
        Reason::DeviceHeldOpen,
    ];
    OF_THE_LOOK.contains(&reason) || OF_A_PLAN.iter().any(|known| known.word() == reason)
}

/// A driver may never answer again. Nobody's word tells what is on the device then; a look that does not find it does.
fn with_what_helps(device: &str, obstacle: Obstacle) -> Obstacle {
    let unseen = [Reason::DeviceNotSeen, Reason::GpuModeUnknown, Reason::DriverUnsuitable];
    if device.parse::<PciAddress>().is_err() || !unseen.iter().any(|reason| reason.word() == obstacle.reason) {
        return obstacle;
    }
    let message = format!(
        "{}. {device} is held until it can be read again, or is gone: see to its driver, reboot the host, or take it off the \
         bus there (`echo 1 > /sys/bus/pci/devices/{device}/remove`)",
        obstacle.message
    );
    Obstacle { message, ..obstacle }
}

fn is_vfio(driver: Option<&str>) -> bool {
    driver.is_some_and(|driver| driver.replace('_', "-").ends_with("vfio-pci"))
}
