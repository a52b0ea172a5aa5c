//! Images on this host: fetched once, checked once, then read-only.
//!
//! ```text
//! images/<uid>/disk.part   arriving          images/<uid>/disk        checked, 0444
//!             /disk.part.json  of what       images/<uid>/ready.json  written last: everything above is there
//! ```
//! A crash leaves parts (taken up again) or files without `ready.json` (their digest is taken again). Callers who want the
//! same image at the same time share one fetch; when all of them are gone it stops and keeps its part.
//!
//! Refuses to fetch into the disk reserve, and to drop what a disk lies on.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use croft_proto::agent::v1::DesiredImage;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use super::fetch::{Download, Fetcher};
use super::overlay::Format;
use super::wanted::{Role, Wanted, files};
use super::{Error, blocking, durable, local, qcow2, raw, reasons, space};
use crate::reasons::{IMAGE_FETCH_FAILED, IMAGE_SOURCE_REFUSED};

const MANIFEST: &str = "ready.json";

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest disk of an image, in bytes.
    pub max_virtual: u64,
    /// Bytes of the file system that fetching leaves free.
    pub disk_reserve: u64,
}

/// An image that may be booted from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ready {
    pub disk: Option<ReadyDisk>,
    pub kernel: Option<PathBuf>,
    pub initrd: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyDisk {
    pub path: PathBuf,
    pub format: Format,
    pub virtual_size: u64,
}

#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    image_dir: Option<PathBuf>,
    fetcher: Fetcher,
    limits: Limits,
    flights: Mutex<HashMap<Uuid, Weak<Flight>>>,
    /// Held by the task that works in an image's directory, also after its callers went away.
    working: Mutex<HashMap<Uuid, Arc<tokio::sync::Mutex<()>>>>,
}

/// One fetch that any number of callers wait for.
#[derive(Debug)]
struct Flight(watch::Receiver<Standing>);

#[derive(Debug, Clone, Default)]
struct Standing {
    done: u64,
    total: u64,
    outcome: Option<Result<Ready, Error>>,
}

/// `ready.json`: what was checked, so that it is never checked again.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    files: Vec<Checked>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Checked {
    role: Role,
    sha256: String,
    format: Option<Format>,
    virtual_size: u64,
}

impl Cache {
    #[must_use]
    pub fn new(root: PathBuf, image_dir: Option<PathBuf>, fetcher: Fetcher, limits: Limits) -> Arc<Self> {
        let (flights, working) = Default::default();
        Arc::new(Self { root, image_dir, fetcher, limits, flights, working })
    }

    /// The image as it lies here, when all of it was fetched and checked.
    pub fn ready(&self, image: &DesiredImage) -> Result<Option<Ready>, Error> {
        let (uid, wanted) = files(image)?;
        Ok(self.read_manifest(uid, &wanted))
    }

