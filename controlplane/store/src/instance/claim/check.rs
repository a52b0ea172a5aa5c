//! One request after the other, each against what the earlier ones left. Pure: nothing is read or written here.

use std::collections::{BTreeMap, HashMap};

use croft_core::cluster::Cluster;
use croft_core::id::{HostId, InstanceUid, OperationUid, TenantId};
use croft_core::image::Image;
use croft_core::instance::machine::{self, Verdict as Machine};
use croft_core::instance::{Instance, Intent, Power, Spec, State, Status, seed};
use croft_core::join::machine::{Node, Phase as NodePhase, tell_power};
use croft_core::join::node;
use croft_core::meta::Meta;
use croft_core::operation::{Operation, Verb};
use croft_core::placement::Placement;
use croft_core::ports::NewInstance;
use croft_core::quota::{Charges, Quota, admit, device};
use croft_core::{Error, Reason, Result, Timestamp, host, network};

use super::ClaimRequest;
use super::known::{Key, Known, key};
use crate::call::same;
use crate::host::claimed::Taken;
use crate::operation;
use crate::quota::Amounts;

pub(super) enum Verdict {
    /// Index into what was admitted.
    Admitted(usize),
    /// Was only to be checked.
    Would(Box<Admission>),
    Refused(Error),
    Stale,
    /// Its answer, from the time when the call was made first.
    Replay(String),
    /// As that request of this batch.
    Same(usize),
}

/// One that is to be written.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    /// Index of its request.
    pub at: usize,
    pub instance: Instance,
    pub operation: Operation,
    pub taken: Taken,
    pub charges: Charges,
    pub seed: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Admitted {
    pub all: Vec<Admission>,
    /// What they take of quotas, ancestors' too.
    pub amounts: Amounts,
    /// Of the hosts that they go to.
    pub versions: BTreeMap<HostId, i64>,
}

pub(super) struct Batch {
    known: Known,
    now: Timestamp,
    admitted: Admitted,
    /// The version that the first claim on a host saw.
    seen: HashMap<HostId, i64>,
    /// Calls of this batch: digest and index.
    calls: HashMap<Key, (String, usize)>,
    next: usize,
}

impl Batch {
    pub fn new(known: Known, now: Timestamp) -> Self {
        Self { known, now, admitted: Admitted::default(), seen: HashMap::new(), calls: HashMap::new(), next: 0 }
    }

    pub fn into_admitted(self) -> Admitted {
        self.admitted
    }

    pub fn check(&mut self, request: &ClaimRequest) -> Verdict {
        let at = self.next;
        self.next += 1;
        if let Ok((placement, _, version)) = &request.placed {
            self.seen.entry(placement.host.clone()).or_insert(*version);
        }
        match self.repeats(request, at) {
            Ok(None) => {}
            Ok(Some(verdict)) => return verdict,
            Err(error) => return Verdict::Refused(error),
        }
        match self.admission(request, at) {
            Ok(Some(admission)) if request.call.validate_only => Verdict::Would(Box::new(admission)),
            Ok(Some(admission)) => self.accept(admission),
            Ok(None) => Verdict::Stale,
            Err(error) => Verdict::Refused(error),
        }
    }

    fn repeats(&mut self, request: &ClaimRequest, at: usize) -> Result<Option<Verdict>> {
        let Some(key) = key(request) else { return Ok(None) };
        if let Some((digest, answer)) = self.known.calls.get(&key) {
            same(&request.call, digest)?;
            return Ok(Some(Verdict::Replay(answer.clone())));
        }
        if let Some((digest, first)) = self.calls.get(&key) {
            same(&request.call, digest)?;
            return Ok(Some(Verdict::Same(*first)));
        }
        if !request.call.validate_only {
            self.calls.insert(key, (hex::encode(request.call.body_digest), at));
        }
        Ok(None)
    }

