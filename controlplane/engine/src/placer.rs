//! The placer: one actor that decides in memory and commits in batches.
//!
//! A batch is what arrived while the last commit was in flight. Against other replicas it is optimistic: a host that
//! moved meanwhile answers *stale*, and those requests are placed again on what is true now.

use std::collections::BTreeSet;
use std::sync::Arc;

use croft_core::audit::Call;
use croft_core::device::{self, Paths};
use croft_core::id::{HostId, InstanceUid, TenantId};
use croft_core::instance::Instance;
use croft_core::placement::device::{Catalogue, Wishes};
use croft_core::placement::view::Claim;
use croft_core::placement::{self, Placement, Request, Verdict};
use croft_core::ports::{Admitted, NewInstance};
use croft_core::{Error, Reason, Result};
use croft_store::{AttachAnswer, AttachRequest, ClaimAnswer, ClaimRequest, Extension, PlaceAnswer, Store};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::dirty::Dirty;
use crate::fleet::Fleet;
use crate::hooks::Hooks;
use crate::rights::Rights;

const BATCH: usize = 256;
/// A fleet that changes under every look at it is overloaded, not slow.
const ROUNDS: usize = 16;

#[derive(Debug, Clone)]
pub struct Placer {
    jobs: mpsc::UnboundedSender<Job>,
}

#[derive(Debug)]
enum Job {
    Create(Box<Create>),
    Attach(Box<Attach>, oneshot::Sender<Result<Admitted>>),
    /// One without a host: it was fenced, or left.
    Again(InstanceUid),
    /// Would another host than its own take it?
    Elsewhere(Box<Instance>, oneshot::Sender<Result<()>>),
    Explain(Question),
}

/// Where would this go?
#[derive(Debug)]
struct Question {
    new: Box<NewInstance>,
    answer: oneshot::Sender<Result<Vec<Verdict>>>,
}

#[derive(Debug)]
struct Create {
    call: Call,
    new: NewInstance,
    arrived: Instant,
    answer: oneshot::Sender<Result<Admitted>>,
}

/// One device more for an instance that exists.
#[derive(Debug, Clone)]
pub struct Attach {
    pub call: Call,
    pub tenant: TenantId,
    pub id: String,
    pub etag: String,
    pub device: device::Request,
}

impl Placer {
    /// The handle, and the actor to spawn.
    pub fn new(store: Store, hooks: Hooks, dirty: Arc<Dirty>) -> (Self, impl Future<Output = ()> + Send) {
        // Unbounded, but every job is a call that waits for its answer: gRPC bounds those.
        let (jobs, inbox) = mpsc::unbounded_channel();
        let actor = Actor { store, hooks, dirty, fleet: Fleet::default() };
        (Self { jobs }, actor.run(inbox))
    }

    pub async fn create(&self, call: Call, new: NewInstance) -> Result<Admitted> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Create(Box::new(Create { call, new, arrived: Instant::now(), answer }));
        self.jobs.send(job).map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    pub async fn attach(&self, attach: Attach) -> Result<Admitted> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::Attach(Box::new(attach), answer)).map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    pub async fn explain(&self, new: NewInstance) -> Result<Vec<Verdict>> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Explain(Question { new: Box::new(new), answer });
        self.jobs.send(job).map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    /// Whether another host takes it, when its own has given back what it holds there. Claims nothing.
    pub async fn room_elsewhere(&self, instance: Instance) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::Elsewhere(Box::new(instance), answer)).map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    /// Returns at once; the reconciler asks again while it is needed.
    pub fn place_again(&self, uid: InstanceUid) {
        // A closed inbox means that the engine stops: the next start looks at everything.
        let _ = self.jobs.send(Job::Again(uid));
    }
}

fn stopping() -> Error {
    Error::Unavailable { reason: Reason::Unavailable, message: "the control plane is stopping; try again".to_owned() }
}

#[derive(Debug)]
struct Actor {
    store: Store,
    hooks: Hooks,
    dirty: Arc<Dirty>,
    fleet: Fleet,
}

