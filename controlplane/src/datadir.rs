//! The data directory: what lies in it, that it is private, and that one plane at a time works in it.
//!
//! ```text
//!   croft.db (-wal, -shm)   everything                     admin.token   the first admin's token; move it away
//!   secrets.key             opens secrets in the database  listen.json   where the plane listens, while it runs
//!   ca.pem  ca.key          the built-in CA                plane.lock    who works here
//!   server.pem              the plane's own certificate    restored.json agents are held off (after a restore)
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use croft_core::Clock;
use croft_program::version;
use croft_store::{Options, Store};

use crate::config::Place;
use crate::files;

#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// Makes it if it is missing, and takes other people's rights away if it was made carelessly.
    pub fn make(path: &Path) -> Result<Self> {
        let failed = || format!("the data directory {} cannot be made private", path.display());
        if !path.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(failed)?;
        }
        ensure!(path.is_dir(), "--data-dir: {} is not a directory", path.display());
        let mode = fs::metadata(path).with_context(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).with_context(failed)?;
            tracing::warn!(directory = %path.display(), "others could look into the data directory; now its mode is 0700");
        }
        // The working directory may change, and paths are written into messages that people copy.
        Ok(Self(path.canonicalize().with_context(failed)?))
    }

    /// Of a plane that ran here before.
    pub fn find(path: &Path) -> Result<Self> {
        ensure!(
            path.is_dir(),
            "there is no data directory {}; has the control plane ever been started?",
            path.display()
        );
        Ok(Self(path.canonicalize()?))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    #[must_use]
    pub fn ca_pem(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    #[must_use]
    pub fn ca_key(&self) -> PathBuf {
        self.0.join("ca.key")
    }

    #[must_use]
    pub fn secrets_key(&self) -> PathBuf {
        self.0.join("secrets.key")
    }

    #[must_use]
    pub fn server_pem(&self) -> PathBuf {
        self.0.join("server.pem")
    }

    #[must_use]
    pub fn admin_token(&self) -> PathBuf {
        self.0.join("admin.token")
    }

    /// While it is there, no agent is let in.
    #[must_use]
    pub fn restored(&self) -> PathBuf {
        self.0.join("restored.json")
    }

    fn listen_json(&self) -> PathBuf {
        self.0.join("listen.json")
    }

    /// What the addresses say must be true, so they are gone before anything else happens.
    pub fn forget_addresses(&self) -> Result<()> {
        match fs::remove_file(self.listen_json()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{} cannot be removed", self.listen_json().display()))
            }
            _ => Ok(()),
        }
    }

    pub fn write_addresses(&self, api: SocketAddr, metrics: SocketAddr) -> Result<()> {
        let text = serde_json::json!({ "api": api.to_string(), "metrics": metrics.to_string() }).to_string();
        files::write(&self.listen_json(), text.as_bytes(), files::PUBLIC)
    }

    /// `create`: the plane makes its database; whoever only looks after one must find it.
    pub async fn store(&self, place: &Place, clock: Arc<dyn Clock>, create: bool) -> Result<Store> {
        let mut options = Options::in_dir(&self.0, clock);
        match place.database()? {
            Some(url) => url.clone_into(&mut options.url),
            None if !create && !self.0.join("croft.db").exists() => {
                bail!("there is no database {}; is this the data directory?", self.0.join("croft.db").display())
            }
            None => {}
        }
        let url = options.url.clone();
        Store::open(options)
            .await
            .map_err(|error| anyhow::anyhow!(told(&error)))
            .with_context(|| format!("the database {url} cannot be opened"))
    }

    /// Fails at once when somebody else has it.
    pub fn lock(&self) -> Result<Lock> {
        let mut file = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder =
                    Holder::read(&mut file).map_or_else(String::new, |holder| format!(" (pid {})", holder.pid));
                bail!("another croft-controlplane{holder} works in {}; two on one database cannot be", self.0.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("{} cannot be locked", self.0.join("plane.lock").display()));
            }
        }
        let text = serde_json::json!({ "pid": std::process::id(), "version": version() }).to_string();
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        written.with_context(|| format!("{} cannot be written", self.0.join("plane.lock").display()))?;
        Ok(Lock(file))
    }

    /// A database that a running plane of another version has open must not be brought forward under it.
    pub fn ensure_same_version(&self) -> Result<()> {
        let mut file = self.lock_file()?;
        if file.try_lock().is_ok() {
            return Ok(());
        }
        match Holder::read(&mut file) {
            Some(holder) if holder.version != version() => bail!(
                "the running croft-controlplane (pid {}) is version {}, this is {}: use the command of its version, \
                 or stop it first",
                holder.pid,
                holder.version,
                version()
            ),
            _ => Ok(()),
        }
    }

    fn lock_file(&self) -> Result<File> {
        let path = self.0.join("plane.lock");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(files::SECRET);
        options.open(&path).with_context(|| format!("{} cannot be opened", path.display()))
    }
}

/// What an operator may read of an error of the store: the cause that a client never sees, too.
#[must_use]
pub fn told(error: &croft_core::Error) -> String {
    match error {
        croft_core::Error::Internal { cause } => cause.clone(),
        other => other.to_string(),
    }
}

/// Held until it is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing the file gives the lock back")] File);

struct Holder {
    pid: u64,
    version: String,
}

impl Holder {
    fn read(file: &mut File) -> Option<Self> {
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
        let value: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(Self { pid: value["pid"].as_u64()?, version: value["version"].as_str()?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_even_where_it_was_not() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("a/b");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        DataDir::make(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        DataDir::make(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_second_plane_is_told_who_is_there_and_a_dead_one_holds_nothing() {
        let above = tempfile::tempdir().unwrap();
        let directory = DataDir::make(above.path()).unwrap();
        let lock = directory.lock().unwrap();
        let error = directory.lock().unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        directory.ensure_same_version().unwrap();
        drop(lock);
        directory.lock().unwrap();
    }

    #[test]
    fn an_admin_command_of_another_version_keeps_its_hands_off() {
        let above = tempfile::tempdir().unwrap();
        let directory = DataDir::make(above.path()).unwrap();
        let lock = directory.lock().unwrap();
        fs::write(directory.path().join("plane.lock"), r#"{"pid":7,"version":"0.0.1"}"#).unwrap();
        let error = directory.ensure_same_version().unwrap_err().to_string();
        assert!(error.contains("0.0.1") && error.contains(version()), "{error}");
        drop(lock);
        directory.ensure_same_version().unwrap();
    }

    #[test]
    fn addresses_are_true_or_absent() {
        let above = tempfile::tempdir().unwrap();
        let directory = DataDir::make(above.path()).unwrap();
        let (api, metrics) = ("127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap());
        directory.write_addresses(api, metrics).unwrap();
        let text = fs::read_to_string(above.path().join("listen.json")).unwrap();
        assert_eq!(text, r#"{"api":"127.0.0.1:1","metrics":"[::1]:2"}"#);
        directory.forget_addresses().unwrap();
        directory.forget_addresses().unwrap();
        assert!(!above.path().join("listen.json").exists());
    }
}
