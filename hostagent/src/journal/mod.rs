//! The agent's memory across crashes: one file for each instance, and one for the host.
//!
//! ```text
//! journal/host.json          epoch, revision, boot: what the plane and this machine last agreed on
//! journal/devices.json       who holds which device, and the way back
//! journal/<uid>.json         one Record
//! journal/*.json.corrupt     what could not be read, kept for the operator
//! journal/ballast            room for the others
//! ```
//!
//! Every write replaces a whole file and is on the disk when it returns. A file that cannot be read is never dropped: its
//! instance is FAILED with JournalCorrupt until it is deleted, or started or stopped by somebody. A full disk takes some
//! writes more ([`ballast`]).
//!
//! Refuses to decide anything; `crate::driver` does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::devices;
use crate::durable;
use crate::tasks::Tasks;
use ballast::Ballast;

mod ballast;
mod kept;
mod record;

pub use kept::Kept;
pub use record::{Corrupt, Done, End, Ended, FORMAT, Grave, KeptSeed, Reboot, Record, Run, Stop};

const HOST: &str = "host.json";
const DEVICES: &str = "devices.json";

/// What the plane and this host last agreed on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    #[serde(default)]
    pub epoch: i64,
    #[serde(default)]
    pub revision: i64,
    /// The boot in which the plane last confirmed the epoch.
    #[serde(default)]
    pub boot_id: String,
    /// A higher epoch whose tombstones are being carried out.
    #[serde(default)]
    pub fencing: Option<i64>,
    /// When each cached image was last wanted, in seconds since 1970.
    #[serde(default)]
    pub images: std::collections::BTreeMap<Uuid, i64>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the journal can not be written")]
    Write(#[from] durable::Error),
    #[error("the journal can not be listed: {0}")]
    List(PathBuf, #[source] std::io::Error),
    #[error("the agent was killed")]
    Killed,
}

/// The directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    directory: Arc<PathBuf>,
    ballast: Arc<Ballast>,
    tasks: Tasks,
}

/// What [`Journal::open`] found.
#[derive(Debug)]
pub struct Opened {
    pub journal: Journal,
    pub host: Kept<HostRecord>,
    pub devices: Kept<devices::Record>,
    pub records: Vec<(Uuid, Record)>,
}

impl Journal {
    /// Reads everything. Blocks.
    pub fn open(directory: &Path, tasks: Tasks) -> Result<Opened, Error> {
        durable::private_directory(directory)?;
        let ballast = Arc::new(Ballast::new(directory));
        let journal = Self { directory: Arc::new(directory.to_owned()), ballast, tasks };
        let unlisted = |error| Error::List(directory.to_owned(), error);
        let mut records = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(unlisted)? {
            let path = entry.map_err(unlisted)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(durable::TEMPORARY) {
                durable::remove(&path)?;
            } else if let Some(uid) = name.strip_suffix(".json").and_then(|stem| Uuid::try_parse(stem).ok()) {
                records.push((uid, journal.load(uid, &path)));
            }
        }
        let host = journal.kept(journal.directory.join(HOST), journal.load_host()?);
        let devices = journal.kept(journal.directory.join(DEVICES), journal.load_devices());
        Ok(Opened { journal, host, devices, records })
    }

