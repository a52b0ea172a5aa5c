//! What happened, in order, for a bounded time: the rows behind Events and behind both watches.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::TenantId;

/// How long, and how many, changes are kept for watchers; whichever ends first.
pub const HISTORY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
pub const HISTORY_ROWS: i64 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    Info,
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the one order of everything; 0 until it is committed.
    pub revision: i64,
    pub time: Timestamp,
    /// `None`: concerns the platform alone.
    pub tenant: Option<TenantId>,
    pub target: String,
    /// UpperCamelCase.
    pub reason: String,
    pub message: String,
    pub severity: Severity,
}

/// One step of the history that watchers follow.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub revision: i64,
    pub what: Changed,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    Event(Event),
    /// As it was right after this change; `created` tells a watcher ADDED from MODIFIED.
    InstanceWritten {
        instance: Box<crate::instance::Instance>,
        created: bool,
    },
    InstanceRemoved {
        instance: Box<crate::instance::Instance>,
    },
}

/// What a watcher follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Events,
    Instances,
}
