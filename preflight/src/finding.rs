//! What a check says of one thing.

use serde::Serialize;

/// From best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; a choice, or something that only some instances need.
    Info,
    /// The host works, and something of it does not, or could not be seen.
    Warn,
    /// Not a host yet: instances would not start, or would not be kept apart.
    Fail,
}

impl Level {
    pub const ALL: [Level; 4] = [Level::Ok, Level::Info, Level::Warn, Level::Fail];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of the check: `iommu`.
    pub id: &'static str,
    pub level: Level,
    /// What it is about: `0000:41:00.0`, `host`.
    pub subject: String,
    pub found: String,
    /// Why that matters to Croft.
    pub reason: String,
    /// What to do; empty where there is nothing to do.
    pub fix: String,
    /// The role of the collection that does it; `None`: a person's work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
}

/// The check's id, and its reason where none is given, are added by whoever runs the check.
impl Finding {
    fn new(level: Level, subject: impl ToString, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        let (subject, found, fix) = (subject.to_string(), found.into(), fix.into());
        Finding { id: "", level, subject, found, reason: String::new(), fix, role: None }
    }

    pub(crate) fn ok(subject: impl ToString, found: impl Into<String>) -> Finding {
        Finding::new(Level::Ok, subject, found, "")
    }

    pub(crate) fn info(subject: impl ToString, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding::new(Level::Info, subject, found, fix)
    }

    pub(crate) fn warn(subject: impl ToString, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding::new(Level::Warn, subject, found, fix)
    }

    pub(crate) fn fail(subject: impl ToString, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding::new(Level::Fail, subject, found, fix)
    }

    /// This role does what the fix says.
    pub(crate) fn by(self, role: &'static str) -> Finding {
        Finding { role: Some(role), ..self }
    }

    pub(crate) fn because(self, reason: impl Into<String>) -> Finding {
        Finding { reason: reason.into(), ..self }
    }
}
