//! What was made for an instance, written before it is made: so that it can be taken away again whatever got lost.
//!
//! The domain's definition would tell most of it, but a crash may come before there is one.

use std::collections::HashSet;
use std::fs;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::paths::Paths;
use crate::media::{self, Error, durable};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The image that its disk or kernel comes from.
    pub image: Option<Uuid>,
    pub interfaces: Vec<Interface>,
    /// It had one: a disk that is missing later is lost, and an empty one in its place would hide that.
    #[serde(default)]
    pub disk_was_made: bool,
    /// The `disk_generation` that it was made for.
    #[serde(default)]
    pub disk_generation: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub mac: String,
    #[serde(flatten)]
    pub network: Network,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The NAT network of this tenant (its uid).
    Tenant(String),
    /// A bridge of the operator's.
    Bridge(String),
}

impl Record {
    /// `None`: nothing was ever made.
    pub fn read(paths: &Paths, uid: Uuid) -> Result<Option<Self>, Error> {
        let path = paths.record(uid);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                let message =
                    format!("{} cannot be read: {e}; remove the instance's directory by hand", path.display());
                Error::failed(media::reasons::MEDIA_IO, message)
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", &path, &e)),
        }
    }

    pub fn write(&self, paths: &Paths, uid: Uuid) -> Result<(), Error> {
        durable::ensure_dir(&paths.instance(uid))?;
        if Self::read(paths, uid).ok().flatten().as_ref() == Some(self) {
            return Ok(());
        }
        durable::write(&paths.record(uid), &serde_json::to_vec(self).unwrap_or_default(), 0o600)
    }
}

/// Images that some instance here comes from. A record that cannot be read is an error: it may name any image.
pub fn images_in_use(paths: &Paths) -> Result<HashSet<Uuid>, Error> {
    let dir = paths.instances();
    let entries = match fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(HashSet::new()),
        entries => entries.map_err(|e| Error::io("list", &dir, &e))?,
    };
    let mut images = HashSet::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("list", &dir, &e))?;
        let Some(uid) = entry.file_name().to_str().and_then(|name| Uuid::parse_str(name).ok()) else { continue };
        images.extend(Record::read(paths, uid)?.and_then(|record| record.image));
    }
    Ok(images)
}
