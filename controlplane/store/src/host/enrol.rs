//! How a machine becomes a host: a one-time token, spent in the transaction that makes the host's row.

use croft_core::audit::{AuditEntry, Call};
use croft_core::event::Severity;
use croft_core::host::{self, Host};
use croft_core::id::{AuditUid, HostId};
use croft_core::meta::{Labels, Meta};
use croft_core::{Error, Reason, Result, Timestamp};

use crate::audit;
use crate::call::{About, Done};
use crate::column::to_json;
use crate::event::reason;
use crate::open::Store;
use crate::sql::sql;
use crate::tx::Tx;

const METHOD: &str = "/croft.agent.v1.Enrolment/Enrol";

#[derive(sqlx::FromRow)]
struct Token {
    host: String,
    expire_time: i64,
    csr_sha256: Option<String>,
    certificate: Option<String>,
}

enum Outcome {
    Signed(String),
    Refused(Error),
}

fn refused(message: String) -> Error {
    Error::Unauthenticated { reason: Reason::EnrolmentTokenInvalid, message }
}

/// The certificate of a repeat; otherwise nothing, when the token is good.
fn check(token: Option<Token>, host: &HostId, csr: &str, now: Timestamp) -> Result<Option<String>> {
    // One answer for what does not exist and what belongs to another: nobody learns which tokens there are.
    let Some(token) = token.filter(|token| token.host == host.0) else {
        return Err(refused(format!("this enrolment token does not exist, or is not for hosts/{host}")));
    };
    match (token.csr_sha256, token.certificate) {
        (Some(known), Some(certificate)) if known == csr => return Ok(Some(certificate)),
        (Some(_), _) => {
            return Err(refused(format!(
                "this enrolment token was spent already; if that was not hosts/{host}, delete that host and enrol again"
            )));
        }
        _ => {}
    }
    if token.expire_time <= now.0 {
        return Err(refused("this enrolment token has expired; make another one".to_owned()));
    }
    Ok(None)
}

/// The host's row, made when there is none.
async fn ensure_host(tx: &mut Tx, id: &HostId) -> Result<Host> {
    if let Some(host) = super::get(&mut tx.conn, id).await? {
        return Ok(host);
    }
    let former = sql("SELECT COALESCE(MAX(epoch), 0) AS epoch FROM former_hosts WHERE id = $1")
        .bind(id)
        .number(&mut tx.conn)
        .await?;
    let fenced = sql("SELECT COUNT(*) FROM fenced WHERE host = $1").bind(id).number(&mut tx.conn).await?;
    let host = Host {
        id: id.clone(),
        meta: Meta::new(new_uid(tx.now), Labels::new(), Labels::new(), tx.now),
        // What was fenced under this name must be destroyed before the host counts.
        state: if fenced > 0 { host::State::Fenced } else { host::State::Enrolled },
        cordoned: false,
        maintenance: None,
        epoch: former + 1,
        lease_expire_time: None,
        capacity: host::Capacity::default(),
        claimed: host::Resources::default(),
        foreign: host::Resources::default(),
        reserve: host::DEFAULT_RESERVE,
        overhead_memory_mib: host::DEFAULT_OVERHEAD_MIB,
        cpu_overcommit_percent: host::DEFAULT_OVERCOMMIT_PERCENT,
        info: serde_json::Value::Object(serde_json::Map::new()),
        features: Vec::new(),
        conditions: Vec::new(),
    };
    sql(
        "INSERT INTO hosts (id, uid, generation, labels, annotations, create_time, update_time, state, cordoned, epoch,
                            confirmed_epoch, lease_expire_time, capacity, claimed_vcpus, claimed_memory_mib,
                            claimed_disk_gib, foreign_resources, reserve, overhead_memory_mib, cpu_overcommit_percent,
                            info, features, conditions, boot_id, version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, NULL, $11, 0, 0, 0, $12, $13, $14, $15, $16, $17, $18, '',
                 1)",
    )
    .bind(&host.id)
    .bind(&host.meta.uid)
    .bind(host.meta.generation)
    .bind(to_json(&host.meta.labels)?)
    .bind(to_json(&host.meta.annotations)?)
    .bind(host.meta.create_time)
    .bind(host.meta.update_time)
    .bind(host.state.as_str())
    .bind(host.cordoned)
    .bind(host.epoch)
    .bind(to_json(&host.capacity)?)
    .bind(to_json(&host.foreign)?)
    .bind(to_json(&host.reserve)?)
    .bind(host.overhead_memory_mib)
    .bind(host.cpu_overcommit_percent)
    .bind(to_json(&host.info)?)
    .bind(to_json(&host.features)?)
    .bind(to_json(&host.conditions)?)
    .run(&mut tx.conn)
    .await?;
    Ok(host)
}

