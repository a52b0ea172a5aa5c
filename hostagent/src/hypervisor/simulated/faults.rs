//! Faults that tests inject, by verb of [`crate::hypervisor::Hypervisor`].
//!
//! In the process by [`super::Simulated::inject`]; from outside by a file, read at every call:
//!
//! ```json
//! { "start": "fail once: no such luck", "survey": "unavailable", "ensure_defined": "refuse: DiskTooSmall: too small" }
//! ```
//!
//! `unavailable`, `fail`, `refuse` or `panic`, then ` once` if it is to go away after the first call, then `: Reason: message`. A
//! word that is not a known reason belongs to the message. The verb `*` means all of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use crate::durable;
use crate::hypervisor::{Error, libvirt};
use crate::{media, reasons};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    pub once: bool,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Unavailable,
    Fail,
    Refuse,
    /// The agent itself falls over: a bug that nobody knows yet.
    Panic,
}

#[derive(Debug)]
pub(super) struct Faults {
    injected: Mutex<BTreeMap<String, Fault>>,
    file: PathBuf,
}

impl Faults {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { injected: Mutex::default(), file }
    }

    /// `None` heals the verb.
    pub(super) fn inject(&self, verb: &str, fault: Option<Fault>) {
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            Some(fault) => injected.insert(verb.to_owned(), fault),
            None => injected.remove(verb),
        };
    }

    /// The fault that this call is to meet.
    pub(super) fn check(&self, verb: &str) -> Result<(), Error> {
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        for verb in [verb, "*"] {
            if let Some(fault) = injected.get(verb).cloned() {
                if fault.once {
                    injected.remove(verb);
                }
                return Err(fault.error());
            }
        }
        drop(injected);
        self.check_file(verb)
    }

    fn check_file(&self, verb: &str) -> Result<(), Error> {
        let Ok(text) = std::fs::read(&self.file) else { return Ok(()) };
        let unreadable = |error: &dyn std::fmt::Display| {
            // A fault that nobody understands must not look like health.
            Error::Failed { reason: reasons::HYPERVISOR_ERROR, message: format!("{}: {error}", self.file.display()) }
        };
        let mut faults: BTreeMap<String, String> = serde_json::from_slice(&text).map_err(|error| unreadable(&error))?;
        let Some(key) = [verb, "*"].into_iter().find(|key| faults.contains_key(*key)) else { return Ok(()) };
        let fault: Fault = faults[key].parse().map_err(|error: String| unreadable(&error))?;
        if fault.once {
            faults.remove(key);
            let rest = serde_json::to_vec_pretty(&faults).map_err(|error| unreadable(&error))?;
            durable::write(&self.file, &rest).map_err(|error| unreadable(&error))?;
        }
        Err(fault.error())
    }
}

impl Fault {
    #[must_use]
    pub fn unavailable() -> Self {
        Self {
            kind: Kind::Unavailable,
            once: false,
            reason: reasons::HYPERVISOR_UNAVAILABLE,
            message: "the simulated hypervisor is down".to_owned(),
        }
    }

    #[must_use]
    pub fn fail(message: &str) -> Self {
        Self { kind: Kind::Fail, once: false, reason: reasons::HYPERVISOR_ERROR, message: message.to_owned() }
    }

    #[must_use]
    pub fn refuse(reason: &'static str, message: &str) -> Self {
        Self { kind: Kind::Refuse, once: false, reason, message: message.to_owned() }
    }

    #[must_use]
    pub fn panic(message: &str) -> Self {
        Self { kind: Kind::Panic, ..Self::fail(message) }
    }

    /// Gone after the first call that met it.
    #[must_use]
    pub fn once(self) -> Self {
        Self { once: true, ..self }
    }

    fn error(&self) -> Error {
        let (reason, message) = (self.reason, self.message.clone());
        match self.kind {
            Kind::Unavailable => Error::Unavailable(message),
            Kind::Fail => Error::Failed { reason, message },
            Kind::Refuse => Error::Refused { reason, message },
            Kind::Panic => panic!("injected: {message}"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (words, rest) = text.split_once(':').unwrap_or((text, ""));
        let (kind, once) = match words.trim().strip_suffix(" once") {
            Some(kind) => (kind, true),
            None => (words.trim(), false),
        };
        let known = |word: &str| {
            let words = [reasons::ALL, libvirt::reasons::ALL, media::reasons::ALL];
            words.into_iter().flatten().find(|known| **known == word.trim()).copied()
        };
        let named = rest.split_once(':').and_then(|(word, message)| Some((known(word)?, message)));
        let (reason, message) = named.unwrap_or((reasons::HYPERVISOR_ERROR, rest));
        let fault = match kind {
            "unavailable" => Self::unavailable(),
            "fail" => Self { reason, ..Self::fail(message.trim()) },
            "refuse" => Self::refuse(reason, message.trim()),
            "panic" => Self::panic(message.trim()),
            _ => return Err(format!("{kind:?} is none of unavailable, fail, refuse, panic")),
        };
        Ok(if once { fault.once() } else { fault })
    }
}
