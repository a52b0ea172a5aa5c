//! A Kubernetes cluster in memory, and the kubelets of the guests that join it. It keeps what it is told, refuses what the
//! shipped policies refuse, and outlives a plane that is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use croft_core::join::cluster::{
    Access, Anchor, Answer, BadAccess, BootstrapToken, Change, Eviction, Fault, Node, NodeEvent, Pod, Policies, Probe,
    Ready, Signing, Stage,
};
use croft_core::join::csr::{BOOTSTRAP_GROUP, CLIENT_SIGNER, Request, Subject};
use croft_core::join::node::Taint;
use croft_core::join::ports::{Asked, Cluster, Clusters};
use croft_core::time::SystemClock;
use croft_core::{Clock as _, Timestamp};
use tokio::sync::watch;

const YEAR_2100: Timestamp = Timestamp(4_102_444_800_000_000);

/// Where a verb is cut off, by the place it has among those that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Before(usize),
    After(usize),
}

#[derive(Debug, Clone)]
pub struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    anchor: Anchor,
    state: Mutex<State>,
    /// A verb hangs where it was to be cut off.
    cut: watch::Sender<bool>,
}

#[derive(Debug, Default)]
pub struct State {
    pub tokens: BTreeMap<String, BootstrapToken>,
    pub signings: BTreeMap<String, Signing>,
    pub nodes: BTreeMap<String, Node>,
    /// Of each node.
    pub pods: BTreeMap<String, Vec<Pod>>,
    /// The providerID of each node. `None`: nobody has written it, so no node registers.
    pub roster: Option<BTreeMap<String, String>>,
    /// Nothing answers.
    pub away: bool,
    /// It answers, and does not do these.
    pub refuses: BTreeSet<&'static str>,
    /// A finalizer is on every node.
    pub keeps_nodes: bool,
    /// A budget lets no pod go.
    pub blocked: bool,
    /// Kubelets stay away.
    pub no_kubelets: bool,
    /// Of nodes; the same one is kept once.
    pub events: Vec<NodeEvent>,
    /// Registrations that the policy refused.
    pub refused: usize,
    /// How often somebody asked for all nodes.
    pub looks: usize,
    changes: usize,
    cut_at: Option<Cut>,
    made: u64,
}

impl Default for Memory {
    fn default() -> Self {
        let anchor = Anchor {
            server: "https://cluster.example:6443".to_owned(),
            ca: "-----BEGIN CERTIFICATE-----\n".to_owned(),
            ca_pins: vec!["sha256:00".to_owned()],
        };
        Self(Arc::new(Inner { anchor, state: Mutex::default(), cut: watch::Sender::new(false) }))
    }
}

impl Memory {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the next change on.
    pub fn cut(&self, at: Cut) {
        let mut state = self.state();
        (state.changes, state.cut_at) = (0, Some(at));
        self.0.cut.send_replace(false);
    }

    pub fn mend(&self) {
        self.state().cut_at = None;
        self.0.cut.send_replace(false);
    }

    /// What was to be cut off has not come yet.
    pub fn is_pending(&self) -> bool {
        self.state().cut_at.is_some()
    }

    pub fn is_cut(&self) -> bool {
        *self.0.cut.borrow()
    }

    fn ask<T>(&self, answer: impl FnOnce(&mut State) -> T) -> Result<T, Fault> {
        let mut state = self.state();
        if state.away {
            let why = "connection refused".to_owned();
            return Err(Fault::Unreachable { server: self.0.anchor.server.clone(), why });
        }
        Ok(answer(&mut state))
    }

    async fn change<T>(
        &self,
        verb: &'static str,
        change: impl FnOnce(&mut State) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let refused = self.ask(|state| state.refuses.contains(verb))?;
        if refused {
            let (server, why) = (self.0.anchor.server.clone(), "the story says no".to_owned());
            return Err(Fault::Refused { server, doing: verb.to_owned(), why });
        }
        let cut = self.ask(|state| {
            state.changes += 1;
            let nth = state.changes;
            state.cut_at.filter(|at| [Cut::Before(nth), Cut::After(nth)].contains(at))
        })?;
        if let Some(Cut::Before(_)) = cut {
            self.hang().await;
        }
        let answer = self.ask(change)?;
        if let Some(Cut::After(_)) = cut {
            self.hang().await;
        }
        answer
    }

    async fn hang(&self) {
        self.0.cut.send_replace(true);
        std::future::pending::<()>().await;
    }

    fn gone(&self, what: &str) -> Fault {
        Fault::NotFound { server: self.0.anchor.server.clone(), what: what.to_owned() }
    }

