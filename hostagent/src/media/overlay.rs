//! The root disk of an instance: a qcow2 file over a cached image, or an empty one.
//!
//! The format of what lies below is written into it as it was declared: nobody who opens the disk ever guesses. Made under
//! another name and renamed, so it is there whole or not at all; one that is there is never made anew, because it holds
//! the tenant's data, and nobody but root and the emulator's user (to whom libvirt gives it) may read it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::space::GIB;
use super::{Error, durable, reasons};
use crate::reasons::DISK_TOO_SMALL;

/// It writes a few hundred KiB; more than this is a disk that does not answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a guest's bytes are laid out as in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Qcow2,
    Raw,
}

impl Format {
    /// As libvirt and QEMU write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// What an overlay lies on.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    pub path: &'a Path,
    pub format: Format,
    pub virtual_size: u64,
}

/// Makes the disk unless it is there.
pub async fn ensure(disk: &Path, base: Option<Base<'_>>, size_gib: i64) -> Result<(), Error> {
    // What cannot be looked at is not absent: an empty disk in its place would take the tenant's data away.
    if disk.try_exists().map_err(|e| Error::io("look at", disk, &e))? {
        return Ok(());
    }
    let size = u64::try_from(size_gib).unwrap_or(0).saturating_mul(GIB);
    let least = base.map_or(1, |base| base.virtual_size);
    if size < least {
        return Err(Error::refused(
            DISK_TOO_SMALL,
            format!("the disk of {size_gib} GiB is smaller than the image, which needs {} GiB", least.div_ceil(GIB)),
        ));
    }
    let temp = durable::temporary(disk);
    durable::remove(&temp)?;
    let result = match create(&temp, base, size).await {
        Ok(()) => super::blocking("a disk", seal(temp.clone(), disk.to_owned())).await,
        Err(error) => Err(error),
    };
    if result.is_err() {
        durable::remove(&temp)?;
    }
    result
}

/// qemu-img makes it as readable as the umask allows, and libvirt changes its owner only.
fn seal(temp: PathBuf, disk: PathBuf) -> impl FnOnce() -> Result<(), Error> + Send + 'static {
    move || {
        fs::set_permissions(&temp, Permissions::from_mode(0o600))
            .map_err(|e| Error::io("close to others", &temp, &e))?;
        File::open(&temp).and_then(|file| file.sync_all()).map_err(|e| Error::io("sync", &temp, &e))?;
        durable::publish(&temp, &disk)
    }
}

async fn create(path: &Path, base: Option<Base<'_>>, size: u64) -> Result<(), Error> {
    let failed = |what: String| Error::failed(reasons::DISK_TOOL_FAILED, what);
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some(base) = base {
        // Both paths are absolute, so QEMU cannot take them for a protocol (`json:`, `nbd:`).
        command.args(["-F", base.format.as_str(), "-b"]).arg(base.path);
    }
    command.arg(path).arg(size.to_string());
    command.stdin(Stdio::null()).kill_on_drop(true).env_clear().env("LC_ALL", "C");
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .map_err(|_| failed(format!("qemu-img create {} did not end in {} s", path.display(), DEADLINE.as_secs())))?
        .map_err(|e| failed(format!("cannot run qemu-img (package qemu-utils): {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No space left on device") {
        return Err(Error::refused(reasons::DISK_FULL, format!("no room for the disk {}", path.display())));
    }
    Err(failed(format!("qemu-img create {} ended with {}: {}", path.display(), output.status, said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn makes_it_once_with_an_explicit_format() {
        if std::process::Command::new("qemu-img").arg("--version").output().is_err() {
            eprintln!("skipped: qemu-img is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        // Raw, whatever it looks like: the qcow2 magic, and a header that would name a backing file.
        let image = dir.path().join("disk");
        let mut bytes = vec![0u8; 1 << 20];
        bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        std::fs::write(&image, &bytes).unwrap();
        let base = Base { path: &image, format: Format::Raw, virtual_size: 1 << 20 };

        let disk = dir.path().join("disk.qcow2");
        std::fs::write(durable::temporary(&disk), "left by a crash").unwrap();
        ensure(&disk, Some(base), 1).await.unwrap();
        let said = std::process::Command::new("qemu-img").args(["info", "--output=json"]).arg(&disk).output().unwrap();
        let info: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(info["backing-filename-format"], "raw");
        assert_eq!(info["virtual-size"], 1 << 30);
        let mode = fs::metadata(&disk).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "another user of this host could read the tenant's disk");

        std::fs::write(&disk, "the tenant's data").unwrap();
        ensure(&disk, Some(base), 1).await.unwrap();
        assert_eq!(std::fs::read(&disk).unwrap(), b"the tenant's data");
        assert!(!durable::temporary(&disk).exists());
    }

    #[tokio::test]
    async fn refuses_a_disk_smaller_than_the_image() {
        let base = Base { path: Path::new("/nowhere"), format: Format::Qcow2, virtual_size: 3 * GIB + 1 };
        let error = ensure(Path::new("/nowhere/disk.qcow2"), Some(base), 3).await.unwrap_err();
        assert_eq!(error.reason, "DiskTooSmall");
        assert!(error.message.contains("4 GiB"), "{error}");
    }
}
