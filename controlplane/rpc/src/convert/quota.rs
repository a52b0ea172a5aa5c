//! Quotas.

use croft_core::quota::Labelled;
use croft_proto::v1;

/// `available`: the tightest on the way to the root; `None`: unlimited.
#[must_use]
pub fn out(own: &Labelled, available: Option<i64>) -> v1::Quota {
    let quota = &own.quota;
    let metadata = v1::Metadata {
        generation: quota.generation,
        etag: quota.etag(),
        labels: own.labels.clone(),
        annotations: own.annotations.clone(),
        ..v1::Metadata::default()
    };
    v1::Quota { name: quota.name(), metadata: Some(metadata), limit: quota.limit, used: quota.used, available }
}