/// A UUIDv7, as all uids are.
fn new_uid(now: Timestamp) -> String {
    croft_core::id::TenantUid::new(now).0.to_string()
}

impl Store {
    /// A one-time token for exactly one host id; the store keeps its digest alone.
    pub async fn host_enrolment_create(
        &self,
        call: &Call,
        host: &HostId,
        token_sha256: [u8; 32],
        expire: Timestamp,
    ) -> Result<Done<()>> {
        let host = host.clone();
        self.mutate(call, About::platform(format!("hosts/{host}")), move |tx| {
            Box::pin(async move {
                sql("INSERT INTO enrolment_tokens (token_sha256, host, create_time, expire_time)
                     VALUES ($1, $2, $3, $4)")
                .bind(hex::encode(token_sha256))
                .bind(&host)
                .bind(tx.now)
                .bind(expire)
                .run(&mut tx.conn)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// Spends the token and has `sign` make a certificate for the host's uid. The same token with the same CSR gives
    /// the same certificate again: a lost answer loses nothing. Both ends leave an audit row.
    pub async fn host_enrol(
        &self,
        peer: &str,
        host: &HostId,
        token_sha256: [u8; 32],
        csr_sha256: [u8; 32],
        sign: impl FnOnce(&str) -> Result<String> + Send + 'static,
    ) -> Result<String> {
        let (id, peer) = (host.clone(), peer.to_owned());
        let (digest, csr) = (hex::encode(token_sha256), hex::encode(csr_sha256));
        let outcome = self
            .transaction(move |tx| {
                Box::pin(async move {
                    let token: Option<Token> = sql("SELECT host, expire_time, csr_sha256, certificate
                                                    FROM enrolment_tokens
                                                    WHERE token_sha256 = $1")
                    .bind(&digest)
                    .optional(&mut tx.conn)
                    .await?;
                    let outcome = match check(token, &id, &csr, tx.now) {
                        Ok(Some(certificate)) => Outcome::Signed(certificate),
                        Ok(None) => Outcome::Signed(spend(tx, &id, &digest, &csr, sign).await?),
                        Err(error) => Outcome::Refused(error),
                    };
                    audit::write(&mut tx.conn, &[entry(tx.now, &id, peer, &outcome)]).await?;
                    Ok(outcome)
                })
            })
            .await?;
        match outcome {
            Outcome::Signed(certificate) => Ok(certificate),
            Outcome::Refused(error) => Err(error),
        }
    }
}

async fn spend(
    tx: &mut Tx,
    id: &HostId,
    digest: &str,
    csr: &str,
    sign: impl FnOnce(&str) -> Result<String>,
) -> Result<String> {
    let host = ensure_host(tx, id).await?;
    let certificate = sign(&host.meta.uid)?;
    sql("UPDATE enrolment_tokens
         SET spent_time = $2, csr_sha256 = $3, certificate = $4
         WHERE token_sha256 = $1")
    .bind(digest)
    .bind(tx.now)
    .bind(csr)
    .bind(&certificate)
    .run(&mut tx.conn)
    .await?;
    tx.event(None, &host.name(), reason::HOST_ENROLLED, "has a certificate; its agent may connect", Severity::Info);
    Ok(certificate)
}

fn entry(now: Timestamp, id: &HostId, peer: String, outcome: &Outcome) -> AuditEntry {
    let (actor, result, message) = match outcome {
        Outcome::Signed(_) => (format!("host:{id}"), "OK", String::new()),
        Outcome::Refused(error) => ("anonymous".to_owned(), "UNAUTHENTICATED", error.to_string()),
    };
    AuditEntry {
        uid: AuditUid::new(now),
        time: now,
        actor,
        method: METHOD.to_owned(),
        tenant: None,
        target: format!("hosts/{id}"),
        request_id: String::new(),
        result: result.to_owned(),
        message,
        peer,
    }
}