    /// What a guest's kubelet does now, by what lies on its seed's volume. `certificate`: it has one of its own.
    pub fn kubelet(&self, node: &str, provider_id: &str, ticket: Option<&Ticket>, certificate: &mut bool) {
        let mut state = self.state();
        if state.no_kubelets {
            return;
        }
        if !*certificate {
            let Some(ticket) = ticket else { return };
            let known = state.tokens.get(&ticket.id).is_some_and(|token| token.secret == ticket.secret);
            *certificate = known && state.certificate(node, &ticket.id);
            return;
        }
        let listed = state.roster.as_ref().and_then(|roster| roster.get(node)).is_some_and(|id| id == provider_id);
        match state.nodes.get_mut(node) {
            Some(there) => there.ready = Ready::Yes,
            None if listed => {
                let fresh = state.node(node, provider_id, ticket);
                state.nodes.insert(node.to_owned(), fresh);
            }
            None => state.refused += 1,
        }
        // It ends what was told to go.
        if let Some(pods) = state.pods.get_mut(node) {
            pods.retain(|pod| !pod.ending);
        }
    }

    /// Nothing of any node of Croft's.
    pub fn left(&self) -> Result<(), String> {
        let state = self.state();
        let roster = state.roster.clone().unwrap_or_default();
        if state.tokens.is_empty() && state.nodes.is_empty() && state.signings.is_empty() && roster.is_empty() {
            return Ok(());
        }
        Err(format!(
            "tokens {:?}, nodes {:?}, requests {:?}, roster {roster:?}",
            state.tokens.keys(),
            state.nodes.keys(),
            state.signings.keys()
        ))
    }
}

/// Of a seed's volume, as the guest's program reads it.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub id: String,
    pub secret: String,
    pub taints: Vec<Taint>,
}

impl State {
    /// Asks for one, or looks what became of it.
    fn certificate(&mut self, node: &str, token: &str) -> bool {
        let username = format!("system:bootstrap:{token}");
        let name = format!("system:node:{node}");
        let mine = |signing: &&Signing| {
            let subject = signing.request.subject.as_ref();
            signing.request.username == username && subject.is_some_and(|subject| subject.common_names.contains(&name))
        };
        let stages: Vec<Stage> = self.signings.values().filter(mine).map(|signing| signing.stage).collect();
        if stages.contains(&Stage::Issued) {
            return true;
        }
        if !stages.contains(&Stage::Open) && !stages.contains(&Stage::Approved) {
            self.send(&username, &[BOOTSTRAP_GROUP, "system:authenticated"], node);
        }
        false
    }

    /// A request for a client certificate, by whoever.
    pub fn send(&mut self, username: &str, groups: &[&str], node: &str) -> String {
        self.made += 1;
        let name = format!("csr-{}", self.made);
        let subject = Subject {
            common_names: vec![format!("system:node:{node}")],
            organizations: vec!["system:nodes".to_owned()],
            ..Subject::default()
        };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let signing = Signing {
            name: name.clone(),
            uid: name.clone(),
            resource_version: "1".to_owned(),
            created: Some(SystemClock.now()),
            stage: Stage::Open,
            request: Request {
                signer: CLIENT_SIGNER.to_owned(),
                username: username.to_owned(),
                groups: words(groups),
                usages: words(&["digital signature", "client auth"]),
                subject: Some(subject),
            },
        };
        self.signings.insert(name.clone(), signing);
        name
    }

    fn node(&mut self, name: &str, provider_id: &str, ticket: Option<&Ticket>) -> Node {
        self.made += 1;
        Node {
            name: name.to_owned(),
            uid: format!("node-{}", self.made),
            provider_id: Some(provider_id.to_owned()),
            ready: Ready::No(String::new()),
            cordoned: false,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            taints: ticket.map(|ticket| ticket.taints.clone()).unwrap_or_default(),
            addresses: BTreeSet::new(),
            capacity: BTreeMap::new(),
            allocatable: BTreeMap::new(),
        }
    }

    fn tell(&mut self, event: &NodeEvent) {
        let known = |there: &NodeEvent| {
            (&there.uid, &there.reason, &there.message) == (&event.uid, &event.reason, &event.message)
        };
        if !self.events.iter().any(known) {
            self.events.push(event.clone());
        }
    }

    pub fn run(&mut self, node: &str, pod: &str) {
        let uid = format!("{node}/{pod}");
        let pod = Pod { namespace: "default".to_owned(), name: pod.to_owned(), uid, ending: false };
        self.pods.entry(node.to_owned()).or_default().push(pod);
    }
}

impl Clusters for Memory {
    fn open(&self, _: &Access) -> Result<Arc<dyn Cluster>, BadAccess> {
        Ok(Arc::new(self.clone()))
    }
}

impl Cluster for Memory {
    fn anchor(&self) -> &Anchor {
        &self.0.anchor
    }

