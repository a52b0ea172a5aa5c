//! Actions of guests and of the machine that other processes ask for: a JSON file each in `control/`, for example
//! `{"guest_poweroff": "<uid>"}` or `"host_reboot"`. Write it under another name and rename it to `*.json`; it is removed
//! once it is done.

use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Simulated;
use crate::hypervisor::Error;

const EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    GuestPoweroff(Uuid),
    GuestCrash(Uuid),
    GuestReboot(Uuid),
    /// Ignores requests to stop and restart from now on.
    GuestDeaf(Uuid),
    GuestOutOfSpace(Uuid),
    HostReboot,
    DiskFreeGib(u64),
    AddForeign {
        name: String,
        vcpus: u64,
        memory_mib: u64,
        disk_gib: u64,
    },
}

impl Simulated {
    /// Lets a guest or the machine do something of its own accord.
    pub fn control(&self, action: &Control) -> Result<(), Error> {
        match action {
            Control::GuestPoweroff(uid) => self.guest_poweroff(*uid),
            Control::GuestCrash(uid) => self.guest_crash(*uid),
            Control::GuestReboot(uid) => self.guest_reboot(*uid),
            Control::GuestDeaf(uid) => self.guest_deaf(*uid, true),
            Control::GuestOutOfSpace(uid) => self.guest_out_of_space(*uid),
            Control::HostReboot => self.host_reboot(),
            Control::DiskFreeGib(gib) => self.set_disk_free_gib(Some(*gib)),
            Control::AddForeign { name, vcpus, memory_mib, disk_gib } => {
                self.add_foreign(name, *vcpus, *memory_mib, *disk_gib)
            }
        }
    }
}

/// Until nobody holds the machine any more.
pub(super) async fn watch(simulated: Weak<Simulated>, directory: PathBuf) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(simulated) = simulated.upgrade() else { return };
        for path in waiting(&directory) {
            if let Err(error) = take(&simulated, &path) {
                tracing::warn!("{}: {error}", path.display());
            }
        }
    }
}

fn waiting(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    paths.sort();
    paths
}

fn take(simulated: &Simulated, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let text = std::fs::read(path)?;
    // First: an action that cannot be done must not be tried for ever.
    std::fs::remove_file(path)?;
    Ok(simulated.control(&serde_json::from_slice(&text)?)?)
}
