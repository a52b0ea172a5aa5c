//! One device more, or one less, for an instance that exists.

use croft_core::audit::Call;
use croft_core::device::{Assignment, Request};
use croft_core::id::TenantId;
use croft_core::instance::Instance;
use croft_core::operation::Operation;
use croft_core::placement::device::DeviceClaim;
use croft_core::{Error, Result};

use crate::call::Done;
use crate::open::Store;

#[derive(Debug, Clone)]
pub struct AttachRequest {
    pub call: Call,
    pub tenant: TenantId,
    pub id: String,
    /// Empty matches everything.
    pub etag: String,
    pub device: Request,
    /// With the host's version that this rests on; `Ok(None)`: the instance has no host; or why nothing fits.
    pub placed: Result<Option<(Assignment, Vec<DeviceClaim>, i64)>, Error>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum AttachAnswer {
    Attached(Done<(Operation, Instance)>),
    /// The host, or the instance's place, moved on since: look again.
    Stale,
}

impl Store {
    pub async fn instance_attach(&self, request: AttachRequest) -> Result<AttachAnswer> {
        let _ = request;
        Ok(AttachAnswer::Stale)
    }

    /// Marks it; claim and charge are given back when the host says that it is out of the guest and clean. Asked again, the
    /// answer is the operation under way. An empty etag matches everything.
    pub async fn instance_detach(
        &self,
        call: &Call,
        tenant: &TenantId,
        id: &str,
        etag: &str,
        device: &str,
    ) -> Result<Done<(Operation, Instance)>> {
        let _ = (call, tenant, id, etag, device);
        Err(Error::internal("not yet"))
    }
}
