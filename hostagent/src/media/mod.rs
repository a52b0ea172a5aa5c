//! Images, disks and seeds on this host: everything an instance boots from.
//!
//! ```text
//! https:// ─ fetch ─┐                                       ┌─ overlay ─► instances/<uid>/disk.qcow2
//! file://  ─ local ─┴► images/<uid>/*.part ─ qcow2 ─ cache ─┤
//!                        (sha256)           (hostile?)      └─ kernel, initrd
//! texts of the seed ──────────────────────────────────────────seed ─► instances/<uid>/seed.img
//! ```
//!
//! An image is hostile until proven otherwise: nothing but this module's own readers opens a file before its digest and
//! its header were checked, and its format is what the image's owner declared, never what its first bytes look like.
//! Refuses to know what runs: whoever prunes says what is still in use.

pub mod address;
pub mod cache;
pub mod fetch;
pub mod local;
pub mod overlay;
pub mod qcow2;
pub mod raw;
pub mod reasons;
pub mod seed;
pub mod space;

pub(crate) mod durable;
mod source;
mod wanted;

pub use cache::{Cache, Limits, Ready};

/// Why an image, a disk or a seed did not come to be.
///
/// Cloneable, because everybody who waits for one fetch gets its one answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub verdict: Verdict,
    /// A word of [`reasons`] or of [`crate::reasons`].
    pub reason: &'static str,
    /// Names the file or address, the limit or culprit, and what to do.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same input fails every time.
    Refused,
    /// May work later.
    Failed,
}

impl Error {
    pub(crate) fn refused(reason: &'static str, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Refused, reason, message: message.into() }
    }

    pub(crate) fn failed(reason: &'static str, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, reason, message: message.into() }
    }

    /// An I/O error of this host: a full disk says so, anything else may pass.
    pub(crate) fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let message = format!("cannot {what} {}: {error}", path.display());
        if full { Self::refused(reasons::DISK_FULL, message) } else { Self::failed(reasons::MEDIA_IO, message) }
    }
}

/// Work on files that may take long, away from the threads that everything else runs on. `what` it is about.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let stopped = |e| Err(Error::failed(reasons::MEDIA_IO, format!("the work on {what} stopped: {e}")));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(stopped)
}

impl From<Error> for crate::hypervisor::Error {
    fn from(error: Error) -> Self {
        let Error { verdict, reason, message } = error;
        match verdict {
            Verdict::Refused => Self::Refused { reason, message },
            Verdict::Failed => Self::Failed { reason, message },
        }
    }
}
