//! The placer: one actor that decides in memory and commits in batches.
//!
//! A batch is what arrived while the last commit was in flight. Against other replicas it is optimistic: a host that
//! moved meanwhile answers *stale*, and those requests are placed again on what is true now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use croft_core::audit::Call;
use croft_core::device;
use croft_core::id::{HostId, InstanceUid, TenantId};
use croft_core::placement::view::Claim;
use croft_core::placement::{self, HostView, Placement, Request, Verdict};
use croft_core::ports::{Admitted, NewInstance};
use croft_core::{Error, Reason, Result};
use croft_store::{ClaimAnswer, ClaimRequest, PlaceAnswer, Store};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::dirty::Dirty;
use crate::hooks::Hooks;

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
    /// One whose host was fenced.
    Again(InstanceUid),
    Explain(Question),
}

/// Where would this go?
#[derive(Debug)]
struct Question {
    request: Box<Request>,
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
        let _ = attach;
        Err(stopping())
    }

    pub async fn explain(&self, new: NewInstance) -> Result<Vec<Verdict>> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Explain(Question { request: Box::new(Request::from(&new.spec)), answer });
        self.jobs.send(job).map_err(|_| stopping())?;
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

/// The hosts as last seen, less what this actor has placed since.
#[derive(Debug, Default)]
struct Fleet {
    hosts: BTreeMap<HostId, HostView>,
}

impl Fleet {
    /// Reads again what moved.
    async fn refresh(&mut self, store: &Store) -> Result<()> {
        let versions: BTreeMap<HostId, i64> = store.host_versions().await?.into_iter().collect();
        self.hosts.retain(|id, _| versions.contains_key(id));
        let moved: Vec<&HostId> = versions
            .iter()
            .filter(|(id, version)| self.hosts.get(id).map(|view| view.version) != Some(**version))
            .map(|(id, _)| id)
            .collect();
        if moved.len() > versions.len() / 2 {
            self.hosts = store.host_views().await?.into_iter().map(|view| (view.id.clone(), view)).collect();
            return Ok(());
        }
        for id in moved {
            match store.host_view(id).await? {
                Some(view) => self.hosts.insert(id.clone(), view),
                None => self.hosts.remove(id),
            };
        }
        Ok(())
    }

    /// Where it goes, what it takes there, and the version that this rests on.
    fn place(&self, request: &Request) -> Result<(Placement, Claim, i64)> {
        let placement = placement::place(self.hosts.values(), request)?;
        let view =
            self.hosts.get(&placement.host).ok_or_else(|| Error::internal("placed on a host that is not there"))?;
        let claim = view.claim(request, &placement);
        Ok((placement, claim, view.version))
    }
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
            for job in jobs.drain(..) {
                match job {
                    Job::Create(create) => creates.push(*create),
                    Job::Again(uid) => drop(again.insert(uid)),
                    Job::Explain(question) => questions.push(question),
                }
            }
            self.explain(questions).await;
            self.create(creates).await;
            for uid in again {
                if let Err(error) = self.place_again(uid).await {
                    tracing::info!(%uid, %error, "not placed now; tried again when hosts change");
                }
            }
        }
    }

    async fn explain(&mut self, questions: Vec<Question>) {
        if questions.is_empty() {
            return;
        }
        let fresh = self.fleet.refresh(&self.store).await;
        let hosts: Vec<HostView> = self.fleet.hosts.values().cloned().collect();
        for Question { request, answer } in questions {
            // Who asked may have gone; then nobody misses the answer.
            let _ = answer.send(fresh.clone().map(|()| placement::explain(&hosts, &request)));
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
            let message = "the hosts change faster than this can be placed; try again".to_owned();
            let _ = create.answer.send(Err(Error::Unavailable { reason: Reason::Unavailable, message }));
        }
    }

    /// Places and commits all of them; returns those that must be placed again.
    async fn round(&mut self, waiting: Vec<Create>) -> Vec<Create> {
        if let Err(error) = self.fleet.refresh(&self.store).await {
            refuse_all(waiting, &error);
            return Vec::new();
        }
        let requests: Vec<ClaimRequest> = waiting.iter().map(|create| self.decide(create)).collect();
        let hosts: Vec<Option<HostId>> = requests
            .iter()
            .map(|request| request.placed.as_ref().ok().map(|(placement, ..)| placement.host.clone()))
            .collect();
        let batch = requests.len();
        let answers = match self.store.instance_claim(requests).await {
            Ok(answers) => answers,
            Err(error) => {
                self.fleet.hosts.clear();
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
                ClaimAnswer::Refused(error) => drop(create.answer.send(Err(error))),
            }
        }
        // What is in memory of these hosts mixes what was committed with what was not: they are read again.
        for host in touched {
            self.fleet.hosts.remove(&host);
        }
        again
    }

    fn decide(&mut self, create: &Create) -> ClaimRequest {
        let request = Request::from(&create.new.spec);
        let placed = self.fleet.place(&request);
        if let (Ok((placement, claim, _)), false) = (&placed, create.call.validate_only)
            && let Some(view) = self.fleet.hosts.get_mut(&placement.host)
        {
            view.take(claim);
        }
        ClaimRequest { call: create.call.clone(), new: create.new.clone(), placed }
    }

    /// One whose host was fenced: its charges are kept, it needs a host.
    async fn place_again(&mut self, uid: InstanceUid) -> Result<()> {
        for _ in 0..ROUNDS {
            let Some(instance) = self.store.instance_by_uid(uid).await? else {
                return Ok(());
            };
            if instance.placement.is_some() {
                return Ok(());
            }
            self.fleet.refresh(&self.store).await?;
            let (placement, claim, version) = self.fleet.place(&Request::from(&instance.spec))?;
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
        Err(stopping())
    }
}

fn refuse_all(waiting: Vec<Create>, error: &Error) {
    for create in waiting {
        let _ = create.answer.send(Err(error.clone()));
    }
}
