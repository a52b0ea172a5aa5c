//! History: what happened in one order, for as long as it is kept. Watchers read it after the token that they hold.
//!
//! [`Store::changes_after`] is the one function that does so. A revision is never seen before all smaller ones: there
//! is one counter, raised as the last act of each transaction.

use croft_core::event::{Change, Changed, Event, Topic};
use croft_core::id::TenantId;
use croft_core::instance::Instance;
use croft_core::{Error, Reason, Result, Timestamp};
use sqlx::AnyConnection;

use crate::column::{from_json, to_json, wrong};
use crate::open::Store;
use crate::sql::{insert, sql};

const EVENT: &str = "event";
const CREATED: &str = "created";
const WRITTEN: &str = "written";
const REMOVED: &str = "removed";

/// Until the commit gives it its revision.
#[derive(Debug)]
pub(crate) enum Pending {
    Event(Event),
    Instance { instance: Box<Instance>, created: bool },
    Removed { instance: Box<Instance> },
}

/// What came after a revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    pub changes: Vec<Change>,
    /// Everything up to here has been seen by whoever holds this: ask for what is after it next.
    pub up_to: i64,
}

#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    revision: i64,
    kind: String,
    body: String,
}

#[derive(sqlx::FromRow)]
struct Bounds {
    revision: i64,
    oldest: i64,
}

struct New {
    revision: i64,
    topic: Topic,
    kind: &'static str,
    tenant: Option<TenantId>,
    target: String,
    body: String,
}

fn topic_word(topic: Topic) -> &'static str {
    match topic {
        Topic::Events => "event",
        Topic::Instances => "instance",
    }
}

impl New {
    fn of(pending: &Pending, revision: i64) -> Result<Self> {
        Ok(match pending {
            Pending::Event(event) => Self {
                revision,
                topic: Topic::Events,
                kind: EVENT,
                tenant: event.tenant.clone(),
                target: event.target.clone(),
                body: to_json(event)?,
            },
            Pending::Instance { instance, created } => {
                Self::instance(instance, revision, if *created { CREATED } else { WRITTEN })?
            }
            Pending::Removed { instance } => Self::instance(instance, revision, REMOVED)?,
        })
    }

    fn instance(instance: &Instance, revision: i64, kind: &'static str) -> Result<Self> {
        let (tenant, target, body) = (Some(instance.tenant.clone()), instance.name(), to_json(instance)?);
        Ok(Self { revision, topic: Topic::Instances, kind, tenant, target, body })
    }
}

pub(crate) async fn write(conn: &mut AnyConnection, pending: &[Pending], first: i64, now: Timestamp) -> Result<()> {
    let rows: Vec<New> =
        pending.iter().zip(first..).map(|(pending, revision)| New::of(pending, revision)).collect::<Result<_>>()?;
    insert(
        conn,
        "INSERT INTO changes (revision, time, topic, kind, target, body, tenant_uid)",
        "",
        &rows,
        |row, new| {
            row.cell(new.revision)
                .cell(now)
                .cell(topic_word(new.topic))
                .cell(new.kind)
                .cell(&new.target)
                .cell(&new.body)
                .push(", (SELECT uid FROM tenants WHERE id = ")
                .push_bind(&new.tenant)
                .push(")")
        },
    )
    .await
}

impl TryFrom<Row> for Change {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let instance = |body: &str| from_json::<Box<Instance>>(body, "changes.body");
        let what = match row.kind.as_str() {
            EVENT => Changed::Event(Event { revision: row.revision, ..from_json(&row.body, "changes.body")? }),
            kind @ (CREATED | WRITTEN) => {
                Changed::InstanceWritten { instance: instance(&row.body)?, created: kind == CREATED }
            }
            REMOVED => Changed::InstanceRemoved { instance: instance(&row.body)? },
            other => return Err(wrong("changes.kind", other)),
        };
        Ok(Self { revision: row.revision, what })
    }
}

pub(crate) async fn revision(conn: &mut AnyConnection) -> Result<i64> {
    sql("SELECT revision FROM revision").number(conn).await
}

impl Store {
    pub async fn revision(&self) -> Result<i64> {
        revision(&mut *self.reader().await?).await
    }

    /// At most `limit` of what came after `revision`, oldest first. Refused when history no longer reaches back to it,
    /// and for a revision that this database never gave.
    pub async fn changes_after(
        &self,
        revision: i64,
        topic: Topic,
        within: Option<&TenantId>,
        limit: usize,
    ) -> Result<Changes> {
        let mut tx = self.snapshot().await?;
        let bounds: Bounds = sql("SELECT revision, oldest FROM revision").one(&mut tx).await?;
        if revision < bounds.oldest || revision > bounds.revision {
            return Err(Error::OutOfRange {
                reason: Reason::ResumeTokenTooOld,
                message: "the history no longer reaches back to this token; list again, then watch from there"
                    .to_owned(),
            });
        }
        let rows: Vec<Row> = sql("SELECT revision, kind, body
                                  FROM changes
                                  WHERE revision > $1
                                    AND topic = $2
                                    AND ($3 IS NULL OR tenant_uid IN (
                                        SELECT a.tenant_uid
                                        FROM tenant_ancestors a
                                        JOIN tenants t ON t.uid = a.ancestor_uid
                                        WHERE t.id = $3))
                                  ORDER BY revision
                                  LIMIT $4")
        .bind(revision)
        .bind(topic_word(topic))
        .bind(within)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .all(&mut tx)
        .await?;
        let up_to = match rows.last() {
            Some(last) if rows.len() >= limit => last.revision,
            _ => bounds.revision,
        };
        let changes = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok(Changes { changes, up_to })
    }
}
