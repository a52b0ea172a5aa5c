//! Quotas.

use croft_core::quota::Quota;
use croft_proto::v1;

/// `available`: the tightest on the way to the root; `None`: unlimited.
#[must_use]
pub fn out(quota: &Quota, available: Option<i64>) -> v1::Quota {
    v1::Quota { name: quota.name(), limit: quota.limit, used: quota.used, available, etag: quota.etag() }
}
