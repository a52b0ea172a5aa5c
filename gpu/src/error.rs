//! What can go wrong while looking at a host.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::nvml::NvmlError;

/// A file of the host that could not be read, or said something it never should.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write {value:?} to {}", path.display())]
    Write { path: PathBuf, value: String, source: io::Error },
    #[error("{} says {value:?}, which is not {expected}", path.display())]
    Garbage { path: PathBuf, value: String, expected: &'static str },
}

impl FsError {
    pub(crate) fn io(action: &'static str, path: PathBuf, source: impl Into<io::Error>) -> FsError {
        FsError::Io { action, path, source: source.into() }
    }

    /// Is it that there is nothing at that path?
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, FsError::Io { source, .. } | FsError::Write { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// The kernel's own word, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            FsError::Io { source, .. } | FsError::Write { source, .. } => source.raw_os_error(),
            FsError::Garbage { .. } => None,
        }
    }
}

/// For files that a healthy host may lack.
pub trait IfPresent<T> {
    /// `None` where nothing is at the path. Every other failure stays one.
    fn if_present(self) -> Result<Option<T>, FsError>;
}

impl<T> IfPresent<T> for Result<T, FsError> {
    fn if_present(self) -> Result<Option<T>, FsError> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// For files of devices that may go while they are looked at: the kernel answers for one whose device is half gone, too.
pub(crate) trait IfThere<T> {
    /// `None` where nothing is at the path, or not any more.
    fn if_there(self) -> Result<Option<T>, FsError>;
}

impl<T> IfThere<T> for Result<T, FsError> {
    fn if_there(self) -> Result<Option<T>, FsError> {
        const ESRCH: i32 = 3;
        const ENXIO: i32 = 6;
        const ENODEV: i32 = 19;
        match self {
            Err(error) if matches!(error.errno(), Some(ESRCH | ENXIO | ENODEV)) => Ok(None),
            other => other.if_present(),
        }
    }
}

/// Something about a device, or about a whole bus, that could not be read. The device is there, and it may be in use.
#[derive(Debug, thiserror::Error)]
#[error("{device}: cannot tell its {what}")]
pub struct ProbeError {
    /// `pci 0000:41:00.0`, `usb 1-2.3`; `pci` or `usb` for the whole bus.
    pub device: String,
    /// `driver`, `serial`, …
    pub what: Cow<'static, str>,
    pub source: ProbeCause,
}

impl ProbeError {
    /// Does nothing hang on it that is decided about the device? Then it is no reason to keep the device from going home.
    #[must_use]
    pub fn only_describes(&self) -> bool {
        self.device.starts_with("pci ") && crate::pci::DESCRIPTIVE.contains(&&*self.what)
    }
}

/// As it is sent from the process that looked: the causes as one text.
#[derive(Serialize, Deserialize)]
struct Told {
    device: String,
    what: Cow<'static, str>,
    why: String,
}

impl Serialize for ProbeError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = Told { device: self.device.clone(), what: self.what.clone(), why: chain(&self.source) };
        told.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ProbeError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Told { device, what, why } = Told::deserialize(deserializer)?;
        Ok(ProbeError { device, what, source: ProbeCause::Part(why) })
    }
}

/// Who did not tell.
#[derive(Debug, thiserror::Error)]
pub enum ProbeCause {
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The driver, asked through NVML.
    #[error(transparent)]
    Nvml(#[from] NvmlError),
    /// A whole part that was not asked, or gave no answer.
    #[error("{0}")]
    Part(String),
}

/// An error with all its causes, on one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
