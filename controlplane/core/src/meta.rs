//! What every resource carries: identity, generation, labels, times.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::error::{Error, Reason, Result};
use crate::validate::Violations;

pub type Labels = BTreeMap<String, String>;

const LABELS_MAX: usize = 64;
const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// UUIDv7 as text.
    pub uid: String,
    /// Raised by every change of intent.
    pub generation: i64,
    pub labels: Labels,
    pub annotations: Labels,
    pub create_time: Timestamp,
    pub update_time: Timestamp,
    pub delete_time: Option<Timestamp>,
}

impl Meta {
    #[must_use]
    pub fn new(uid: String, labels: Labels, annotations: Labels, now: Timestamp) -> Self {
        Self { uid, generation: 1, labels, annotations, create_time: now, update_time: now, delete_time: None }
    }

    /// Changes with every change of intent, never with truth: a status report must not fail an update.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("{:x}-{}", self.generation, self.uid.get(24..).unwrap_or_default())
    }

    /// An empty etag matches everything.
    pub fn check_etag(&self, sent: &str, name: &str) -> Result<()> {
        check_etag(sent, &self.etag(), name)
    }
}

/// Whether the etag that was sent is still the one of `name`; an empty one matches everything.
pub fn check_etag(sent: &str, etag: &str, name: &str) -> Result<()> {
    if sent.is_empty() || sent == etag {
        return Ok(());
    }
    Err(Error::Conflict {
        reason: Reason::EtagMismatch,
        message: format!("{name} has changed since its etag was read; get it again and decide again"),
    })
}

/// Keys: optional DNS prefix and `/`, then 1 to 63 of `[A-Za-z0-9._-]` that begin and end alphanumerically; values the
/// same or empty.
pub fn check_labels(field: &str, labels: &Labels, violations: &mut Violations) {
    if labels.len() > LABELS_MAX {
        violations.add(field, format!("at most {LABELS_MAX} labels, not {}", labels.len()));
    }
    for (key, value) in labels {
        if !is_key(key) {
            violations.add(format!("{field}[{key}]"), "a key is [prefix/]name, the name 1 to 63 of [A-Za-z0-9._-]");
        }
        if !value.is_empty() && !is_label_text(value) {
            violations.add(format!("{field}[{key}]"), "a value is at most 63 of [A-Za-z0-9._-]");
        }
    }
}

pub fn check_annotations(field: &str, annotations: &Labels, violations: &mut Violations) {
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > ANNOTATIONS_MAX_BYTES {
        violations.add(field, format!("{bytes} bytes; at most {ANNOTATIONS_MAX_BYTES}"));
    }
    for key in annotations.keys().filter(|key| !is_key(key)) {
        violations.add(format!("{field}[{key}]"), "a key is [prefix/]name, the name 1 to 63 of [A-Za-z0-9._-]");
    }
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_label_text(key),
        Some((prefix, name)) => {
            let dns = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
            !prefix.is_empty() && prefix.len() <= 253 && prefix.chars().all(dns) && is_label_text(name)
        }
    }
}

pub(crate) fn is_label_text(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// Every key and value of `selector` is in `labels`.
#[must_use]
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
