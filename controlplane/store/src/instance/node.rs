//! An instance's life as a node, step by step: what the joiner found goes into the row, with the seed, the event and whatever
//! it lets its host do, in one commit.
//!
//! A step is bound to the record that it was decided on: where that is another one by now, nothing is written, and whoever
//! decided looks again.

use croft_core::Result;
use croft_core::audit::AuditEntry;
use croft_core::event::Severity;
use croft_core::id::{AuditUid, InstanceUid, TenantId};
use croft_core::instance::Instance;
use croft_core::instance::machine::is_buried;
use croft_core::instance::seed::Seed;
use croft_core::join::machine::{Node, Phase, disk_told, power_told, tell_power};

use super::command::{bury, note_delete};
use super::{Row, Settled, select_instances};
use crate::audit;
use crate::event::reason;
use crate::open::Store;
use crate::secret;
use crate::sql::sql;
use crate::tx::Tx;

/// One step.
#[derive(Debug, Clone)]
pub struct NodeStep {
    pub uid: InstanceUid,
    /// The record that was looked at.
    pub before: Node,
    pub after: Node,
    /// In the place of the one that the host has.
    pub seed: Option<Seed>,
    pub news: Option<NodeNews>,
}

/// What is worth an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNews {
    /// One of [`reason`]'s.
    pub reason: &'static str,
    pub message: String,
    pub severity: Severity,
}

#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "the large variant is the usual one, and moved once")]
pub enum Stepped {
    Done(Instance),
    /// Somebody else was here, or it is gone: look again.
    Stale,
}

/// A certificate that was asked for and is not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// `None`: of a machine that is gone.
    pub instance: Option<(TenantId, String)>,
    pub cluster: String,
    /// As the API server knows him.
    pub requester: String,
    /// Of the requests, the first, and how many more said the same.
    pub request: String,
    pub more: usize,
    pub reason: &'static str,
    pub message: String,
}

impl Store {
    /// All that are, or are to be, nodes of this cluster; by uid.
    pub async fn instance_nodes(&self, cluster_uid: &str) -> Result<Vec<Instance>> {
        let rows: Vec<Row> = sql(select_instances!("WHERE cluster_uid = $1 ORDER BY uid"))
            .bind(cluster_uid)
            .all(&mut *self.reader().await?)
            .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// In clear: it may hold a token. `None`: it cannot be opened any more (`secrets.key` was lost), and that is this instance's
    /// trouble alone.
    pub async fn instance_seed(&self, instance: &Instance) -> Result<Option<Seed>> {
        let digest = &instance.intent.seed_digest;
        let bytes = secret::open(&mut *self.reader().await?, &self.inner.keys, digest).await?;
        // Not serde's own words: they might quote it.
        let read = |bytes: Vec<u8>| serde_json::from_slice(&bytes).map_err(|_| "it is no seed".to_owned());
        match bytes.unwrap_or_else(|| Err(format!("{digest} is not there"))).and_then(read) {
            Ok(seed) => Ok(Some(seed)),
            Err(why) => {
                tracing::debug!(instance = instance.name(), why, "a seed cannot be opened");
                Ok(None)
            }
        }
    }

    pub async fn instance_node_step(&self, step: NodeStep) -> Result<Stepped> {
        self.transaction(move |tx| Box::pin(advance(tx, step))).await
    }

    /// Of each a row of the audit log, where the tenant can read it, and an event; of all of them or of none.
    pub async fn join_denied(&self, denied: Vec<Denied>) -> Result<()> {
        self.transaction(move |tx| {
            Box::pin(async move {
                for one in denied {
                    deny(tx, one).await?;
                }
                Ok(())
            })
        })
        .await
    }
}

async fn advance(tx: &mut Tx, step: NodeStep) -> Result<Stepped> {
    let NodeStep { uid, before, after, seed, news } = step;
    let Some(mut instance) = super::by_uids(&mut tx.conn, &[uid]).await?.pop() else { return Ok(Stepped::Stale) };
    if instance.node.as_ref() != Some(&before) {
        return Ok(Stepped::Stale);
    }
    let (was_buried, was_told) = (is_buried(&instance), (power_told(&instance), disk_told(&instance)));
    let leaves = after.phase == Phase::Left && before.phase != Phase::Left;
    instance.node = Some(after);
    tell_power(&mut instance);
    let buried = is_buried(&instance) && !was_buried;
    if buried {
        bury(&mut instance);
    }
    if buried || leaves && was_told != (power_told(&instance), disk_told(&instance)) {
        // What the host said to the desired object of now is no answer to the next one.
        instance.meta.generation += 1;
    }
    if let Some(seed) = seed {
        replace_seed(tx, &mut instance, &seed).await?;
    }
    super::write(&mut tx.conn, &instance, Settled::No).await?;
    if buried {
        note_delete(tx, &instance).await?;
    }
    tx.instance_written(&instance, false);
    if let Some(NodeNews { reason, message, severity }) = news {
        tx.event(Some(&instance.tenant), &instance.name(), reason, &message, severity);
    }
    Ok(Stepped::Done(instance))
}

/// The old one goes in the same commit: it may hold a token.
async fn replace_seed(tx: &mut Tx, instance: &mut Instance, seed: &Seed) -> Result<()> {
    let (bytes, digest) = seed.encode();
    let old = std::mem::replace(&mut instance.intent.seed_digest, digest);
    let new = &instance.intent.seed_digest;
    if *new == old {
        return Ok(());
    }
    let sealed = tx.inner.keys.seal(new, bytes)?;
    secret::put_all(&mut tx.conn, &[&sealed], tx.now).await?;
    sql("UPDATE instances SET seed_digest = $2 WHERE uid = $1").bind(instance.uid).bind(new).run(&mut tx.conn).await?;
    sql("DELETE FROM secrets
         WHERE digest = $1
           AND NOT EXISTS (SELECT 1 FROM instances WHERE seed_digest = $1)")
    .bind(&old)
    .run(&mut tx.conn)
    .await?;
    Ok(())
}

async fn deny(tx: &mut Tx, denied: Denied) -> Result<()> {
    let Denied { instance, cluster, requester, request, more, reason, message } = denied;
    let target = match &instance {
        Some((tenant, id)) => format!("tenants/{tenant}/instances/{id}"),
        None => cluster.clone(),
    };
    let tenant = instance.map(|(tenant, _)| tenant);
    let many = if more == 0 { String::new() } else { format!(" and {more} more like it") };
    let message = format!("certificate request {request}{many} of {requester} denied: {reason}: {message}");
    let entry = AuditEntry {
        uid: AuditUid::new(tx.now),
        time: tx.now,
        actor: requester,
        method: "certificates.k8s.io/CertificateSigningRequest".to_owned(),
        tenant: tenant.clone(),
        target: target.clone(),
        request_id: String::new(),
        result: "PERMISSION_DENIED".to_owned(),
        message: message.clone(),
        peer: cluster,
    };
    audit::write(&mut tx.conn, &[entry]).await?;
    tx.event(tenant.as_ref(), &target, reason::NODE_CERTIFICATE_DENIED, &message, Severity::Warning);
    Ok(())
}
