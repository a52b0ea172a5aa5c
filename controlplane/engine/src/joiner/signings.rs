//! Requests for certificates: judged against the record of the machine that asks, answered, and cleared away.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use croft_core::instance::Instance;
use croft_core::join::cluster::{Answer, Fault, Signing, Stage};
use croft_core::join::csr::{Asker, BOOTSTRAP_GROUP, Denial, Record, Request, Standing, judge};
use croft_core::join::machine::{Phase, Step};
use croft_store::{Denied, NodeStep};
use futures::future::try_join_all;

use super::pass::{On, is_of_one};
use super::queue::{self, Queue};
use super::task::Task;
use super::{Problem, record};

/// A kubelet watches its request; this is for one that was away.
const ISSUED_FOR: Duration = Duration::from_secs(600);
/// For people who look with kubectl; the audit log has it for longer.
const DENIED_FOR: Duration = Duration::from_secs(60);
/// A kubelet may be quicker than its host's word of the address that it gave out.
const LEASE_WITHIN: Duration = Duration::from_secs(120);
/// While there is more in a cluster than is looked at once.
const LOOKS: usize = 5;
const AT_ONCE: usize = 8;
const WORDS: usize = 300;
const TOO_MANY: &str = "TooManyRequests";

/// Whose a request is.
enum Owner<'a> {
    Of(&'a Instance),
    /// Of a machine that is no more.
    Nobody,
    /// Not for Croft to answer.
    Foreign,
}

/// A request that is not granted.
struct Refused<'a> {
    instance: Option<&'a Instance>,
    signing: Signing,
    denied: Denied,
}

impl Task {
    pub(super) async fn answer_requests(&mut self, on: &On, instances: &[Instance]) -> Result<(), Problem> {
        for _ in 0..LOOKS {
            if !self.answer_some(on, instances).await? {
                break;
            }
        }
        Ok(())
    }

    /// Whether there were so many that others may come into sight now.
    async fn answer_some(&mut self, on: &On, instances: &[Instance]) -> Result<bool, Problem> {
        let signings = on.handle.signings().await?;
        let Queue { answer, surplus, answered, stale: mut gone } = self.queue(on, instances, signings);
        let crowded = !surplus.is_empty();
        let mut answers = Answers::default();
        let mut refused = Vec::new();
        for (instance, signing) in answer {
            let record = record_of(instance);
            match judge(&signing.request, &record) {
                Err(Denial::San(_)) if record.addresses.is_empty() && self.age(&signing) < LEASE_WITHIN => {}
                Ok(()) => answers.of_one(self.approve(on, instance, &signing).await)?,
                Err(denial) => refused.push(refuse(on, instance, signing, denial.reason(), &denial.to_string())),
            }
        }
        let why = "it has sent more requests than any kubelet does; the older ones are deleted without an answer";
        let surplus: Vec<_> =
            surplus.into_iter().map(|(instance, signing)| refuse(on, instance, signing, TOO_MANY, why)).collect();
        for one in refused.iter().chain(&surplus) {
            self.denials.note(&one.signing.uid, one.denied.clone());
        }
        self.write_down().await?;
        for one in refused {
            // In the audit log before the cluster has it: told twice rather than never.
            if !self.denials.owes(&one.denied, self.now()) {
                answers.of_one(self.deny(on, one).await)?;
            }
        }
        for (instance, signing) in answered {
            if self.is_done_with(instance, &signing)? {
                gone.push(signing);
            }
        }
        let now = self.now();
        gone.extend(surplus.into_iter().filter(|one| !self.denials.owes(&one.denied, now)).map(|one| one.signing));
        answers.of_one(delete(on, &gone).await)?;
        answers.0.map_or(Ok(crowded), |fault| Err(fault.into()))
    }

    fn queue<'a>(&mut self, on: &On, instances: &'a [Instance], signings: Vec<Signing>) -> Queue<'a> {
        self.denials.forget(&signings.iter().map(|signing| signing.uid.as_str()).collect(), self.now());
        let there: BTreeSet<String> = on.nodes.keys().cloned().collect();
        let ours = signings.into_iter().filter_map(|signing| match owner(&there, instances, &signing.request) {
            Owner::Of(instance) => Some((Some(instance), signing)),
            Owner::Nobody => Some((None, signing)),
            Owner::Foreign => None,
        });
        queue::plan(ours.collect())
    }

    async fn write_down(&mut self) -> Result<(), Problem> {
        let now = self.now();
        let rows = self.denials.due(now);
        if !rows.is_empty() {
            self.ports.store.join_denied(rows.clone()).await?;
            self.denials.wrote(&rows, now);
        }
        Ok(())
    }

    async fn deny(&self, on: &On, one: Refused<'_>) -> Result<(), Problem> {
        let Refused { instance, signing, denied: Denied { reason, message, .. } } = one;
        let answer = Answer::Deny { reason: reason.to_owned(), message: message.clone() };
        by_us(on.handle.signing_answer(&signing, &answer).await)?;
        match signing.request.asker() {
            Asker::Token(_) => self.came(instance, Step::Denied(message)).await,
            Asker::Node(_) | Asker::Other => Ok(()),
        }
    }

    async fn approve(&self, on: &On, instance: Option<&Instance>, signing: &Signing) -> Result<(), Problem> {
        by_us(on.handle.signing_answer(signing, &Answer::Approve).await)?;
        let name = instance.map(Instance::name).unwrap_or_default();
        tracing::info!(cluster = on.row.name(), instance = name, request = signing.name, "a certificate is granted");
        self.came(instance, Step::Granted).await
    }

    /// How far its kubelet came, while it boots.
    async fn came(&self, instance: Option<&Instance>, step: Step) -> Result<(), Problem> {
        let Some(instance) = instance else { return Ok(()) };
        // Another request of this pass may have said something, too.
        let Some(instance) = self.ports.store.instance_by_uid(instance.uid).await? else { return Ok(()) };
        let node = record(&instance)?;
        if node.phase != Phase::Booting || node.step == step {
            return Ok(());
        }
        let mut after = node.clone();
        after.step = step;
        let step = NodeStep { uid: instance.uid, before: node.clone(), after, seed: None, news: None };
        self.step(step).await?;
        Ok(())
    }

    fn age(&self, signing: &Signing) -> Duration {
        signing.created.map_or(Duration::MAX, |created| self.now().since(created))
    }

    /// Answered ones go when whoever asked has read the answer, or is no more.
    fn is_done_with(&self, instance: Option<&Instance>, signing: &Signing) -> Result<bool, Problem> {
        let gone = match instance {
            Some(instance) => record(instance)?.phase == Phase::Left,
            None => true,
        };
        let age = self.age(signing);
        Ok(gone
            || match signing.stage {
                Stage::Open | Stage::Approved => false,
                Stage::Issued => age >= ISSUED_FOR,
                Stage::Denied | Stage::Failed => age >= DENIED_FOR,
            })
    }
}

