//! Where the things of an instance lie, below the agent's state directory.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::hypervisor::Error;
use crate::media::{self, durable};

/// `sun_path`, with its terminating zero.
const SOCKET_PATH: usize = 108;

/// By everybody.
fn is_searchable(dir: &Path) -> bool {
    std::fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
}

#[derive(Debug, Clone)]
pub struct Paths {
    state: PathBuf,
}

impl Paths {
    /// Refuses a directory whose name is too long to hold sockets, rather than every start later on.
    pub fn new(state: &Path) -> Result<Self, Error> {
        let refuse = |message| Err(Error::Refused { reason: super::reasons::STATE_DIR_REFUSED, message });
        if !state.is_absolute() {
            return refuse(format!("--state-dir {} must be absolute: libvirt reads it too", state.display()));
        }
        let paths = Self { state: state.to_owned() };
        let longest = paths.serial(Uuid::nil()).as_os_str().len();
        if longest >= SOCKET_PATH {
            let over = longest - SOCKET_PATH + 1;
            return refuse(format!("--state-dir {} is {over} bytes too long to hold sockets", state.display()));
        }
        Ok(paths)
    }

    /// Makes the directories that the emulator's user and virtlogd pass through.
    pub fn ensure(&self) -> Result<(), media::Error> {
        for dir in [self.state.clone(), self.images(), self.instances(), self.console_dir()] {
            durable::ensure_dir(&dir)?;
        }
        // An access list may let it pass all the same, so this is not refused.
        if let Some(closed) = self.state.ancestors().find(|dir| !is_searchable(dir)) {
            let (state, closed) = (self.state.display(), closed.display());
            tracing::warn!(
                "the emulator's user may not pass through {closed} to the state directory {state}; chmod o+x it"
            );
        }
        Ok(())
    }

    pub fn state(&self) -> &Path {
        &self.state
    }
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }
    pub fn instances(&self) -> PathBuf {
        self.state.join("instances")
    }
    pub fn console_dir(&self) -> PathBuf {
        self.state.join("console")
    }
    pub fn instance(&self, uid: Uuid) -> PathBuf {
        self.instances().join(uid.to_string())
    }
    pub fn record(&self, uid: Uuid) -> PathBuf {
        self.instance(uid).join("made.json")
    }
    pub fn disk(&self, uid: Uuid) -> PathBuf {
        self.instance(uid).join("disk.qcow2")
    }
    pub fn seed(&self, uid: Uuid) -> PathBuf {
        self.instance(uid).join("seed.img")
    }
    /// UEFI's variables.
    pub fn nvram(&self, uid: Uuid) -> PathBuf {
        self.instance(uid).join("nvram.fd")
    }
    pub fn serial(&self, uid: Uuid) -> PathBuf {
        self.instance(uid).join("serial.sock")
    }
    /// What virtlogd appends to; older pieces have `.0`, `.1`, … behind it, the oldest the highest number.
    pub fn console(&self, uid: Uuid) -> PathBuf {
        self.console_dir().join(format!("{uid}.log"))
    }
    /// The emulator's own words.
    pub fn emulator_log(uid: Uuid) -> PathBuf {
        PathBuf::from(format!("/var/log/libvirt/qemu/{}.log", super::metadata::domain_name(uid)))
    }
}
