//! A hypervisor that needs no hardware: it keeps its state in a directory, refuses what libvirt refuses, and takes
//! injected faults. Chosen by `--backend simulated` or by a story; never by `cfg!(test)`.
//!
//! ```text
//! host.json             boot id, foreign domains, free disk
//! domains/<uid>.json    what is defined, and whether it runs
//! images/<uid>.json     what was fetched
//! console/<uid>.log     what the guest wrote
//! faults.json           verb → fault, read at every call (`faults`)
//! control/*.json        one action of a guest or the machine each, taken and removed (`control`)
//! ```
//!
//! Domains run on their own: a kill -9 of the agent leaves them running, as QEMU's processes would be. Every change is on
//! the disk before the call returns.

use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use croft_proto::agent::v1::{DesiredImage, DesiredInstance};
use tokio::sync::broadcast;
use uuid::Uuid;

use super::{About, Duplex, Error, Figures, Guest, HostDevice, Hypervisor, Seed, Survey};

mod capacity;
mod control;
mod faults;
mod figures;
mod guest;
mod images;
mod inject;
mod machine;
mod rules;
mod state;
#[cfg(test)]
mod tests;

pub use capacity::Capacity;
pub use control::Control;
pub use faults::Fault;

use croft_gpu_sim::kernel::SimHost;

use crate::durable;
use crate::reasons;
use state::{Domain, PowerState, State};

/// Lives as long as somebody holds it; what it simulates lives as long as its directory.
#[derive(Debug)]
pub struct Simulated {
    directory: PathBuf,
    capacity: Capacity,
    machine: machine::Machine,
    state: std::sync::Mutex<State>,
    faults: faults::Faults,
    consoles: guest::Consoles,
    events: broadcast::Sender<Option<Uuid>>,
    opened: Instant,
}

impl Simulated {
    /// Takes up what the directory holds, or begins with an empty machine. Blocks. Within a Tokio runtime it also takes
    /// the actions that other processes leave in `control/`.
    pub fn open(directory: impl Into<PathBuf>, capacity: Capacity) -> Result<Arc<Self>, durable::Error> {
        Self::open_machine(directory.into(), capacity, None)
    }

    /// The same, on a machine whose devices its domains can have.
    pub fn open_with_devices(
        directory: impl Into<PathBuf>,
        capacity: Capacity,
        host: SimHost,
    ) -> Result<Arc<Self>, durable::Error> {
        Self::open_machine(directory.into(), capacity, Some(host))
    }

    fn open_machine(
        directory: PathBuf,
        capacity: Capacity,
        host: Option<SimHost>,
    ) -> Result<Arc<Self>, durable::Error> {
        for part in ["domains", "images", "console", "control"] {
            durable::private_directory(&directory.join(part))?;
        }
        let state = State::load(&directory)?;
        let machine = machine::Machine::new(host);
        machine.reap(&state);
        let simulated = Arc::new(Self {
            machine,
            state: std::sync::Mutex::new(state),
            faults: faults::Faults::new(directory.join("faults.json")),
            consoles: guest::Consoles::new(directory.join("console")),
            events: broadcast::Sender::new(1024),
            opened: Instant::now(),
            directory,
            capacity,
        });
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(control::watch(Arc::downgrade(&simulated), simulated.directory.join("control")));
        }
        Ok(simulated)
    }

    /// Where the guests' console logs are.
    #[must_use]
    pub fn console_directory(&self) -> PathBuf {
        self.directory.join("console")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes one domain, on the disk and then in memory, and tells it.
    fn change(&self, uid: Uuid, change: impl FnOnce(&mut Domain) -> Result<(), Error>) -> Result<(), Error> {
        let mut state = self.lock();
        let mut domain = state.domains.get(&uid).cloned().ok_or(Error::NotFound(uid))?;
        let was_on = domain.power.is_on();
        change(&mut domain)?;
        if was_on && !domain.power.is_on() {
            self.machine.end(uid)?;
        }
        state.put(&self.directory, domain).map_err(broken)?;
        drop(state);
        self.tell(Some(uid));
        Ok(())
    }

    fn tell(&self, uid: Option<Uuid>) {
        // Nobody listens before the agent is up.
        let _ = self.events.send(uid);
    }
}

