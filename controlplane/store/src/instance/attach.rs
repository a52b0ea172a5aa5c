//! One device more, or one less, for an instance that exists.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use croft_core::audit::Call;
use croft_core::device::{Assignment, Kind, PER_INSTANCE_MAX, Request};
use croft_core::event::Severity;
use croft_core::id::{HostId, InstanceUid, OperationUid, TenantId};
use croft_core::instance::{Instance, Power, State};
use croft_core::operation::{Operation, Verb};
use croft_core::placement::device::DeviceClaim;
use croft_core::{Error, Reason, Result};

use super::update::deleting;
use super::{Settled, charged};
use crate::call::{About, Done};
use crate::event::reason;
use crate::host::claimed;
use crate::open::Store;
use crate::operation;
use crate::pool::claimed::Pools;
use crate::tx::Tx;

#[derive(Debug, Clone)]
pub struct AttachRequest {
    pub call: Call,
    pub tenant: TenantId,
    pub id: String,
    /// Empty matches everything.
    pub etag: String,
    pub device: Request,
    /// `Ok(None)`: the instance has no host, and gets the device with its next one; or why nothing fits.
    pub placed: Result<Option<Extension>, Error>,
}

/// The exact piece beside those that the instance has, and what it takes there.
#[derive(Debug, Clone, PartialEq)]
pub struct Extension {
    pub host: HostId,
    /// Of the host, as the placement saw it.
    pub version: i64,
    pub assignment: Assignment,
    pub claims: Vec<DeviceClaim>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum AttachAnswer {
    Attached(Box<Done<(Operation, Instance)>>),
    /// The host, a pool, or the instance's place, moved on since: look again.
    Stale,
}

impl Store {
    /// Claim, charge and the new request of the spec in one commit. GPUs and slices are refused while the guest runs.
    pub async fn instance_attach(&self, request: AttachRequest) -> Result<AttachAnswer> {
        let AttachRequest { call, tenant, id, .. } = &request;
        let about = About::tenant(tenant, format!("tenants/{tenant}/instances/{id}"));
        let (call, stale) = (call.clone(), Arc::new(AtomicBool::new(false)));
        let noted = stale.clone();
        let done = self
            .mutate(&call, about, move |tx| {
                Box::pin(async move {
                    let answer = attach(tx, request).await?;
                    answer.ok_or_else(|| {
                        noted.store(true, Ordering::Relaxed);
                        Error::internal("the host moved on; rolled back")
                    })
                })
            })
            .await;
        match done {
            Err(_) if stale.load(Ordering::Relaxed) => Ok(AttachAnswer::Stale),
            Err(error) => Err(error),
            Ok(done) => Ok(AttachAnswer::Attached(Box::new(self.operation_now(done).await?))),
        }
    }

