//! The wire: generated types of `croft.v1` (for everybody) and `croft.agent.v1` (plane and agents only), the permission
//! that every RPC declares, and the one DNS name under which Croft marks what is its own.
//!
//! Refuses to do anything: no conversion, no validation, no transport.

mod redacted;

/// ErrorInfo domain, label, taint and annotation prefix, libvirt metadata namespace.
pub const DOMAIN: &str = "croft.dev";

/// The public API.
#[expect(clippy::all, clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("croft.v1");
}

/// Control plane and host agents.
pub mod agent {
    #[expect(clippy::all, clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("croft.agent.v1");
    }
}

/// Every message, service and option, encoded as a `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/croft.bin"));

include!(concat!(env!("OUT_DIR"), "/permissions.rs"));

/// What the RPC at this gRPC path asks of its caller; `None` for a path that is not ours.
#[must_use]
pub fn permission(path: &str) -> Option<&'static str> {
    PERMISSIONS.binary_search_by_key(&path, |row| row.0).ok().map(|at| PERMISSIONS[at].1)
}