    fn probe(&self) -> Asked<'_, Probe> {
        let probe = self.ask(|_| Probe {
            version: "v1.36.3".to_owned(),
            serving_expires: Some(YEAR_2100),
            ca_expires: None,
            credential_expires: None,
            missing: Vec::new(),
            policies: Policies::Installed,
            certificate_life: None,
            identity: Some("memory".to_owned()),
        });
        Box::pin(async { probe })
    }

    fn token_ensure<'a>(&'a self, token: &'a BootstrapToken) -> Asked<'a, ()> {
        assert!(token.is_well_formed());
        Box::pin(self.change("token_ensure", |state| {
            state.tokens.insert(token.id.clone(), token.clone());
            Ok(())
        }))
    }

    fn token_exists<'a>(&'a self, id: &'a str) -> Asked<'a, bool> {
        Box::pin(async { self.ask(|state| state.tokens.contains_key(id)) })
    }

    fn token_delete<'a>(&'a self, id: &'a str) -> Asked<'a, ()> {
        Box::pin(self.change("token_delete", |state| {
            state.tokens.remove(id);
            Ok(())
        }))
    }

    fn signings(&self) -> Asked<'_, Vec<Signing>> {
        Box::pin(async { self.ask(|state| state.signings.values().cloned().collect()) })
    }

    fn signing_answer<'a>(&'a self, signing: &'a Signing, answer: &'a Answer) -> Asked<'a, ()> {
        Box::pin(self.change("signing_answer", |state| {
            let there = state.signings.get_mut(&signing.name).ok_or_else(|| self.gone("request"))?;
            assert_eq!(there.stage, Stage::Open, "answered twice");
            there.stage = match answer {
                Answer::Approve => Stage::Issued,
                Answer::Deny { .. } => Stage::Denied,
            };
            Ok(())
        }))
    }

    fn signing_delete<'a>(&'a self, signing: &'a Signing) -> Asked<'a, ()> {
        Box::pin(self.change("signing_delete", |state| {
            state.signings.remove(&signing.name);
            Ok(())
        }))
    }

    fn nodes(&self) -> Asked<'_, Vec<Node>> {
        Box::pin(async {
            self.ask(|state| {
                state.looks += 1;
                state.nodes.values().cloned().collect()
            })
        })
    }

    fn node<'a>(&'a self, name: &'a str) -> Asked<'a, Option<Node>> {
        Box::pin(async move { self.ask(|state| state.nodes.get(name).cloned()) })
    }

    fn node_change<'a>(&'a self, name: &'a str, uid: &'a str, change: &'a Change) -> Asked<'a, ()> {
        Box::pin(self.change("node_change", move |state| {
            let node = state.nodes.get_mut(name).filter(|node| node.uid == uid).ok_or_else(|| self.gone("node"))?;
            node.labels.extend(change.labels.clone());
            node.annotations.extend(change.annotations.clone());
            node.taints.retain(|taint| !change.shed.contains(&taint.key) && !change.taints.contains(taint));
            node.taints.extend(change.taints.clone());
            node.cordoned = change.cordoned.unwrap_or(node.cordoned);
            Ok(())
        }))
    }

    fn node_delete<'a>(&'a self, name: &'a str, uid: &'a str) -> Asked<'a, ()> {
        Box::pin(self.change("node_delete", move |state| {
            let listed = state.roster.as_ref().is_some_and(|roster| roster.contains_key(name));
            assert!(!listed, "its kubelet could make {name} again");
            if !state.keeps_nodes && state.nodes.get(name).is_some_and(|node| node.uid == uid) {
                state.nodes.remove(name);
                state.pods.remove(name);
            }
            Ok(())
        }))
    }

    fn node_event<'a>(&'a self, event: &'a NodeEvent) -> Asked<'a, ()> {
        Box::pin(async { self.ask(|state| state.tell(event)) })
    }

    fn pods<'a>(&'a self, node: &'a str) -> Asked<'a, Vec<Pod>> {
        Box::pin(async move { self.ask(|state| state.pods.get(node).cloned().unwrap_or_default()) })
    }

    fn evict<'a>(&'a self, pod: &'a Pod) -> Asked<'a, Eviction> {
        Box::pin(self.change("evict", |state| {
            if state.blocked {
                let message = "The disruption budget db needs 1 healthy pods and has 1 currently".to_owned();
                return Ok(Eviction::Blocked { budget: "db".to_owned(), message });
            }
            let there = state.pods.values_mut().flatten().find(|there| there.uid == pod.uid);
            Ok(there.map_or(Eviction::Gone, |there| {
                there.ending = true;
                Eviction::Evicted
            }))
        }))
    }

    fn roster_publish<'a>(&'a self, nodes: &'a BTreeMap<String, String>) -> Asked<'a, ()> {
        Box::pin(self.change("roster_publish", |state| {
            state.roster = Some(nodes.clone());
            Ok(())
        }))
    }

    fn policies_install(&self) -> Asked<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
