//! Events and audit entries.

use croft_core::audit::AuditEntry;
use croft_core::event::{Event, Severity};
use croft_proto::v1;

use super::time;

#[must_use]
pub fn out(event: &Event) -> v1::Event {
    let severity = match event.severity {
        Severity::Info => v1::event::Severity::Info,
        Severity::Warning => v1::event::Severity::Warning,
    };
    v1::Event {
        name: format!("events/{}", event.revision),
        time: Some(time::out(event.time)),
        target: event.target.clone(),
        reason: event.reason.clone(),
        message: event.message.clone(),
        severity: severity.into(),
    }
}

#[must_use]
pub fn audit_out(entry: &AuditEntry) -> v1::AuditEntry {
    v1::AuditEntry {
        name: format!("auditEntries/{}", entry.uid),
        time: Some(time::out(entry.time)),
        actor: entry.actor.clone(),
        method: entry.method.clone(),
        target: entry.target.clone(),
        request_id: entry.request_id.clone(),
        result: entry.result.clone(),
        message: entry.message.clone(),
        peer: entry.peer.clone(),
    }
}