    /// Brings the image here, or shares the work of whoever does.
    pub async fn ensure(
        self: &Arc<Self>,
        image: &DesiredImage,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Ready, Error> {
        let (uid, wanted) = files(image)?;
        for file in &wanted {
            self.permitted(file, image.platform)?;
        }
        if let Some(ready) = self.read_manifest(uid, &wanted) {
            return Ok(ready);
        }
        let flight = self.flight(uid, wanted);
        let mut standing = flight.0.clone();
        loop {
            let now = standing.borrow_and_update().clone();
            progress(now.done, now.total);
            if let Some(outcome) = now.outcome {
                return outcome;
            }
            if standing.changed().await.is_err() {
                return Err(Error::failed(
                    reasons::MEDIA_IO,
                    format!("the fetch of image {uid} ended without an answer"),
                ));
            }
        }
    }

    /// Drops every image that is in neither set and that nobody is fetching.
    pub fn prune(&self, keep: &[Uuid], in_use: &HashSet<Uuid>) -> Result<(), Error> {
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|e| Error::io("list", &self.root, &e))?,
        };
        for entry in entries.filter_map(Result::ok) {
            // What is not named after an image is not ours to drop.
            let Some(uid) = entry.file_name().to_str().and_then(|name| Uuid::parse_str(name).ok()) else { continue };
            if keep.contains(&uid) || in_use.contains(&uid) || self.flying(uid).is_some() {
                continue;
            }
            let lock = self.work_lock(uid);
            let Ok(_working) = lock.try_lock() else { continue };
            let dir = entry.path();
            // The manifest first: a crash in between leaves an image that is not ready, never half of a ready one.
            durable::remove(&dir.join(MANIFEST))?;
            fs::remove_dir_all(&dir).map_err(|e| Error::io("remove", &dir, &e))?;
            tracing::info!(image = %uid, "dropped a cached image that nothing uses");
        }
        Ok(())
    }

    fn flying(&self, uid: Uuid) -> Option<Arc<Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).get(&uid).and_then(Weak::upgrade)
    }

    fn work_lock(&self, uid: Uuid) -> Arc<tokio::sync::Mutex<()>> {
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody else holds the ones that only this map holds.
        working.retain(|_, lock| Arc::strong_count(lock) > 1);
        working.entry(uid).or_default().clone()
    }

    /// The fetch under way, or a new one.
    fn flight(self: &Arc<Self>, uid: Uuid, wanted: Vec<Wanted>) -> Arc<Flight> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(&uid).and_then(Weak::upgrade)
            && flight.0.borrow().outcome.is_none()
        {
            return flight;
        }
        let (sender, receiver) = watch::channel(Standing::default());
        let flight = Arc::new(Flight(receiver));
        flights.insert(uid, Arc::downgrade(&flight));
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            let lock = cache.work_lock(uid);
            let _working = lock.lock().await;
            let outcome = cache.bring(uid, &wanted, &sender).await;
            sender.send_modify(|standing| standing.outcome = Some(outcome));
        });
        flight
    }

    async fn bring(&self, uid: Uuid, wanted: &[Wanted], sender: &watch::Sender<Standing>) -> Result<Ready, Error> {
        let dir = self.dir(uid);
        durable::ensure_dir(&dir)?;
        let mut checked = Vec::new();
        for file in wanted {
            let before = sender.borrow().done;
            let progress = |done: u64, total: u64| {
                sender.send_modify(|standing| (standing.done, standing.total) = (before + done, before + total));
            };
            let path = dir.join(file.role.file_name());
            if !self.left_by_a_crash(file, &path).await? {
                let part = dir.join(format!("{}.part", file.role.file_name()));
                self.fetch(file, &part, &progress, sender).await?;
                let result = self.check(file, &part).and_then(|_| seal(&part, &path));
                if result.is_err() {
                    durable::remove(&part)?;
                }
                result?;
            }
            checked.push(self.check(file, &path)?);
        }
        let manifest = serde_json::to_vec(&Manifest { files: checked }).unwrap_or_default();
        durable::write(&dir.join(MANIFEST), &manifest, 0o644)?;
        self.read_manifest(uid, wanted)
            .ok_or_else(|| Error::failed(reasons::MEDIA_IO, format!("{} changed while it was made", dir.display())))
    }

    /// Whole and sealed, only the manifest was not written. Anything else under that name goes.
    async fn left_by_a_crash(&self, file: &Wanted, path: &Path) -> Result<bool, Error> {
        if !path.exists() {
            return Ok(false);
        }
        let hashed = blocking("an image", {
            let path = path.to_owned();
            move || local::sha256(&path)
        })
        .await?;
        if hashed == file.sha256 && self.check(file, path).is_ok() {
            return Ok(true);
        }
        durable::remove(path)?;
        Ok(false)
    }

    async fn fetch(
        &self,
        file: &Wanted,
        part: &Path,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
        sender: &watch::Sender<Standing>,
    ) -> Result<(), Error> {
        let max_bytes = file.role.max_bytes(self.limits.max_virtual);
        let root = self.root.clone();
        let reserve = self.limits.disk_reserve;
        let what = format!("the image file {}", file.name());
        let room = move |bytes: u64| space::ensure(&root, &what, bytes, reserve);
        if !file.uri.starts_with("file:") {
            let download = Download { url: &file.uri, sha256: &file.sha256, part, max_bytes, room: &room, progress };
            // All callers gone: give up; what arrived stays for the next try.
            return tokio::select! {
                result = self.fetcher.fetch(&download) => result,
                () = sender.closed() => {
                    Err(Error::failed(IMAGE_FETCH_FAILED, format!("nobody waits for {} any more", file.name())))
                }
            };
        }
        let source = local::open(self.image_dir.as_deref(), &file.uri)?;
        let length = source.metadata().map_err(|e| Error::io("stat", part, &e))?.len();
        room(length)?;
        let (uri, sha256, part) = (file.uri.clone(), file.sha256.clone(), part.to_owned());
        // Not given up half-way: the thread would go on writing while the next try begins.
        blocking("an image", move || local::copy(source, &uri, &sha256, &part, max_bytes)).await?;
        progress(length, length);
        Ok(())
    }

    /// Is it hostile? Reads the header as what it was declared to be.
    fn check(&self, file: &Wanted, path: &Path) -> Result<Checked, Error> {
        let io = |e: std::io::Error| Error::io("read", path, &e);
        let limit = self.limits.max_virtual;
        let virtual_size = match file.format {
            None => 0,
            Some(Format::Raw) => raw::check(&file.name(), fs::metadata(path).map_err(io)?.len(), limit)?,
            Some(Format::Qcow2) => {
                let mut opened = fs::File::open(path).map_err(io)?;
                qcow2::check(&mut opened, limit).map_err(|refusal| refusal.of(&file.name()))?.virtual_size
            }
        };
        if let Some(least) = file.min_disk_gib
            && virtual_size > u64::from(least).saturating_mul(space::GIB)
        {
            return Err(Error::refused(
                reasons::IMAGE_TOO_LARGE,
                format!(
                    "{} is refused: its disk needs {} GiB and min_disk_gib says {least}; register it with the right one",
                    file.name(),
                    virtual_size.div_ceil(space::GIB)
                ),
            ));
        }
        Ok(Checked { role: file.role, sha256: file.sha256.clone(), format: file.format, virtual_size })
    }

    /// What may not even be tried.
    fn permitted(&self, file: &Wanted, platform: bool) -> Result<(), Error> {
        if file.uri.starts_with("file:") && !platform {
            let message = format!("{} is refused: only platform images may come from a host's own files", file.name());
            return Err(Error::refused(IMAGE_SOURCE_REFUSED, message));
        }
        Ok(())
    }

    fn read_manifest(&self, uid: Uuid, wanted: &[Wanted]) -> Option<Ready> {
        let dir = self.dir(uid);
        let manifest: Manifest = serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
        let mut ready = Ready::default();
        for file in wanted {
            let checked = manifest.files.iter().find(|c| c.role == file.role && c.sha256 == file.sha256)?;
            let path = dir.join(file.role.file_name());
            if !path.is_file() || checked.format != file.format {
                return None;
            }
            match (file.role, file.format) {
                (Role::Disk, Some(format)) => {
                    ready.disk = Some(ReadyDisk { path, format, virtual_size: checked.virtual_size });
                }
                (Role::Kernel, _) => ready.kernel = Some(path),
                (Role::Initrd, _) => ready.initrd = Some(path),
                (Role::Disk, None) => return None,
            }
        }
        Some(ready)
    }

    fn dir(&self, uid: Uuid) -> PathBuf {
        self.root.join(uid.to_string())
    }
}

/// Read-only for everybody: the emulator's user reads it as the base of disks, and nobody writes it again.
fn seal(part: &Path, path: &Path) -> Result<(), Error> {
    fs::set_permissions(part, fs::Permissions::from_mode(0o444)).map_err(|e| Error::io("seal", part, &e))?;
    durable::publish(part, path)
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
