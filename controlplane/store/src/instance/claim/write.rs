//! What was admitted, into its rows: a statement per table, not per instance.

use croft_core::audit::AuditEntry;
use croft_core::event::Severity;
use croft_core::id::NetworkId;
use croft_core::instance::State;
use croft_core::operation::Operation;
use croft_core::{Error, Result};
use sqlx::AnyConnection;

use super::ClaimRequest;
use super::check::{Admission, Admitted};
use crate::call::{About, done};
use crate::column::to_json;
use crate::event::reason;
use crate::host::claimed::{self, Taken};
use crate::host::desired::networks_of;
use crate::secret::{self, Sealed};
use crate::sql::insert;
use crate::tx::Tx;
use crate::{audit, operation, quota};

pub(super) async fn write(tx: &mut Tx, requests: &[ClaimRequest], admitted: &Admitted) -> Result<()> {
    if admitted.all.is_empty() {
        return Ok(());
    }
    quota::charge(&mut tx.conn, &admitted.amounts).await?;
    instances(&mut tx.conn, &admitted.all).await?;
    networks(&mut tx.conn, &admitted.all).await?;
    charges(&mut tx.conn, &admitted.all).await?;
    let taken: Vec<Taken> = admitted.all.iter().map(|one| one.taken.clone()).collect();
    // The versions were compared in this very transaction.
    if !claimed::take(&mut tx.conn, &taken, &admitted.versions).await? {
        return Err(Error::internal("a host's version moved inside a transaction"));
    }
    seeds(tx, &admitted.all).await?;
    let operations: Vec<Operation> = admitted.all.iter().map(|one| one.operation.clone()).collect();
    operation::write(&mut tx.conn, &operations).await?;
    remember(tx, requests, &admitted.all).await?;
    let entries: Vec<AuditEntry> = admitted
        .all
        .iter()
        .map(|one| {
            let about = About::tenant(&one.instance.tenant, one.instance.name());
            done(&requests[one.at].call, tx.now, &about)
        })
        .collect();
    audit::write(&mut tx.conn, &entries).await?;
    for one in &admitted.all {
        let instance = &one.instance;
        tx.instance_written(instance, true);
        let message = format!("placed on hosts/{}", one.taken.host);
        tx.event(Some(&instance.tenant), &instance.name(), reason::INSTANCE_CREATED, &message, Severity::Info);
    }
    tx.enters(State::Pending);
    Ok(())
}

async fn instances(conn: &mut AnyConnection, all: &[Admission]) -> Result<()> {
    struct Json<'a> {
        one: &'a Admission,
        labels: String,
        annotations: String,
        spec: String,
        intent: String,
        placement: Option<String>,
        cluster_uid: Option<&'a str>,
        node: Option<String>,
    }
    let rows: Vec<Json<'_>> = all
        .iter()
        .map(|one| {
            let instance = &one.instance;
            Ok(Json {
                one,
                labels: to_json(&instance.meta.labels)?,
                annotations: to_json(&instance.meta.annotations)?,
                spec: to_json(&instance.spec)?,
                intent: to_json(&instance.intent)?,
                placement: instance.placement.as_ref().map(to_json).transpose()?,
                cluster_uid: instance.spec.node.as_ref().map(|wish| wish.cluster_uid.as_str()),
                node: instance.node.as_ref().map(to_json).transpose()?,
            })
        })
        .collect::<Result<_>>()?;
    insert(
        conn,
        "INSERT INTO instances (uid, tenant, id, generation, labels, annotations, create_time, update_time, spec,
                                image_uid, intent, seed_digest, host, placement, cluster_uid, node, state,
                                state_time, reason, message, settled)",
        "",
        &rows,
        |row, json| {
            let instance = &json.one.instance;
            row.cell(instance.uid)
                .cell(&instance.tenant)
                .cell(&instance.id)
                .cell(instance.meta.generation)
                .cell(&json.labels)
                .cell(&json.annotations)
                .cell(instance.meta.create_time)
                .cell(instance.meta.update_time)
                .cell(&json.spec)
                .cell(instance.spec.image_uid)
                .cell(&json.intent)
                .cell(&instance.intent.seed_digest)
                .cell(instance.host())
                .cell(&json.placement)
                .cell(json.cluster_uid)
                .cell(&json.node)
                .cell(instance.status.state.as_str())
                .cell(instance.status.state_time)
                .cell(&instance.status.reason)
                .cell(&instance.status.message)
                .cell(true)
        },
    )
    .await?;
    for one in all.iter().filter(|one| !one.instance.meta.labels.is_empty()) {
        crate::instance::write_labels(conn, &one.instance).await?;
    }
    Ok(())
}

async fn networks(conn: &mut AnyConnection, all: &[Admission]) -> Result<()> {
    let rows: Vec<(&Admission, &NetworkId)> =
        all.iter().flat_map(|one| networks_of(&one.instance).map(move |id| (one, id))).collect();
    insert(conn, "INSERT INTO instance_networks (instance_uid, network)", "", &rows, |row, (one, id)| {
        row.cell(one.instance.uid).cell(*id)
    })
    .await
}

async fn charges(conn: &mut AnyConnection, all: &[Admission]) -> Result<()> {
    let rows: Vec<_> = all.iter().flat_map(|one| one.charges.iter().map(move |charge| (one, charge))).collect();
    insert(
        conn,
        "INSERT INTO charges (holder_uid, tenant, resource, amount)",
        "",
        &rows,
        |row, (one, (resource, amount))| {
            row.cell(one.instance.uid).cell(&one.instance.tenant).cell(*resource).cell(**amount)
        },
    )
    .await
}

async fn seeds(tx: &mut Tx, all: &[Admission]) -> Result<()> {
    let sealed: Vec<Sealed> = all
        .iter()
        .map(|one| tx.inner.keys.seal(&one.instance.intent.seed_digest, one.seed.clone()))
        .collect::<Result<_>>()?;
    secret::put_all(&mut tx.conn, &sealed.iter().collect::<Vec<_>>(), tx.now).await
}

/// So that a retry is answered with this instance and not with a second one.
async fn remember(tx: &mut Tx, requests: &[ClaimRequest], all: &[Admission]) -> Result<()> {
    let now = tx.now;
    let rows: Vec<(&ClaimRequest, String)> = all
        .iter()
        .filter(|one| !requests[one.at].call.request_id.is_empty())
        .map(|one| Ok((&requests[one.at], to_json(&(&one.operation, &one.instance))?)))
        .collect::<Result<_>>()?;
    insert(
        &mut tx.conn,
        "INSERT INTO idempotency (actor, method, request_id, body_digest, answer, create_time)",
        "",
        &rows,
        |row, (request, answer)| {
            let call = &request.call;
            row.cell(call.principal.actor())
                .cell(call.method)
                .cell(&call.request_id)
                .cell(hex::encode(call.body_digest))
                .cell(answer)
                .cell(now)
        },
    )
    .await
}
