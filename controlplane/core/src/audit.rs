//! One row for each mutating call and each denied one.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::access::Principal;
use crate::id::{AuditUid, TenantId};

/// What a handler knows of the call it serves; goes along with every mutation into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub principal: Principal,
    /// `/croft.v1.Instances/CreateInstance`
    pub method: &'static str,
    /// Of the caller (AIP-155); empty: none.
    pub request_id: String,
    /// SHA-256 of the request without its request_id; a retry must have the same.
    pub body_digest: [u8; 32],
    /// Where the call came from, for the audit row.
    pub peer: String,
    /// Checks everything and changes nothing.
    pub validate_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub uid: AuditUid,
    pub time: Timestamp,
    pub actor: String,
    pub method: String,
    /// The tenant it concerns, so that a tenant's admin can read it; `None`: the platform's.
    pub tenant: Option<TenantId>,
    pub target: String,
    pub request_id: String,
    /// `OK` or the name of a gRPC code.
    pub result: String,
    pub message: String,
    pub peer: String,
}