impl Actor {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Job>) {
        let mut jobs = Vec::new();
        while inbox.recv_many(&mut jobs, BATCH).await > 0 {
            let (mut creates, mut again, mut questions) = (Vec::new(), BTreeSet::new(), Vec::new());
            let (mut attaches, mut leaving) = (Vec::new(), Vec::new());
            for job in jobs.drain(..) {
                match job {
                    Job::Create(create) => creates.push(*create),
                    Job::Attach(attach, answer) => attaches.push((*attach, answer)),
                    Job::Again(uid) => drop(again.insert(uid)),
                    Job::Elsewhere(instance, answer) => leaving.push((instance, answer)),
                    Job::Explain(question) => questions.push(question),
                }
            }
            self.explain(questions).await;
            self.create(creates).await;
            for (attach, answer) in attaches {
                // Who asked may have gone; then nobody misses the answer.
                let _ = answer.send(self.attach(attach).await);
            }
            for (instance, answer) in leaving {
                let _ = answer.send(self.room_elsewhere(&instance).await);
            }
            for uid in again {
                if let Err(error) = self.place_again(uid).await {
                    self.not_placed(uid, &error).await;
                }
            }
        }
    }

    async fn explain(&mut self, questions: Vec<Question>) {
        if questions.is_empty() {
            return;
        }
        let fresh = self.fleet.refresh(&self.store).await;
        let asking = questions.iter().map(|one| (&one.new.tenant, one.new.spec.devices.as_slice()));
        let rights = Rights::read(&self.store, asking).await;
        let hosts = self.fleet.views();
        let catalogue = self.fleet.catalogue();
        for Question { new, answer } in questions {
            let verdicts = match (&fresh, &rights) {
                (Ok(()), Ok(rights)) => {
                    let request = Request { devices: rights.explained(&new, &catalogue), ..Request::from(&new.spec) };
                    Ok(placement::explain(&hosts, &request))
                }
                (Err(error), _) | (_, Err(error)) => Err(error.clone()),
            };
            // Who asked may have gone; then nobody misses the answer.
            let _ = answer.send(verdicts);
        }
    }

    async fn create(&mut self, mut waiting: Vec<Create>) {
        for _ in 0..ROUNDS {
            if waiting.is_empty() {
                return;
            }
            waiting = self.round(waiting).await;
        }
        for create in waiting {
            let _ = create.answer.send(Err(busy()));
        }
    }

    /// Places and commits all of them; returns those that must be placed again.
    async fn round(&mut self, waiting: Vec<Create>) -> Vec<Create> {
        let requests = match self.decide_all(&waiting).await {
            Ok(requests) => requests,
            Err(error) => {
                refuse_all(waiting, &error);
                return Vec::new();
            }
        };
        let hosts: Vec<Option<HostId>> = requests
            .iter()
            .map(|request| request.placed.as_ref().ok().map(|(placement, ..)| placement.host.clone()))
            .collect();
        let batch = requests.len();
        let answers = match self.store.instance_claim(requests).await {
            Ok(answers) => answers,
            Err(error) => {
                self.fleet.forget_all();
                refuse_all(waiting, &error);
                return Vec::new();
            }
        };
        // Whatever was placed in memory and not committed took room that it does not take.
        let wasted = hosts
            .iter()
            .zip(&answers)
            .any(|(host, answer)| host.is_some() && !matches!(answer, ClaimAnswer::Admitted { .. }));
        let touched: BTreeSet<HostId> = hosts.iter().flatten().cloned().collect();
        let mut again = Vec::new();
        for ((create, host), answer) in waiting.into_iter().zip(hosts).zip(answers) {
            match answer {
                ClaimAnswer::Admitted { operation, instance, .. } => {
                    self.hooks.meter.claimed(create.arrived.elapsed(), batch);
                    self.dirty.add([instance.uid]);
                    if let Some(host) = &host {
                        (self.hooks.host_changed)(host);
                    }
                    let _ = create.answer.send(Ok(Admitted { operation, instance }));
                }
                ClaimAnswer::Stale => again.push(create),
                ClaimAnswer::Refused(Error::NoCapacity { .. }) if wasted => again.push(create),
                ClaimAnswer::Refused(Error::QuotaExceeded(_)) if wasted && !create.new.spec.devices.is_empty() => {
                    again.push(create);
                }
                ClaimAnswer::Refused(error) => drop(create.answer.send(Err(error))),
            }
        }
        // What is in memory of these hosts mixes what was committed with what was not: they are read again.
        for host in touched {
            self.fleet.forget(&host);
        }
        again
    }

    /// One after the other, each on top of the earlier ones.
    async fn decide_all(&mut self, waiting: &[Create]) -> Result<Vec<ClaimRequest>> {
        self.fleet.refresh(&self.store).await?;
        let asking = waiting.iter().map(|create| (&create.new.tenant, create.new.spec.devices.as_slice()));
        let mut rights = Rights::read(&self.store, asking).await?;
        let any = waiting.iter().any(|create| !create.new.spec.devices.is_empty());
        let catalogue = if any { self.fleet.catalogue() } else { Catalogue::default() };
        Ok(waiting.iter().map(|create| self.decide(create, &mut rights, &catalogue)).collect())
    }

    fn decide(&mut self, create: &Create, rights: &mut Rights, catalogue: &Catalogue) -> ClaimRequest {
        let NewInstance { tenant, spec, device_paths, .. } = &create.new;
        let placed = place(&self.fleet, rights, catalogue, tenant, (&Request::from(spec), device_paths));
        if let (Ok((placement, claim, _)), false) = (&placed, create.call.validate_only) {
            self.fleet.take(&placement.host, claim);
            rights.spend(tenant, &placement.devices);
        }
        ClaimRequest { call: create.call.clone(), new: create.new.clone(), placed }
    }

    async fn attach(&mut self, attach: Attach) -> Result<Admitted> {
        for _ in 0..ROUNDS {
            let placed = self.extend(&attach).await;
            let Attach { call, tenant, id, etag, device } = attach.clone();
            let host = match &placed {
                Ok(Some(extension)) => Some(extension.host.clone()),
                _ => None,
            };
            // Also with a refusal: a retry of what was done before is answered as it was then.
            let request = AttachRequest { call, tenant, id, etag, device, placed };
            let answer = self.store.instance_attach(request).await;
            if let Some(host) = &host {
                self.fleet.forget(host);
            }
            if let AttachAnswer::Attached(done) = answer? {
                let (operation, instance) = done.into_inner();
                self.dirty.add([instance.uid]);
                if let Some(host) = instance.host() {
                    (self.hooks.host_changed)(host);
                }
                return Ok(Admitted { operation, instance });
            }
        }
        Err(busy())
    }

    async fn extend(&mut self, attach: &Attach) -> Result<Option<Extension>> {
        let Attach { tenant, id, device, .. } = attach;
        let Some(instance) = self.store.instance_get(tenant, id).await? else {
            return Err(Error::not_found(format!("tenants/{tenant}/instances/{id}")));
        };
        self.fleet.refresh(&self.store).await?;
        let requests = std::slice::from_ref(device);
        let rights = Rights::read(&self.store, std::iter::once((tenant, requests))).await?;
        let find = |wishes: &Wishes| match &instance.placement {
            Some(placement) => self.fleet.extend(placement, wishes).map(Some),
            // It gets it with its next host.
            None => Ok(None),
        };
        let paths = Paths::new(vec!["device".to_owned()]);
        rights.place(tenant, &self.fleet.catalogue(), (requests, &paths), find, |found| {
            found.as_ref().map_or(&[], |extension| std::slice::from_ref(&extension.assignment))
        })
    }

    async fn room_elsewhere(&mut self, instance: &Instance) -> Result<()> {
        let Some(placement) = &instance.placement else { return Ok(()) };
        self.fleet.refresh(&self.store).await?;
        let (tenant, requests) = (&instance.tenant, instance.spec.devices.as_slice());
        let mut rights = Rights::read(&self.store, std::iter::once((tenant, requests))).await?;
        rights.give_back(tenant, &placement.devices);
        let away_from = Some(placement.host.clone());
        let request = Request { rebuilt: true, away_from, ..Request::from(instance) };
        place(&self.fleet, &rights, &self.fleet.catalogue(), tenant, (&request, &Paths::default())).map(drop)
    }

    /// One without a host: the charges of its shape are kept, it needs another one.
    async fn place_again(&mut self, uid: InstanceUid) -> Result<()> {
        for _ in 0..ROUNDS {
            let Some(instance) = self.store.instance_by_uid(uid).await? else {
                return Ok(());
            };
            if instance.placement.is_some() {
                return Ok(());
            }
            self.fleet.refresh(&self.store).await?;
            let (tenant, spec) = (&instance.tenant, &instance.spec);
            let rights = Rights::read(&self.store, std::iter::once((tenant, spec.devices.as_slice()))).await?;
            let catalogue = self.fleet.catalogue();
            let (placement, claim, version) =
                place(&self.fleet, &rights, &catalogue, tenant, (&Request::from(&instance), &Paths::default()))?;
            let host = placement.host.clone();
            match self.store.instance_place(uid, placement, claim, version).await? {
                PlaceAnswer::Stale => {}
                PlaceAnswer::Unneeded => return Ok(()),
                PlaceAnswer::Placed(_) => {
                    self.dirty.add([uid]);
                    (self.hooks.host_changed)(&host);
                    return Ok(());
                }
            }
        }
        Err(busy())
    }
}