    /// Marks it; claim and charge are given back when the host says that it is out of the guest and clean. GPUs and slices are
    /// refused while the guest runs. Asked again, the answer is the operation under way. An empty etag matches everything.
    pub async fn instance_detach(
        &self,
        call: &Call,
        tenant: &TenantId,
        id: &str,
        etag: &str,
        device: &str,
    ) -> Result<Done<(Operation, Instance)>> {
        let about = About::tenant(tenant, format!("tenants/{tenant}/instances/{id}"));
        let (tenant, id, etag, device) = (tenant.clone(), id.to_owned(), etag.to_owned(), device.to_owned());
        let caller = call.clone();
        let done = self
            .mutate(call, about, move |tx| {
                Box::pin(async move {
                    let instance = super::require(&mut tx.conn, &tenant, &id).await?;
                    detach(tx, &caller, instance, &etag, &device).await
                })
            })
            .await?;
        self.operation_now(done).await
    }
}

fn check(instance: &Instance, request: &AttachRequest) -> Result<()> {
    let (name, device) = (instance.name(), &request.device);
    if instance.meta.delete_time.is_some() {
        return Err(deleting(name));
    }
    instance.meta.check_etag(&request.etag, &name)?;
    if instance.spec.devices.iter().any(|one| one.id == device.id) {
        return Err(Error::AlreadyExists { name: format!("device `{}` of {name}", device.id) });
    }
    if instance.spec.devices.len() >= PER_INSTANCE_MAX {
        return Err(Error::invalid("device", format!("{name} has {PER_INSTANCE_MAX} devices, and can have no more")));
    }
    // Which device a pool gives is known when it is placed.
    let given = request.placed.as_ref().ok().and_then(Option::as_ref);
    let is_gpu = device.wanted.is_gpu() || given.is_some_and(|given| given.assignment.kind == Kind::Gpu);
    needs_stop(instance, is_gpu, "a guest finds a GPU only when it starts")
}

/// GPUs and slices of them come to a guest that is off, and leave one that is off.
fn needs_stop(instance: &Instance, is_gpu: bool, why: &str) -> Result<()> {
    let off = instance.intent.power == Power::Stopped && instance.status.state == State::Stopped;
    if off || !is_gpu {
        return Ok(());
    }
    let name = instance.name();
    let message = format!("{name} runs, and {why}; stop it first");
    Err(Error::precondition(Reason::DeviceNeedsStop, name, message))
}

/// `None`: stale.
async fn attach(tx: &mut Tx, request: AttachRequest) -> Result<Option<(Operation, Instance)>> {
    let mut instance = super::require(&mut tx.conn, &request.tenant, &request.id).await?;
    check(&instance, &request)?;
    let AttachRequest { call, device, placed, .. } = request;
    let placed = placed?;
    if placed.as_ref().map(|extension| &extension.host) != instance.host() {
        return Ok(None);
    }
    if let Some(Extension { host, assignment, .. }) = &placed {
        let piece = std::slice::from_ref(assignment);
        if !Pools::read(&mut tx.conn, &[(host, piece)]).await?.hold(host, piece) {
            return Ok(None);
        }
    }
    let mut told = format!("`{}` is attached with its next start", device.id);
    if let (Some(Extension { host, version, assignment, claims }), Some(placement)) = (placed, &mut instance.placement)
    {
        charged::charge(&mut tx.conn, instance.uid, &instance.tenant, std::slice::from_ref(&assignment)).await?;
        if !claimed::grow(&mut tx.conn, instance.uid, &host, &claims, version).await? {
            return Ok(None);
        }
        told = format!("`{}` is {} of hosts/{host}", device.id, assignment.device);
        placement.devices.push(assignment);
    }
    let subject = device.id.clone();
    instance.spec.devices.push(device);
    let operation = change(tx, &call, &mut instance, Verb::Attach, subject).await?;
    tx.event(Some(&instance.tenant), &instance.name(), reason::DEVICE_ATTACHED, &told, Severity::Info);
    Ok(Some((operation, instance)))
}

/// The next generation of the instance, and the operation that ends when the host has answered to it.
async fn change(tx: &mut Tx, call: &Call, instance: &mut Instance, verb: Verb, subject: String) -> Result<Operation> {
    instance.meta.generation += 1;
    instance.meta.update_time = tx.now;
    if verb == Verb::Detach && instance.host().is_some() {
        instance.intent.detaching.insert(subject.clone(), instance.meta.generation);
    }
    super::write_spec(&mut tx.conn, instance).await?;
    super::write(&mut tx.conn, instance, Settled::No).await?;
    let operation = Operation {
        uid: OperationUid::new(tx.now),
        tenant: instance.tenant.clone(),
        target: instance.name(),
        target_uid: instance.uid,
        verb,
        counter: instance.meta.generation,
        subject,
        actor: call.principal.actor(),
        labels: instance.meta.labels.clone(),
        annotations: instance.meta.annotations.clone(),
        create_time: tx.now,
        progress: "waits for the host".to_owned(),
        done: false,
        failure: None,
        end_time: None,
    };
    operation::write(&mut tx.conn, std::slice::from_ref(&operation)).await?;
    tx.instance_written(instance, false);
    Ok(operation)
}

async fn detach(
    tx: &mut Tx,
    call: &Call,
    mut instance: Instance,
    etag: &str,
    device: &str,
) -> Result<(Operation, Instance)> {
    let name = instance.name();
    if instance.meta.delete_time.is_some() {
        return Err(deleting(name));
    }
    if instance.intent.detaching.contains_key(device) {
        let open = operation::open(&mut tx.conn, &[instance.uid]).await?;
        let under_way = open.into_iter().find(|one| one.verb == Verb::Detach && one.subject == device);
        let lost = || Error::internal(format!("`{device}` of {name} is being detached without an operation"));
        return Ok((under_way.ok_or_else(lost)?, instance));
    }
    instance.meta.check_etag(etag, &name)?;
    let Some(request) = instance.spec.devices.iter().find(|one| one.id == device) else {
        let has: Vec<&str> = instance.spec.devices.iter().map(|one| one.id.as_str()).collect();
        let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
        return Err(Error::invalid("device_id", format!("{name} has no device `{device}`; it has {has}")));
    };
    if instance.host().is_none() {
        // Nobody holds it, and nobody is charged for it.
        instance.spec.devices.retain(|one| one.id != device);
    } else {
        let mut pieces = instance.placement.iter().flat_map(|placement| &placement.devices);
        let is_gpu = request.wanted.is_gpu() || pieces.any(|piece| piece.id == device && piece.kind == Kind::Gpu);
        needs_stop(&instance, is_gpu, "a guest does not let go of a GPU while it runs")?;
    }
    let operation = change(tx, call, &mut instance, Verb::Detach, device.to_owned()).await?;
    Ok((operation, instance))
}

/// Those that were to leave and of which the host says, knowing so, that they have left: claim, charge and request leave in this
/// commit.
pub(super) async fn release(tx: &mut Tx, instance: &mut Instance, seen: &Released<'_>) -> Result<bool> {
    let left =
        |(id, since): (&String, &i64)| (seen.generation >= *since && seen.devices.contains(id)).then(|| id.clone());
    let left: Vec<String> = instance.intent.detaching.iter().filter_map(left).collect();
    if left.is_empty() {
        return Ok(false);
    }
    let uid: InstanceUid = instance.uid;
    for id in &left {
        if let Some(placement) = &mut instance.placement {
            let (gone, kept) = placement.devices.drain(..).partition(|one| one.id == *id);
            placement.devices = kept;
            let gone: Vec<Assignment> = gone;
            claimed::shrink(&mut tx.conn, uid, &placement.host, id).await?;
            charged::give_back(&mut tx.conn, uid, &instance.tenant, &gone).await?;
        }
        instance.spec.devices.retain(|one| one.id != *id);
        instance.intent.detaching.remove(id);
        let message = format!("`{id}` has left; its claim and charge are given back");
        tx.event(Some(&instance.tenant), &instance.name(), reason::DEVICE_DETACHED, &message, Severity::Info);
    }
    // The host is told anew, without them.
    instance.meta.generation += 1;
    instance.meta.update_time = tx.now;
    super::write_spec(&mut tx.conn, instance).await?;
    Ok(true)
}

/// What a host says has left.
#[derive(Debug)]
pub(super) struct Released<'a> {
    pub generation: i64,
    pub devices: &'a [String],
}
