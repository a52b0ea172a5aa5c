//! A value in memory and its file, in step: whoever reads a change reads one that is on the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Error;
use super::ballast::Ballast;
use crate::durable;
use crate::tasks::Tasks;

/// Cheap to clone; clones are the same value.
#[derive(Debug, Clone)]
pub struct Kept<T> {
    path: PathBuf,
    value: Arc<Mutex<T>>,
    ballast: Arc<Ballast>,
    tasks: Tasks,
}

impl<T: Serialize + Clone + PartialEq + Send + 'static> Kept<T> {
    #[must_use]
    pub(super) fn new(path: PathBuf, value: T, ballast: Arc<Ballast>, tasks: Tasks) -> Self {
        Self { path, value: Arc::new(Mutex::new(value)), ballast, tasks }
    }

    pub async fn read(&self) -> T {
        self.value.lock().await.clone()
    }

    /// Changes the value; on the disk before anybody reads it. Writes nothing when nothing changed, changes nothing when
    /// it cannot be written. Dropping the future does not cut the write short, and nobody overtakes it.
    pub async fn update(&self, change: impl FnOnce(&mut T)) -> Result<(), Error> {
        let value = Arc::clone(&self.value).lock_owned().await;
        let mut next = value.clone();
        change(&mut next);
        if next == *value { Ok(()) } else { self.replace(value, next).await }
    }

    /// Writes the value as it is.
    pub async fn persist(&self) -> Result<(), Error> {
        let value = Arc::clone(&self.value).lock_owned().await;
        let same = value.clone();
        self.replace(value, same).await
    }

    /// Removes the file; the value stays in memory.
    pub async fn remove(&self) -> Result<(), Error> {
        let value = Arc::clone(&self.value).lock_owned().await;
        let (path, tasks) = (self.path.clone(), self.tasks.clone());
        blocking(move || {
            let _locked = value;
            let _alive = tasks.alive().ok_or(Error::Killed)?;
            Ok(durable::remove(&path)?)
        })
        .await
    }

    async fn replace(&self, mut value: OwnedMutexGuard<T>, next: T) -> Result<(), Error> {
        let (path, ballast, tasks) = (self.path.clone(), Arc::clone(&self.ballast), self.tasks.clone());
        blocking(move || {
            write(&path, &next, &ballast, &tasks)?;
            *value = next;
            Ok(())
        })
        .await
    }
}

pub(super) fn write<T: Serialize>(path: &Path, value: &T, ballast: &Ballast, tasks: &Tasks) -> Result<(), Error> {
    let _alive = tasks.alive().ok_or(Error::Killed)?;
    let text = serde_json::to_vec_pretty(value).map_err(|error| durable::Error {
        path: path.to_owned(),
        verb: "encode",
        source: error.into(),
    })?;
    Ok(ballast.write(|| durable::write(path, &text))?)
}

async fn blocking(work: impl FnOnce() -> Result<(), Error> + Send + 'static) -> Result<(), Error> {
    // An error here means that the runtime is going down.
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Killed))
}