    /// `None`: the host, or a pool, has moved on.
    fn admission(&self, request: &ClaimRequest, at: usize) -> Result<Option<Admission>> {
        let new = &request.new;
        let Some(lineage) = self.known.lineages.get(&new.tenant) else {
            return Err(Error::not_found(format!("tenants/{}", new.tenant)));
        };
        if self.known.taken.contains(&(new.tenant.clone(), new.id.clone())) {
            return Err(Error::AlreadyExists { name: format!("tenants/{}/instances/{}", new.tenant, new.id) });
        }
        let image = self.image(&new.spec, lineage)?;
        check_size(&new.spec, image)?;
        self.check_networks(&new.tenant, &new.spec, lineage)?;
        let cluster = self.cluster(new)?;
        let mut charges = new.spec.charges();
        admit(&self.rows(lineage, &charges), &charges)?;
        let (placement, claim, _) = match &request.placed {
            Ok(placed) => placed,
            Err(error) => return Err(error.clone()),
        };
        let clash = claim.dedicated.iter().any(|cpu| self.known.dedicated.contains(&(placement.host.clone(), *cpu)));
        let clash = clash || !self.known.holdings.fit(&placement.host, &claim.devices);
        let clash = clash || !self.known.pools.hold(&placement.host, &placement.devices);
        if clash || self.known.versions.get(&placement.host) != self.seen.get(&placement.host) {
            return Ok(None);
        }
        let devices = self.device_charges(&new.tenant, lineage, &new.spec, placement)?;
        charges.extend(devices);
        let (instance, seed) = self.instance(request, image, cluster, placement);
        let taken = Taken { uid: instance.uid, host: placement.host.clone(), claim: claim.clone() };
        let operation = self.operation(request, &instance);
        Ok(Some(Admission { at, instance, operation, taken, charges, seed }))
    }

    /// Of the exact pieces: what they are is known only now.
    fn device_charges(
        &self,
        tenant: &TenantId,
        lineage: &[TenantId],
        spec: &Spec,
        placement: &Placement,
    ) -> Result<Charges> {
        if !placement.devices.iter().map(|one| &one.id).eq(spec.devices.iter().map(|request| &request.id)) {
            return Err(Error::internal("a placement with other devices than were asked for"));
        }
        let charges = device::total(&placement.devices);
        let rows = self.rows(lineage, &charges);
        device::granted(&rows, tenant, &placement.devices)?;
        admit(&rows, &charges)?;
        Ok(charges)
    }

    fn image(&self, spec: &Spec, lineage: &[TenantId]) -> Result<&Image> {
        let visible = |image: &&Image| image.tenant.as_ref().is_none_or(|owner| lineage.contains(owner));
        self.known.images.get(&spec.image).filter(visible).ok_or_else(|| {
            Error::invalid(
                "instance.spec.image",
                format!("`{}` does not exist; `croft image list` shows those that do", spec.image),
            )
        })
    }

    fn check_networks(&self, tenant: &TenantId, spec: &Spec, lineage: &[TenantId]) -> Result<()> {
        for (at, interface) in spec.interfaces.iter().enumerate() {
            let id = &interface.network;
            if id.as_str() == network::DEFAULT {
                continue;
            }
            let Some(network) = self.known.networks.get(id) else {
                let field = format!("instance.spec.interfaces[{at}].network");
                return Err(Error::invalid(field, format!("networks/{id} does not exist")));
            };
            if !network.granted_tenants.iter().any(|granted| lineage.contains(granted)) {
                let message =
                    format!("{} is not granted to tenants/{tenant}; an operator can grant it", network.name());
                return Err(Error::precondition(Reason::NetworkNotGranted, network.name(), message));
            }
        }
        Ok(())
    }

    /// The one that it is to join; `None`: none.
    fn cluster(&self, new: &NewInstance) -> Result<Option<&Cluster>> {
        let Some(wish) = &new.spec.node else { return Ok(None) };
        let found = self.known.clusters.get(&(new.tenant.clone(), wish.cluster.clone()));
        match found.ok_or_else(|| Error::internal("a cluster that was not looked up"))? {
            Ok(cluster) => Ok(Some(cluster)),
            Err(_) => Err(Error::invalid(
                "instance.spec.node.cluster",
                format!("`{}` does not exist; `croft cluster list` shows those that do", wish.cluster),
            )),
        }
    }

