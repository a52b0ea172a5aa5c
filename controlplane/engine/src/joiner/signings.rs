//! Requests for certificates: judged against the record of the machine that asks, answered, and cleared away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use croft_core::instance::Instance;
use croft_core::join::cluster::{Answer, Fault, Signing, Stage};
use croft_core::join::csr::{Asker, BOOTSTRAP_GROUP, Denial, Record, Request, Standing, judge};
use croft_core::join::machine::{Phase, Step};
use croft_store::{Denied, NodeStep};

use super::pass::On;
use super::task::Task;
use super::{Problem, record};

/// A kubelet watches its request; this is for one that was away.
const ISSUED_FOR: Duration = Duration::from_secs(600);
/// For people who look with kubectl; the audit log has it for longer.
const DENIED_FOR: Duration = Duration::from_secs(60);
/// A kubelet may be quicker than its host's word of the address that it gave out.
const LEASE_WITHIN: Duration = Duration::from_secs(120);
/// A pass; whoever sends more waits for the next ones.
const ANSWERS: usize = 200;
const WORDS: usize = 300;

/// Whose a request is.
enum Owner<'a> {
    Of(&'a Instance),
    /// Of a machine that is no more.
    Nobody,
    /// Not for Croft to answer.
    Foreign,
}

impl Task {
    pub(super) async fn answer_requests(&mut self, on: &On, instances: &[Instance]) -> Result<(), Problem> {
        let mut denied: BTreeMap<(String, &'static str), Denied> = BTreeMap::new();
        let mut to_deny = Vec::new();
        let mut answers = 0;
        let there: BTreeSet<String> = on.nodes.keys().cloned().collect();
        for signing in on.handle.signings().await? {
            let owner = owner(&there, instances, &signing.request);
            if matches!(owner, Owner::Foreign) || answers >= ANSWERS {
                continue;
            }
            if signing.stage != Stage::Open {
                self.clear(on, &owner, &signing).await?;
                continue;
            }
            answers += 1;
            let instance = if let Owner::Of(instance) = owner { Some(instance) } else { None };
            let record = record_of(instance);
            match judge(&signing.request, &record) {
                Err(Denial::San(_)) if record.addresses.is_empty() && self.age(&signing) < LEASE_WITHIN => {}
                Ok(()) => self.approve(on, instance, &signing).await?,
                Err(denial) => {
                    note(&mut denied, on, instance, &signing, &denial);
                    to_deny.push((signing, denial, instance));
                }
            }
        }
        // In the audit log before the cluster has it: told twice rather than never.
        for (_, denied) in denied {
            self.ports.store.join_denied(denied).await?;
        }
        for (signing, denial, instance) in to_deny {
            let message = clip(&denial.to_string());
            let answer = Answer::Deny { reason: denial.reason().to_owned(), message: message.clone() };
            by_us(on.handle.signing_answer(&signing, &answer).await)?;
            if matches!(signing.request.asker(), Asker::Token(_)) {
                self.came(instance, Step::Denied(message)).await?;
            }
        }
        Ok(())
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
    async fn clear(&self, on: &On, owner: &Owner<'_>, signing: &Signing) -> Result<(), Problem> {
        let gone = match owner {
            Owner::Of(instance) => record(instance)?.phase == Phase::Left,
            Owner::Nobody | Owner::Foreign => true,
        };
        let age = self.age(signing);
        let kept = match signing.stage {
            Stage::Open | Stage::Approved => !gone,
            Stage::Issued => !gone && age < ISSUED_FOR,
            Stage::Denied | Stage::Failed => !gone && age < DENIED_FOR,
        };
        if !kept {
            on.handle.signing_delete(signing).await?;
        }
        Ok(())
    }
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

/// Whoever sends a thousand leaves one row.
fn note(
    denied: &mut BTreeMap<(String, &'static str), Denied>,
    on: &On,
    instance: Option<&Instance>,
    signing: &Signing,
    denial: &Denial,
) {
    let requester = clip(&signing.request.username);
    let row = denied.entry((requester.clone(), denial.reason()));
    row.and_modify(|row| row.more += 1).or_insert_with(|| Denied {
        instance: instance.map(|instance| (instance.tenant.clone(), instance.id.clone())),
        cluster: on.row.name(),
        requester,
        request: clip(&signing.name),
        more: 0,
        reason: denial.reason(),
        message: clip(&denial.to_string()),
    });
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
