#![expect(unused_variables, clippy::unused_async, reason = "signatures first, for those who compile against them")]
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use croft_core::audit::{AuditEntry, Call};
use croft_core::event::{Change, Event, Topic};
use croft_core::host::{Capacity, Host, Resources};
use croft_core::id::{HostId, ImageUid, InstanceUid, NetworkId, OperationUid, TenantId, TokenId};
use croft_core::image::{self, Image};
use croft_core::instance::{Condition, Instance, Observed, State};
use croft_core::meta::Labels;
use croft_core::network::Network;
use croft_core::operation::Operation;
use croft_core::placement::view::Claim;
use croft_core::placement::{HostView, Placement};
use croft_core::quota::Quota;
use croft_core::tenant::Tenant;
use croft_core::token::Token;
use croft_core::{Clock, Error, Result, Timestamp, ports};

#[derive(Debug, Clone)]
pub struct Options {
    /// `sqlite:/path/croft.db`
    pub url: String,
    /// Key of the secrets; made (mode 0600) when missing.
    pub key_file: PathBuf,
    pub clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone)]
pub struct Store {
    clock: Arc<dyn Clock>,
    changed: Arc<tokio::sync::watch::Sender<i64>>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Done<T> {
    New(T),
    /// A retry of a call that was done before.
    Replayed(T),
}

impl<T> Done<T> {
    pub fn into_inner(self) -> T {
        match self {
            Self::New(value) | Self::Replayed(value) => value,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// 1 to 1000.
    pub size: i64,
    pub token: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantFilter {
    /// It and all below it.
    pub within: Option<TenantId>,
    pub parent: Option<TenantId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageScope {
    /// The platform's alone.
    Platform,
    /// What this tenant may boot: the platform's, its own and its ancestors'.
    VisibleTo(TenantId),
    /// The same, and those of the tenants below it.
    SeenFrom(TenantId),
    All,
}

#[derive(Debug, Clone, PartialEq)]
pub struct HostReport {
    pub capacity: Capacity,
    pub foreign: Resources,
    pub info: serde_json::Value,
    pub features: Vec<String>,
    pub conditions: Vec<Condition>,
    pub boot_id: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    pub epoch: i64,
    pub revision: i64,
    /// With the networks of its interfaces, the default one excluded.
    pub instances: Vec<(Instance, Image, Tenant, Vec<Network>)>,
    /// (uid, force, stop timeout)
    pub tombstones: Vec<(InstanceUid, bool, Duration)>,
}

#[derive(Debug, Clone)]
pub struct ClaimRequest {
    pub call: Call,
    pub new: ports::NewInstance,
    /// With the host's version that the placement was made against.
    pub placed: Result<(Placement, Claim, i64), Error>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ClaimAnswer {
    Admitted { operation: Operation, instance: Instance, replayed: bool },
    Refused(Error),
    /// The host's version moved on: place again.
    Stale,
}

#[derive(Debug, Clone, PartialEq)]
pub enum PlaceAnswer {
    Placed(Box<Instance>),
    /// The host's version moved on: place again.
    Stale,
    /// It has a host, is being deleted, should not run, or is gone.
    Unneeded,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceFilter {
    /// Of this tenant and all below it.
    pub within: Option<TenantId>,
    pub tenant: Option<TenantId>,
    pub host: Option<HostId>,
    pub labels: Labels,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Start,
    Stop { timeout: Option<Duration> },
    Reboot,
    Reset,
    Delete { force: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub uid: InstanceUid,
    pub before: State,
    /// `None`: gone.
    pub after: Option<State>,
    /// In `before`, until now (asked for by the engine's metrics).
    pub spent: Duration,
    pub needs_place: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    pub changes: Vec<Change>,
    /// Ask for what is after this next.
    pub up_to: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    pub idempotency: u64,
    pub changes: u64,
    pub operations: u64,
    pub audit: u64,
    pub enrolments: u64,
}

fn nothing<T>() -> Result<T> {
    Err(Error::internal("not written yet"))
}

impl Store {
    pub async fn open(options: Options) -> Result<Self> { nothing() }
    pub async fn close(&self) {}
    #[must_use]
    pub fn now(&self) -> Timestamp { self.clock.now() }
    #[must_use]
    pub fn changed(&self) -> tokio::sync::watch::Receiver<i64> { self.changed.subscribe() }
    /// A consistent copy, as a file that did not exist before.
    pub async fn backup_to(&self, path: &Path) -> Result<()> { nothing() }

    pub async fn tenant_create(&self, call: &Call, tenant: Tenant) -> Result<Done<Tenant>> { nothing() }
    pub async fn tenant_get(&self, id: &TenantId) -> Result<Option<Tenant>> { nothing() }
    pub async fn tenant_list(&self, filter: &TenantFilter, page: &Page) -> Result<(Vec<Tenant>, Option<String>)> { nothing() }
    pub async fn tenant_update(&self, call: &Call, id: &TenantId, etag: &str, change: impl FnOnce(&mut Tenant) -> Result<()> + Send + 'static) -> Result<Done<Tenant>> { nothing() }
    pub async fn tenant_delete(&self, call: &Call, id: &TenantId, etag: &str) -> Result<()> { nothing() }
    pub async fn tenant_within(&self, inner: &TenantId, outer: &TenantId) -> Result<bool> { nothing() }

    pub async fn quota_get(&self, tenant: &TenantId, resource: &str) -> Result<Quota> { nothing() }
    pub async fn quota_available(&self, tenant: &TenantId, resource: &str) -> Result<Option<i64>> { nothing() }
    pub async fn quota_list(&self, tenant: &TenantId) -> Result<Vec<(Quota, Option<i64>)>> { nothing() }
    pub async fn quota_set(&self, call: &Call, tenant: &TenantId, resource: &str, etag: &str, limit: Option<i64>) -> Result<Done<Quota>> { nothing() }
    pub async fn quota_all(&self) -> Result<Vec<Quota>> { nothing() }

    pub async fn token_create(&self, call: &Call, token: Token, secret_sha256: [u8; 32]) -> Result<Done<Token>> { nothing() }
    pub async fn token_list(&self, within: Option<&TenantId>, page: &Page) -> Result<(Vec<Token>, Option<String>)> { nothing() }
    pub async fn token_get(&self, id: &TokenId) -> Result<Option<Token>> { nothing() }
    pub async fn token_disable(&self, call: &Call, id: &TokenId) -> Result<Done<Token>> { nothing() }
    pub async fn token_delete(&self, call: &Call, id: &TokenId) -> Result<()> { nothing() }
    pub async fn token_authenticate(&self, id: &TokenId, secret_sha256: [u8; 32]) -> Result<Option<Token>> { nothing() }
    pub async fn token_reset_admin(&self, call: &Call, secret_sha256: [u8; 32]) -> Result<Token> { nothing() }

    pub async fn image_create(&self, call: &Call, image: Image) -> Result<Done<Image>> { nothing() }
    pub async fn image_get(&self, tenant: Option<&TenantId>, id: &str) -> Result<Option<Image>> { nothing() }
    pub async fn image_by_uid(&self, uid: ImageUid) -> Result<Option<Image>> { nothing() }
    pub async fn image_visible(&self, tenant: &TenantId, name: &str) -> Result<Image> { nothing() }
    pub async fn image_list(&self, scope: &ImageScope, page: &Page) -> Result<(Vec<Image>, Option<String>)> { nothing() }
    pub async fn image_copies(&self, uid: ImageUid) -> Result<Vec<image::Copy>> { nothing() }
    /// `true`: it differed and was written.
    pub async fn image_copy_put(&self, uid: ImageUid, copy: image::Copy) -> Result<bool> { nothing() }
    pub async fn image_delete(&self, call: &Call, tenant: Option<&TenantId>, id: &str, etag: &str) -> Result<()> { nothing() }

    pub async fn network_create(&self, call: &Call, network: Network) -> Result<Done<Network>> { nothing() }
    pub async fn network_get(&self, id: &NetworkId) -> Result<Option<Network>> { nothing() }
    pub async fn network_list(&self, page: &Page) -> Result<(Vec<Network>, Option<String>)> { nothing() }
    pub async fn network_update(&self, call: &Call, id: &NetworkId, etag: &str, change: impl FnOnce(&mut Network) -> Result<()> + Send + 'static) -> Result<Done<Network>> { nothing() }
    pub async fn network_delete(&self, call: &Call, id: &NetworkId, etag: &str) -> Result<()> { nothing() }
    pub async fn network_granted(&self, id: &NetworkId, tenant: &TenantId) -> Result<bool> { nothing() }

    pub async fn host_enrolment_create(&self, call: &Call, host: &HostId, token_sha256: [u8; 32], expire: Timestamp) -> Result<Done<()>> { nothing() }
    pub async fn host_enrol(&self, peer: &str, host: &HostId, token_sha256: [u8; 32], csr_sha256: [u8; 32], sign: impl FnOnce(&str) -> Result<String> + Send + 'static) -> Result<String> { nothing() }
    pub async fn host_get(&self, id: &HostId) -> Result<Option<Host>> { nothing() }
    pub async fn host_list(&self, page: &Page) -> Result<(Vec<Host>, Option<String>)> { nothing() }
    pub async fn host_all(&self) -> Result<Vec<Host>> { nothing() }
    pub async fn host_update(&self, call: &Call, id: &HostId, etag: &str, change: impl FnOnce(&mut Host) -> Result<()> + Send + 'static) -> Result<Done<Host>> { nothing() }
    pub async fn host_cordon(&self, call: &Call, id: &HostId, cordoned: bool) -> Result<Done<Host>> { nothing() }
    pub async fn host_delete(&self, call: &Call, id: &HostId, etag: &str) -> Result<()> { nothing() }
    pub async fn host_fence(&self, call: &Call, id: &HostId) -> Result<Done<Host>> { nothing() }
    pub async fn host_report(&self, id: &HostId, report: HostReport) -> Result<bool> { nothing() }
    pub async fn host_lease_renew(&self, hosts: &[HostId], until: Timestamp) -> Result<Vec<HostId>> { nothing() }
    pub async fn host_lease_expire(&self, now: Timestamp) -> Result<Vec<HostId>> { nothing() }
    pub async fn host_epoch_confirmed(&self, id: &HostId, epoch: i64) -> Result<()> { nothing() }
    /// The agent's `SyncDone`: the session calls this for each one, in the order of the stream and before it passes on
    /// the observations that follow. Kept in memory. Only an ABSENT (or, in a complete report, a missing line) that
    /// comes after the delete was synced, or that has generation 0, lets an instance that is being deleted go: one that
    /// was sent before the tombstone arrived proves nothing.
    pub fn host_synced(&self, id: &HostId, epoch: i64, revision: i64) {}
    pub async fn host_views(&self) -> Result<Vec<HostView>> { nothing() }
    pub async fn host_versions(&self) -> Result<Vec<(HostId, i64)>> { nothing() }
    pub async fn host_view(&self, id: &HostId) -> Result<Option<HostView>> { nothing() }
    pub async fn host_desired(&self, id: &HostId) -> Result<Desired> { nothing() }

    pub async fn instance_claim(&self, requests: Vec<ClaimRequest>) -> Result<Vec<ClaimAnswer>> { nothing() }
    pub async fn instance_get(&self, tenant: &TenantId, id: &str) -> Result<Option<Instance>> { nothing() }
    pub async fn instance_by_uid(&self, uid: InstanceUid) -> Result<Option<Instance>> { nothing() }
    pub async fn instance_list(&self, filter: &InstanceFilter, page: &Page) -> Result<(Vec<Instance>, Option<String>, i64)> { nothing() }
    pub async fn instance_update(&self, call: &Call, tenant: &TenantId, id: &str, etag: &str, change: impl FnOnce(&mut Instance) -> Result<()> + Send + 'static) -> Result<Done<Instance>> { nothing() }
    pub async fn instance_command(&self, call: &Call, tenant: &TenantId, id: &str, etag: &str, command: Command) -> Result<Done<(Operation, Instance)>> { nothing() }
    pub async fn instance_place(&self, uid: InstanceUid, placement: Placement, claim: Claim, version: i64) -> Result<PlaceAnswer> { nothing() }
    pub async fn instance_unsettled(&self) -> Result<Vec<InstanceUid>> { nothing() }
    pub async fn instance_on_host(&self, host: &HostId) -> Result<Vec<InstanceUid>> { nothing() }
    pub async fn instance_observe(&self, host: &HostId, epoch: i64, seen: Vec<(InstanceUid, Observed)>, complete: bool) -> Result<Vec<InstanceUid>> { nothing() }
    pub async fn instance_settle(&self, uids: Vec<InstanceUid>) -> Result<Vec<Settled>> { nothing() }
    pub async fn instances_by_state(&self) -> Result<Vec<(TenantId, State, i64)>> { nothing() }

    pub async fn operation_get(&self, uid: OperationUid) -> Result<Option<Operation>> { nothing() }
    pub async fn operation_list(&self, within: Option<&TenantId>, page: &Page) -> Result<(Vec<Operation>, Option<String>)> { nothing() }
    pub async fn operation_open(&self, instance: InstanceUid) -> Result<Vec<Operation>> { nothing() }

    pub async fn event_append(&self, event: Event) -> Result<()> { nothing() }
    pub async fn events_list(&self, within: Option<&TenantId>, target: Option<&str>, page: &Page) -> Result<(Vec<Event>, Option<String>, i64)> { nothing() }
    pub async fn changes_after(&self, revision: i64, topic: Topic, within: Option<&TenantId>, limit: usize) -> Result<Changes> { nothing() }
    pub async fn revision(&self) -> Result<i64> { nothing() }

    /// `uid` and `time` as given; make them with `AuditUid::new(store.now())`.
    pub async fn audit_append(&self, entry: AuditEntry) -> Result<()> { nothing() }
    pub async fn audit_list(&self, within: Option<&TenantId>, page: &Page) -> Result<(Vec<AuditEntry>, Option<String>)> { nothing() }

    pub async fn blob_get(&self, host: &HostId, digest: &str) -> Result<Option<Vec<u8>>> { nothing() }
    pub async fn janitor(&self, now: Timestamp) -> Result<Trimmed> { nothing() }
    pub async fn consistency(&self) -> Result<Vec<String>> { nothing() }
}

pub mod crash {
    //! Points at which a process may be told to die.
    pub const POINTS: &[&str] = &[];
    pub fn point(name: &'static str) {}
}