    /// The limits on the way to the root, with what this batch took already.
    fn rows(&self, lineage: &[TenantId], charges: &Charges) -> Vec<Quota> {
        lineage
            .iter()
            .flat_map(|tenant| charges.keys().map(move |resource| (tenant.clone(), resource.clone())))
            .filter_map(|key| {
                let row = self.known.quotas.get(&key)?;
                let more = self.admitted.amounts.get(&key).copied().unwrap_or(0);
                Some(Quota { used: row.used + more, ..row.clone() })
            })
            .collect()
    }

    fn instance(
        &self,
        request: &ClaimRequest,
        image: &Image,
        cluster: Option<&Cluster>,
        placement: &Placement,
    ) -> (Instance, Vec<u8>) {
        let new = &request.new;
        let uid = InstanceUid::new(self.now);
        let mut spec = new.spec.clone();
        spec.image_uid = image.uid;
        if let (Some(wish), Some(cluster)) = (&mut spec.node, cluster) {
            wish.cluster_uid.clone_from(&cluster.meta.uid);
        }
        spec.cloud_init.user_data_digest = match new.user_data.as_str() {
            "" => String::new(),
            text => seed::digest(text.as_bytes()),
        };
        let (seed, seed_digest) = seed::Seed::compose(uid, &new.id, &spec.cloud_init, &new.user_data).encode();
        let mut instance = Instance {
            uid,
            tenant: new.tenant.clone(),
            id: new.id.clone(),
            meta: Meta::new(uid.to_string(), new.labels.clone(), new.annotations.clone(), self.now),
            spec,
            intent: Intent { seed_digest, ..Intent::first(new.power, new.restart, new.stop_timeout) },
            placement: Some(placement.clone()),
            node: cluster.map(|_| Node::new(node::name(&new.id, uid), first_phase(new.power), self.now)),
            status: Status::first(State::Pending, self.now),
        };
        tell_power(&mut instance);
        // In the words that the next look at it would use.
        if let Machine::Is(named) = machine::settle(&instance, Some(host::State::Ready), &[]).verdict {
            instance.status.message = named.message;
        }
        (instance, seed)
    }

    fn operation(&self, request: &ClaimRequest, instance: &Instance) -> Operation {
        Operation {
            uid: OperationUid::new(self.now),
            tenant: instance.tenant.clone(),
            target: instance.name(),
            target_uid: instance.uid,
            verb: Verb::Create,
            counter: instance.intent.power_generation,
            subject: String::new(),
            actor: request.call.principal.actor(),
            labels: instance.meta.labels.clone(),
            annotations: instance.meta.annotations.clone(),
            create_time: self.now,
            progress: operation::waiting(instance.status.state, &instance.status.message),
            done: false,
            failure: None,
            end_time: None,
        }
    }

    fn accept(&mut self, admission: Admission) -> Verdict {
        let Instance { tenant, id, .. } = &admission.instance;
        for above in self.known.lineages.get(tenant).into_iter().flatten() {
            for (resource, amount) in &admission.charges {
                *self.admitted.amounts.entry((above.clone(), resource.clone())).or_default() += amount;
            }
        }
        self.known.taken.insert((tenant.clone(), id.clone()));
        let host = &admission.taken.host;
        self.known.dedicated.extend(admission.taken.claim.dedicated.iter().map(|cpu| (host.clone(), *cpu)));
        self.known.holdings.take(host, &admission.taken.claim.devices);
        if let Some(version) = self.known.versions.get(host) {
            self.admitted.versions.insert(host.clone(), *version);
        }
        self.admitted.all.push(admission);
        Verdict::Admitted(self.admitted.all.len() - 1)
    }
}

/// What is not to run has nothing to join with.
fn first_phase(power: Power) -> NodePhase {
    match power {
        Power::Running => NodePhase::Waiting,
        Power::Stopped => NodePhase::Left,
    }
}

fn check_size(spec: &Spec, image: &Image) -> Result<()> {
    let least = image.min_disk_gib();
    match spec.disks.first() {
        Some(disk) if disk.size_gib < least => Err(Error::invalid(
            "instance.spec.disks[0].size_gib",
            format!("{} needs at least {least} GiB, not {}", image.name(), disk.size_gib),
        )),
        _ => Ok(()),
    }
}
