//! What one layer asks of another that it may not import; the binary connects them.

use std::future::Future;
use std::pin::Pin;

use crate::audit::Call;
use crate::error::Result;
use crate::id::{HostId, InstanceUid, TenantId};
use crate::instance::Instance;
use crate::meta::Labels;
use crate::operation::Operation;
use crate::placement::Verdict;

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One instance that somebody asks for: checked in shape, not yet against quota or hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct NewInstance {
    pub tenant: TenantId,
    pub id: String,
    pub labels: Labels,
    pub annotations: Labels,
    /// `image_uid` is filled in by the claim, which looks the image up in its own transaction.
    pub spec: crate::instance::Spec,
    /// Of the spec's devices, in what the user sent.
    pub device_paths: crate::device::Paths,
    pub power: crate::instance::Power,
    pub restart: crate::instance::Restart,
    pub stop_timeout: std::time::Duration,
    pub user_data: String,
}

/// What a claim came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    pub operation: Operation,
    pub instance: Instance,
}

/// Admission: `rpc` asks, the engine's placer answers, many at a time in one commit.
pub trait Admission: Send + Sync + 'static {
    fn create<'a>(&'a self, call: Call, new: NewInstance) -> BoxFuture<'a, Result<Admitted>>;

    /// One more device for an instance that exists: placed, claimed and charged like those that it was made with. `etag`:
    /// empty matches everything.
    fn attach<'a>(
        &'a self,
        call: Call,
        tenant: TenantId,
        id: String,
        etag: String,
        device: crate::device::Request,
    ) -> BoxFuture<'a, Result<Admitted>>;

    /// Whether another host than its own takes it now, or why none does; nothing is claimed.
    fn room_elsewhere(&self, instance: Instance) -> BoxFuture<'_, Result<()>>;

    /// The same predicates, without a claim.
    fn explain<'a>(&'a self, new: NewInstance) -> BoxFuture<'a, Result<Vec<Verdict>>>;
}

/// Something was written that somebody may wait for. Cheap, lossy, and never the only way to learn of it.
pub trait Wake: Send + Sync + 'static {
    /// An instance's intent or truth changed.
    fn instance(&self, uid: InstanceUid);
    /// What a host should run changed.
    fn host(&self, id: &HostId);
    /// A host was heard from, fenced, cordoned or changed its capacity.
    fn hosts(&self);
    /// A cluster was registered, changed or deleted.
    fn clusters(&self);
}