    fn load(&self, uid: Uuid, path: &Path) -> Record {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) => {
                // The file may well be whole, and readable again after a restart of the agent: it stays as it is until
                // somebody decides about the instance.
                let message = format!("{} can not be read: {error}; look at the host's disk", path.display());
                tracing::error!(%uid, "{message}");
                return unreadable(message);
            }
        };
        let fault = match parse::<Record>(&text) {
            Ok(record) if record.format == FORMAT => return record,
            Ok(record) => format!("is of format {}, this agent reads {FORMAT}", record.format),
            Err(fault) => fault,
        };
        let aside = self.directory.join(format!("{uid}.json.corrupt"));
        // Copied, not moved: at no moment does the instance have no file. Replaced only when the copy is on the disk.
        let kept = durable::write(&aside, &text);
        let message = match &kept {
            Ok(()) => format!("{} {fault}; it is kept as {}", path.display(), aside.display()),
            Err(error) => {
                format!("{} {fault}; it stays as it is, for it can not be kept aside: {error}", path.display())
            }
        };
        tracing::error!(%uid, "{message}");
        let record = unreadable(message);
        if kept.is_ok()
            && let Err(error) = kept::write(path, &record, &self.ballast, &self.tasks)
        {
            tracing::warn!(%uid, "the unreadable file stays where it is, too: {:#}", anyhow::Error::new(error));
        }
        record
    }

    fn load_host(&self) -> Result<HostRecord, Error> {
        let path = self.directory.join(HOST);
        if !path.exists() {
            return Ok(HostRecord::default());
        }
        read(&path).or_else(|fault| {
            // Epoch 0 is the careful answer: the plane's is higher, so its tombstones come before any start.
            tracing::error!("{} {fault}; waiting for the plane to confirm the epoch", path.display());
            durable::rename(&path, &self.directory.join("host.json.corrupt"))?;
            Ok(HostRecord::default())
        })
    }

    /// Where it is not known any more who held what nobody gets any device, and the file stays as it is, until an operator has
    /// looked at it.
    fn load_devices(&self) -> devices::Record {
        let path = self.directory.join(DEVICES);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return devices::Record::default(),
            Err(error) => return unknown_holds(&path, &format!("can not be read: {error}")),
        };
        let (record, damaged) = match devices::read(&text) {
            Ok(read) => read,
            Err(fault) => return unknown_holds(&path, &fault),
        };
        if damaged.is_empty() {
            return record;
        }
        // The next write leaves the damage out.
        let damaged = damaged.join("; ");
        match durable::write(&self.directory.join("devices.json.corrupt"), &text) {
            Ok(()) => {
                tracing::error!("{}: {damaged}", path.display());
                record
            }
            Err(error) => unknown_holds(&path, &format!("is damaged ({damaged}), and can not be kept aside: {error}")),
        }
    }

    fn kept<T: Serialize + Clone + PartialEq + Send + 'static>(&self, path: PathBuf, value: T) -> Kept<T> {
        Kept::new(path, value, Arc::clone(&self.ballast), self.tasks.clone())
    }

    fn path(&self, uid: Uuid) -> PathBuf {
        self.directory.join(format!("{uid}.json"))
    }

    /// The record of an instance, not yet written.
    #[must_use]
    pub fn entry(&self, uid: Uuid, record: Record) -> Entry {
        Entry { uid, record: self.kept(self.path(uid), record), wake: Notify::new(), retired: AtomicBool::new(false) }
    }
}

/// One instance's record, and the bell of the task that owns the VM.
#[derive(Debug)]
pub struct Entry {
    pub uid: Uuid,
    record: Kept<Record>,
    wake: Notify,
    retired: AtomicBool,
}

impl Entry {
    pub async fn read(&self) -> Record {
        self.record.read().await
    }

    /// See [`Kept::update`]. Does not wake the driver.
    pub async fn update(&self, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        self.record.update(change).await
    }

    /// Writes the record as it is: for one that was just made.
    pub async fn persist(&self) -> Result<(), Error> {
        self.record.persist().await
    }

    /// Forgets the instance for good, and lets its driver end.
    pub async fn retire(&self) -> Result<(), Error> {
        self.record.remove().await?;
        self.retired.store(true, Ordering::Release);
        self.wake();
        Ok(())
    }

    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Makes the driver look again.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let text = std::fs::read(path).map_err(|error| format!("can not be read: {error}"))?;
    parse(&text)
}

fn parse<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("is corrupt: {error}"))
}

/// In the place of what is not known of devices.
fn unknown_holds(path: &Path, fault: &str) -> devices::Record {
    let message = format!(
        "{} {fault}; it stays as it is: put it right, or remove it once no instance on this host has a device, and start the \
         agent again",
        path.display()
    );
    tracing::error!("{message}");
    devices::Record { corrupt: Some(message), ..devices::Record::default() }
}

/// In the place of a record that is not known.
fn unreadable(message: String) -> Record {
    Record { corrupt: Some(Corrupt { message, power_generation: None }), listed: true, ..Record::default() }
}

#[cfg(test)]
mod tests;