/// What the cluster refuses for one request does not keep the others from their answers; it is told at the end.
#[derive(Default)]
struct Answers(Option<Fault>);

impl Answers {
    fn of_one(&mut self, answered: Result<(), Problem>) -> Result<(), Problem> {
        match answered {
            Err(Problem::Cluster(fault)) if is_of_one(&fault) => {
                self.0.get_or_insert(fault);
                Ok(())
            }
            other => other,
        }
    }
}

async fn delete(on: &On, gone: &[Signing]) -> Result<(), Problem> {
    for some in gone.chunks(AT_ONCE) {
        let each: Vec<_> = some.iter().map(|signing| on.handle.signing_delete(signing)).collect();
        try_join_all(each).await?;
    }
    Ok(())
}

/// `there`: the nodes of the cluster.
fn owner<'a>(there: &BTreeSet<String>, instances: &'a [Instance], request: &Request) -> Owner<'a> {
    let node_of = |instance: &&Instance, name: &str| instance.node.as_ref().is_some_and(|node| node.name == name);
    let token_of = |instance: &&Instance, id: &str| {
        instance.node.as_ref().and_then(|node| node.token.as_ref()).is_some_and(|token| token.id == id)
    };
    let found = match request.asker() {
        Asker::Token(id) => instances.iter().find(|instance| token_of(instance, id)),
        Asker::Node(name) => instances.iter().find(|instance| node_of(instance, name)),
        Asker::Other => return Owner::Foreign,
    };
    match (found, request.asker()) {
        (Some(instance), _) => Owner::Of(instance),
        // The group is Croft's own: nobody else answers for it.
        (None, Asker::Token(_)) if request.groups.contains(BOOTSTRAP_GROUP) => Owner::Nobody,
        // A node that is there under such a name is somebody else's; one that is not cannot come any more.
        (None, Asker::Node(name)) if has_our_form(name) && !there.contains(name) => Owner::Nobody,
        (None, _) => Owner::Foreign,
    }
}

/// `<instance>-<8 hex>`, which the admission policy goes by, too.
fn has_our_form(name: &str) -> bool {
    let hex = |text: &str| text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    name.rsplit_once('-').is_some_and(|(id, end)| !id.is_empty() && hex(end))
}

fn record_of(instance: Option<&Instance>) -> Record {
    let none = Record { node: String::new(), addresses: BTreeSet::new(), standing: Standing::Gone };
    let Some((instance, node)) = instance.and_then(|instance| Some((instance, instance.node.as_ref()?))) else {
        return none;
    };
    let standing = match node.phase {
        Phase::Booting => Standing::Booting,
        Phase::Joined | Phase::Missed => Standing::Joined,
        Phase::Waiting | Phase::Leaving | Phase::Left => Standing::Gone,
    };
    // What a guest says of itself is no record.
    let addresses = instance.status.observed.iter().flat_map(|seen| &seen.addresses);
    let addresses: BTreeSet<IpAddr> =
        addresses.filter(|address| address.leased).filter_map(|address| address.ip.parse().ok()).collect();
    Record { node: node.name.clone(), addresses, standing }
}

fn refuse<'a>(
    on: &On,
    instance: Option<&'a Instance>,
    signing: Signing,
    reason: &'static str,
    message: &str,
) -> Refused<'a> {
    let denied = Denied {
        instance: instance.map(|instance| (instance.tenant.clone(), instance.id.clone())),
        cluster: on.row.name(),
        requester: clip(&signing.request.username),
        request: clip(&signing.name),
        more: 0,
        reason,
        message: clip(message),
    };
    Refused { instance, signing, denied }
}

/// Another replica, or an administrator, was quicker.
fn by_us(answered: Result<(), Fault>) -> Result<(), Fault> {
    match answered {
        Err(Fault::Conflict { .. } | Fault::NotFound { .. }) => Ok(()),
        other => other,
    }
}

/// A tenant's words in a log: bounded, on one line.
fn clip(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect()
}

#[cfg(test)]
#[path = "signings_tests.rs"]
mod tests;