fn broken(error: durable::Error) -> Error {
    Error::Failed { reason: reasons::HYPERVISOR_ERROR, message: error.to_string() }
}

#[async_trait]
impl Hypervisor for Simulated {
    async fn about(&self) -> Result<About, Error> {
        self.faults.check("about")?;
        let state = self.lock();
        let used: u64 = state.domains.values().map(|domain| domain.disk_gib).sum();
        Ok(About {
            hypervisor: Ok(format!("simulated {}", croft_program::version())),
            domain_type: "simulated".to_owned(),
            domain_type_reason: "chosen by --backend simulated".to_owned(),
            disk_gib: self.capacity.disk_gib,
            disk_free_gib: state.host.disk_free_gib.unwrap_or(self.capacity.disk_gib.saturating_sub(used)),
        })
    }

    async fn survey(&self) -> Result<Survey, Error> {
        self.faults.check("survey")?;
        let state = self.lock();
        Ok(Survey {
            ours: state.domains.values().map(Domain::seen).collect(),
            foreign: state.host.foreign.iter().map(state::Foreign::seen).collect(),
        })
    }

    async fn figures(&self) -> Result<Vec<Figures>, Error> {
        self.faults.check("figures")?;
        let age = self.opened.elapsed();
        Ok(self.lock().domains.values().filter_map(|domain| figures::of(domain, age)).collect())
    }

    fn events(&self) -> broadcast::Receiver<Option<Uuid>> {
        self.events.subscribe()
    }

    async fn boot_id(&self) -> Result<String, Error> {
        // The machine knows its boot whether or not the hypervisor answers.
        Ok(self.lock().host.boot_id.to_string())
    }

    async fn host_is_stopping(&self) -> bool {
        self.lock().host.stopping
    }

    fn guest_restarts(&self, uid: Uuid) -> Option<u64> {
        self.lock().domains.get(&uid).map(|domain| domain.restarts)
    }

