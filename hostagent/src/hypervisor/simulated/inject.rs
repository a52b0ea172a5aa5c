//! What happens on a real machine without anybody asking the hypervisor for it: for tests, in this process.

use std::sync::PoisonError;

use uuid::Uuid;

use super::state::{Foreign, Off, Paused, PowerState};
use super::{Fault, Simulated, broken, rules};
use crate::hypervisor::Error;

impl Simulated {
    /// The next calls of this verb meet the fault; `None` heals it. `*` means every verb.
    pub fn inject(&self, verb: &str, fault: Option<Fault>) {
        self.faults.inject(verb, fault);
    }

    /// libvirtd is down: every verb says so, and the guests run on.
    pub fn set_unavailable(&self, down: bool) {
        self.faults.inject("*", down.then(Fault::unavailable));
        if !down {
            self.tell(None);
        }
    }

    /// The guest powers itself off.
    pub fn guest_poweroff(&self, uid: Uuid) -> Result<(), Error> {
        self.ends(uid, Off::Shutdown)
    }

    /// The guest panics, or its emulator dies.
    pub fn guest_crash(&self, uid: Uuid) -> Result<(), Error> {
        self.ends(uid, Off::Crashed)
    }

    /// Somebody destroys the domain by hand.
    pub fn operator_destroy(&self, uid: Uuid) -> Result<(), Error> {
        self.ends(uid, Off::Destroyed)
    }

    /// The guest restarts by itself.
    pub fn guest_reboot(&self, uid: Uuid) -> Result<(), Error> {
        self.change(uid, |domain| {
            rules::must_be_on(domain)?;
            domain.restarts += 1;
            Ok(())
        })
    }

    /// From now on it ignores, or hears again, requests to stop and restart.
    pub fn guest_deaf(&self, uid: Uuid, deaf: bool) -> Result<(), Error> {
        self.change(uid, |domain| {
            domain.deaf = deaf;
            Ok(())
        })
    }

    /// From now on it keeps devices that it is asked to give up, or gives them up again.
    pub fn guest_clings(&self, uid: Uuid, clings: bool) -> Result<(), Error> {
        self.change(uid, |domain| {
            domain.clings = clings;
            Ok(())
        })
    }

    /// What a domain has of the host's devices.
    #[must_use]
    pub fn devices(&self, uid: Uuid) -> Vec<crate::hypervisor::HostDevice> {
        self.lock().domains.get(&uid).map(|domain| domain.devices.clone()).unwrap_or_default()
    }

    /// Its guest agent stops, or begins, to answer.
    pub fn guest_silent(&self, uid: Uuid, silent: bool) -> Result<(), Error> {
        self.change(uid, |domain| {
            domain.silent = silent;
            Ok(())
        })
    }

    /// The host's disk is full, and the guest wrote to it.
    pub fn guest_out_of_space(&self, uid: Uuid) -> Result<(), Error> {
        self.change(uid, |domain| {
            rules::must_be_on(domain)?;
            domain.power = PowerState::Paused(Paused::OutOfSpace);
            Ok(())
        })
    }

    /// The guest met an I/O error.
    pub fn guest_io_error(&self, uid: Uuid) -> Result<(), Error> {
        self.change(uid, |domain| {
            rules::must_be_on(domain)?;
            domain.power = PowerState::Paused(Paused::IoError);
            Ok(())
        })
    }

    /// Instead of what the domains leave; `None` goes back to that.
    pub fn set_disk_free_gib(&self, gib: Option<u64>) -> Result<(), Error> {
        let mut state = self.lock();
        state.host.disk_free_gib = gib;
        state.put_host(&self.directory).map_err(broken)
    }

    /// The machine loses power and comes back: another boot, and nothing runs. Kill the agent first.
    pub fn host_reboot(&self) -> Result<(), Error> {
        let mut state = self.lock();
        let running: Vec<_> = state.domains.values().filter(|domain| domain.power.is_on()).cloned().collect();
        for mut domain in running {
            domain.power = PowerState::Off(Off::Unknown);
            state.put(&self.directory, domain).map_err(broken)?;
        }
        self.machine.reboot()?;
        state.host.boot_id = Uuid::now_v7();
        state.host.stopping = false;
        state.put_host(&self.directory).map_err(broken)?;
        drop(state);
        self.tell(None);
        Ok(())
    }

    /// The machine begins to go down: guests that end now end because of that.
    pub fn set_host_stopping(&self, stopping: bool) -> Result<(), Error> {
        let mut state = self.lock();
        state.host.stopping = stopping;
        state.put_host(&self.directory).map_err(broken)
    }

    /// A running domain that is not Croft's.
    pub fn add_foreign(&self, name: &str, vcpus: u64, memory_mib: u64, disk_gib: u64) -> Result<(), Error> {
        let mut state = self.lock();
        state.host.foreign.push(Foreign { name: name.to_owned(), vcpus, memory_mib, disk_gib });
        state.put_host(&self.directory).map_err(broken)?;
        drop(state);
        self.tell(None);
        Ok(())
    }

    /// Names of the foreign domains: a test asserts that none was touched.
    #[must_use]
    pub fn foreign(&self) -> Vec<String> {
        self.lock().host.foreign.iter().map(|foreign| foreign.name.clone()).collect()
    }

    /// Uids of the domains that run or are paused.
    #[must_use]
    pub fn running(&self) -> Vec<Uuid> {
        self.lock().domains.values().filter(|domain| domain.power.is_on()).map(|domain| domain.uid).collect()
    }

    /// Uids of every domain of Croft's.
    #[must_use]
    pub fn defined(&self) -> Vec<Uuid> {
        self.lock().domains.keys().copied().collect()
    }

    /// What its guest reads of its seed's volume now; `None`: there is no such domain.
    #[must_use]
    pub fn seed(&self, uid: Uuid) -> Option<crate::hypervisor::Seed> {
        self.lock().domains.get(&uid).map(|domain| domain.seed.clone())
    }

    /// Which root disk this domain has now: another one after a rebuild. `None`: there is no such domain.
    #[must_use]
    pub fn disk(&self, uid: Uuid) -> Option<Uuid> {
        self.lock().domains.get(&uid).map(|domain| domain.disk)
    }

    /// How often this domain was started, reset or rebooted, by its console.
    #[must_use]
    pub fn boots(&self, uid: Uuid) -> usize {
        self.consoles.count_boots(uid)
    }

    fn ends(&self, uid: Uuid, how: Off) -> Result<(), Error> {
        self.change(uid, |domain| {
            rules::must_be_on(domain)?;
            domain.power = PowerState::Off(how);
            Ok(())
        })
    }

    /// Somebody undefines the domain by hand; it must not run.
    pub fn operator_undefine(&self, uid: Uuid) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        rules::may_remove(uid, &state)?;
        state.remove(&self.directory, uid).map_err(broken)?;
        drop(state);
        self.tell(Some(uid));
        Ok(())
    }
}
