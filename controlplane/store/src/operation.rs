//! Operations: opened with the intent that they stand for, finished when the instance is settled.

use croft_core::id::{InstanceUid, OperationUid, TenantId};
use croft_core::instance::State;
use croft_core::meta::Labels;
use croft_core::operation::{Failure, Operation, Verb};
use croft_core::{Error, Result, Timestamp};
use sqlx::AnyConnection;

use crate::column::{from_json, from_word, to_json, wrong};
use crate::labels;
use crate::open::Store;
use crate::page::Page;
use crate::sql::{insert, sql};

#[derive(sqlx::FromRow)]
struct Row {
    uid: String,
    tenant: String,
    target: String,
    target_uid: String,
    verb: String,
    counter: i64,
    subject: String,
    actor: String,
    labels: String,
    annotations: String,
    create_time: i64,
    progress: String,
    done: i64,
    failure_reason: Option<String>,
    failure_message: Option<String>,
    end_time: Option<i64>,
}

macro_rules! select_operations {
    ($tail:literal) => {
        concat!(
            "SELECT uid, tenant, target, target_uid, verb, counter, subject, actor, labels, annotations, create_time,
                    progress, done, failure_reason, failure_message, end_time
             FROM operations ",
            $tail
        )
    };
}

impl TryFrom<Row> for Operation {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            uid: OperationUid::parse(&row.uid).ok_or_else(|| wrong("operations.uid", &row.uid))?,
            tenant: TenantId(row.tenant),
            target: row.target,
            target_uid: crate::instance::uid(&row.target_uid)?,
            verb: from_word::<Verb>(&row.verb, "operations.verb")?,
            counter: row.counter,
            subject: row.subject,
            actor: row.actor,
            labels: from_json(&row.labels, "operations.labels")?,
            annotations: from_json(&row.annotations, "operations.annotations")?,
            create_time: Timestamp(row.create_time),
            progress: row.progress,
            done: row.done != 0,
            failure: row
                .failure_reason
                .map(|reason| Failure { reason, message: row.failure_message.unwrap_or_default() }),
            end_time: row.end_time.map(Timestamp),
        })
    }
}

/// New ones, all of them open.
pub(crate) async fn write(conn: &mut AnyConnection, operations: &[Operation]) -> Result<()> {
    let rows: Vec<_> = operations
        .iter()
        .map(|operation| Ok((operation, to_json(&operation.labels)?, to_json(&operation.annotations)?)))
        .collect::<Result<_>>()?;
    insert(
        conn,
        "INSERT INTO operations (uid, tenant, target, target_uid, verb, counter, subject, actor, labels, annotations,
                                 create_time, progress, done, tenant_uid)",
        "",
        &rows,
        |row, (operation, labels, annotations)| {
            row.cell(operation.uid)
                .cell(&operation.tenant)
                .cell(&operation.target)
                .cell(operation.target_uid)
                .cell(operation.verb.as_str())
                .cell(operation.counter)
                .cell(&operation.subject)
                .cell(&operation.actor)
                .cell(labels)
                .cell(annotations)
                .cell(operation.create_time)
                .cell(&operation.progress)
                .cell(operation.done)
                .push(", (SELECT uid FROM tenants WHERE id = ")
                .push_bind(&operation.tenant)
                .push(")")
        },
    )
    .await
}

/// What an open one waits for, in a sentence.
pub(crate) fn waiting(state: State, message: &str) -> String {
    match message {
        "" => state.as_str().to_owned(),
        message => format!("{}: {message}", state.as_str()),
    }
}

pub(crate) async fn get(conn: &mut AnyConnection, uid: OperationUid) -> Result<Option<Operation>> {
    let row: Option<Row> = sql(select_operations!("WHERE uid = $1")).bind(uid).optional(conn).await?;
    row.map(TryInto::try_into).transpose()
}

/// Of these instances, oldest first.
pub(crate) async fn open(conn: &mut AnyConnection, instances: &[InstanceUid]) -> Result<Vec<Operation>> {
    if instances.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = sql(select_operations!("WHERE done = 0 AND target_uid IN "))
        .list(instances)
        .push(" ORDER BY create_time, uid")
        .all(conn)
        .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The open ones of this instance that wait for its power counter.
pub(crate) async fn raise_power(conn: &mut AnyConnection, instance: InstanceUid, by: i64) -> Result<()> {
    sql("UPDATE operations
         SET counter = counter + $2
         WHERE target_uid = $1 AND done = 0 AND verb IN ('create', 'start', 'stop')")
    .bind(instance)
    .bind(by)
    .run(conn)
    .await?;
    Ok(())
}

pub(crate) async fn finish(
    conn: &mut AnyConnection,
    uid: OperationUid,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Result<()> {
    sql("UPDATE operations
         SET done = 1, progress = '', failure_reason = $2, failure_message = $3, end_time = $4
         WHERE uid = $1 AND done = 0")
    .bind(uid)
    .bind(failure.map(|failure| &failure.reason))
    .bind(failure.map(|failure| &failure.message))
    .bind(now)
    .run(conn)
    .await?;
    Ok(())
}

pub(crate) async fn progress(conn: &mut AnyConnection, uid: OperationUid, progress: &str) -> Result<()> {
    sql("UPDATE operations
         SET progress = $2
         WHERE uid = $1")
    .bind(uid)
    .bind(progress)
    .run(conn)
    .await?;
    Ok(())
}

impl Store {
    pub async fn operation_get(&self, uid: OperationUid) -> Result<Option<Operation>> {
        get(&mut *self.reader().await?, uid).await
    }

    /// Those with all of `labels`, newest first.
    pub async fn operation_list(
        &self,
        within: Option<&TenantId>,
        labels: &Labels,
        page: &Page,
    ) -> Result<(Vec<Operation>, Option<String>)> {
        let list = format!("operations {within:?} {labels:?}");
        let (time, uid) = match page.after::<2>(&list)? {
            Some([time, uid]) => (time.parse().unwrap_or(i64::MIN), uid),
            None => (i64::MAX, String::new()),
        };
        let from = sql(select_operations!(
            "WHERE (create_time, uid) < ($1, $2)
               AND ($3 IS NULL OR tenant_uid IN (
                   SELECT a.tenant_uid
                   FROM tenant_ancestors a
                   JOIN tenants t ON t.uid = a.ancestor_uid
                   WHERE t.id = $3))"
        ))
        .bind(time)
        .bind(uid)
        .bind(within);
        let rows: Vec<Row> = labels::select(from, labels)?
            .push(" ORDER BY create_time DESC, uid DESC LIMIT ")
            .push_bind(page.fetch())
            .all(&mut *self.reader().await?)
            .await?;
        let mut operations: Vec<Operation> = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        let next = page.cut(&list, &mut operations, |one| [one.create_time.0.to_string(), one.uid.to_string()]);
        Ok((operations, next))
    }

    /// Of one instance, oldest first.
    pub async fn operation_open(&self, instance: InstanceUid) -> Result<Vec<Operation>> {
        open(&mut *self.reader().await?, &[instance]).await
    }
}