    async fn ensure_image(
        &self,
        image: &DesiredImage,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<(), Error> {
        self.faults.check("ensure_image")?;
        self.fetch_image(image, progress).await
    }

    async fn prune_images(&self, keep: &[Uuid]) -> Result<(), Error> {
        self.faults.check("prune_images")?;
        self.drop_images(keep)
    }

    async fn ensure_defined(
        &self,
        desired: &DesiredInstance,
        seed: &Seed,
        devices: &[HostDevice],
    ) -> Result<(), Error> {
        self.faults.check("ensure_defined")?;
        let wanted = Domain::from_desired(desired, seed, devices)?;
        let mut state = self.lock();
        rules::may_define(&wanted, desired, &state, &self.capacity)?;
        let defined = match state.domains.get(&wanted.uid) {
            Some(known) => {
                let devices = if known.power.is_on() { known.devices.clone() } else { wanted.devices.clone() };
                let keeps = known.disk_generation >= wanted.disk_generation;
                if !keeps {
                    rules::must_be_off(known)?;
                }
                let on = if keeps { known } else { &wanted };
                Domain {
                    disk: on.disk,
                    disk_generation: on.disk_generation,
                    power: known.power,
                    restarts: known.restarts,
                    deaf: known.deaf,
                    clings: known.clings,
                    devices,
                    ..wanted
                }
            }
            None => wanted,
        };
        let uid = defined.uid;
        state.put(&self.directory, defined).map_err(broken)?;
        drop(state);
        self.tell(Some(uid));
        Ok(())
    }

    async fn start(&self, uid: Uuid) -> Result<(), Error> {
        self.faults.check("start")?;
        let mut state = self.lock();
        let mut domain = state.domains.get(&uid).cloned().ok_or(Error::NotFound(uid))?;
        if domain.power.is_on() {
            return Ok(());
        }
        rules::may_start(&domain, &state, &self.capacity)?;
        self.machine.start(&domain, &state)?;
        domain.power = PowerState::Running;
        self.consoles.boots(&domain)?;
        state.put(&self.directory, domain).map_err(broken)?;
        drop(state);
        self.tell(Some(uid));
        Ok(())
    }

    async fn replace_seed(&self, uid: Uuid, seed: &Seed) -> Result<(), Error> {
        self.faults.check("replace_seed")?;
        self.change(uid, |domain| {
            domain.seed = seed.clone();
            Ok(())
        })
    }

    async fn attach(&self, uid: Uuid, device: &HostDevice) -> Result<(), Error> {
        self.faults.check("attach")?;
        let others = self.lock().clone();
        self.change(uid, |domain| {
            rules::must_be_on(domain)?;
            if domain.devices.iter().any(|known| known.alias == device.alias) {
                return Ok(());
            }
            self.machine.open(domain.uid, device, &others)?;
            domain.devices.push(device.clone());
            Ok(())
        })
    }

    async fn detach(&self, uid: Uuid, alias: &str) -> Result<(), Error> {
        self.faults.check("detach")?;
        let others = self.lock().clone();
        self.change(uid, |domain| {
            if domain.power.is_on() && domain.clings && domain.devices.iter().any(|known| known.alias == alias) {
                return Err(rules::failed(reasons::DEVICE_NOT_RELEASED, format!("the guest keeps {alias}")));
            }
            domain.devices.retain(|known| known.alias != alias);
            if domain.power.is_on() {
                // One process has all of them open: it lets go of one by opening the others anew.
                self.machine.end(uid)?;
                self.machine.start(domain, &others)?;
            }
            Ok(())
        })
    }

    async fn request_shutdown(&self, uid: Uuid) -> Result<(), Error> {
        self.faults.check("request_shutdown")?;
        self.change(uid, |domain| {
            rules::must_be_on(domain)?;
            if domain.hears() {
                domain.power = PowerState::Off(state::Off::Shutdown);
            }
            Ok(())
        })
    }

    async fn request_reboot(&self, uid: Uuid) -> Result<(), Error> {
        self.faults.check("request_reboot")?;
        self.change(uid, |domain| {
            rules::must_be_on(domain)?;
            if domain.hears() {
                domain.restarts += 1;
                self.consoles.boots(domain)?;
            }
            Ok(())
        })
    }

    async fn reset(&self, uid: Uuid) -> Result<(), Error> {
        self.faults.check("reset")?;
        self.change(uid, |domain| {
            rules::must_be_on(domain)?;
            domain.restarts += 1;
            self.consoles.boots(domain)
        })
    }

    async fn destroy(&self, uid: Uuid) -> Result<(), Error> {
        self.faults.check("destroy")?;
        let off = |domain: &mut Domain| {
            if domain.power.is_on() {
                domain.power = PowerState::Off(state::Off::Destroyed);
            }
            Ok(())
        };
        self.change(uid, off)
    }

    async fn resume(&self, uid: Uuid) -> Result<(), Error> {
        self.faults.check("resume")?;
        let free = self.about().await?.disk_free_gib;
        self.change(uid, |domain| {
            rules::must_be_on(domain)?;
            // Without space the guest's first write pauses it again.
            if domain.power != PowerState::Paused(state::Paused::OutOfSpace) || free > 0 {
                domain.power = PowerState::Running;
            }
            Ok(())
        })
    }

    async fn remove(&self, uid: Uuid) -> Result<(), Error> {
        self.faults.check("remove")?;
        let mut state = self.lock();
        rules::may_remove(uid, &state)?;
        state.remove(&self.directory, uid).map_err(broken)?;
        drop(state);
        self.tell(Some(uid));
        Ok(())
    }

    async fn guest(&self, uid: Uuid) -> Result<Guest, Error> {
        self.faults.check("guest")?;
        let state = self.lock();
        Ok(guest::says(state.domains.get(&uid).ok_or(Error::NotFound(uid))?))
    }

    async fn console(&self, uid: Uuid) -> Result<Box<dyn Duplex>, Error> {
        self.faults.check("console")?;
        let domain = self.lock().domains.get(&uid).cloned().ok_or(Error::NotFound(uid))?;
        rules::must_be_on(&domain)?;
        self.consoles.open(uid)
    }

    async fn console_log(&self, uid: Uuid) -> Result<Vec<PathBuf>, Error> {
        self.faults.check("console_log")?;
        Ok(self.consoles.log(uid))
    }

    async fn connect(&self, uid: Uuid, port: u16) -> Result<Box<dyn Duplex>, Error> {
        self.faults.check("connect")?;
        let domain = self.lock().domains.get(&uid).cloned().ok_or(Error::NotFound(uid))?;
        rules::must_be_on(&domain)?;
        guest::connect(port)
    }
}