impl Actor {
    /// It is tried again when hosts change; until then its owner can read why.
    async fn not_placed(&self, uid: InstanceUid, error: &Error) {
        tracing::info!(%uid, %error, "not placed now; tried again when hosts change");
        if matches!(error, Error::Internal { .. } | Error::Unavailable { .. }) {
            return;
        }
        if let Err(error) = self.store.instance_unplaced(uid, error).await {
            tracing::warn!(%uid, %error, "cannot write why it is not placed");
        }
    }
}

/// With the pieces of its devices, of models that quota leaves.
fn place(
    fleet: &Fleet,
    rights: &Rights,
    catalogue: &Catalogue,
    tenant: &TenantId,
    (request, paths): (&Request, &Paths),
) -> Result<(Placement, Claim, i64)> {
    let effort = fleet.effort();
    let find = |wishes: &Wishes| fleet.place(&Request { devices: wishes.clone(), ..request.clone() }, &effort);
    rights.place(tenant, catalogue, (&request.devices.requests, paths), find, |(placement, ..)| &placement.devices)
}

fn busy() -> Error {
    let message = "the hosts change faster than this can be placed; try again".to_owned();
    Error::Unavailable { reason: Reason::Unavailable, message }
}

fn refuse_all(waiting: Vec<Create>, error: &Error) {
    for create in waiting {
        let _ = create.answer.send(Err(error.clone()));
    }
}
