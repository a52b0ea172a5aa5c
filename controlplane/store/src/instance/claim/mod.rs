//! Admission: many requests, one commit. Quota, host, instance, operation, idempotency record and audit row are written
//! together or not at all; a refusal changes nothing and does not disturb its neighbours.
//!
//! ```text
//!  known   everything that the batch refers to, read with a handful of statements
//!    │
//!  check   one request after the other, against what is known and what the earlier ones took of it
//!    │
//!  write   all that were admitted, a statement per table
//! ```

mod check;
mod known;
mod write;

use croft_core::audit::Call;
use croft_core::instance::Instance;
use croft_core::operation::Operation;
use croft_core::placement::Placement;
use croft_core::placement::view::Claim;
use croft_core::ports::NewInstance;
use croft_core::{Error, Result};

use crate::column::from_json;
use crate::instance::by_uids;
use crate::open::Store;
use crate::operation;
use crate::tx::Tx;
use check::{Batch, Verdict};
use known::Known;

#[derive(Debug, Clone)]
pub struct ClaimRequest {
    pub call: Call,
    pub new: NewInstance,
    /// With the host's version that the placement was made against; or why nothing fits.
    pub placed: Result<(Placement, Claim, i64), Error>,
}

#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "the large variant is the usual one, and moved once")]
pub enum ClaimAnswer {
    Admitted {
        operation: Operation,
        instance: Instance,
        replayed: bool,
    },
    Refused(Error),
    /// The host, or a pool, moved on since it was looked at: place again.
    Stale,
}

impl Store {
    /// An answer per request, in their order. Of several claims on one host, the version that the first of them saw is
    /// compared: the later ones were decided on top of it.
    pub async fn instance_claim(&self, requests: Vec<ClaimRequest>) -> Result<Vec<ClaimAnswer>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.transaction(move |tx| Box::pin(claim(tx, requests))).await
    }
}

async fn claim(tx: &mut Tx, requests: Vec<ClaimRequest>) -> Result<Vec<ClaimAnswer>> {
    let known = Known::read(&mut tx.conn, &requests).await?;
    let mut batch = Batch::new(known, tx.now);
    let verdicts: Vec<Verdict> = requests.iter().map(|request| batch.check(request)).collect();
    let admitted = batch.into_admitted();
    write::write(tx, &requests, &admitted).await?;
    let mut answers: Vec<ClaimAnswer> = Vec::with_capacity(verdicts.len());
    for verdict in verdicts {
        answers.push(match verdict {
            Verdict::Refused(error) => ClaimAnswer::Refused(error),
            Verdict::Stale => ClaimAnswer::Stale,
            Verdict::Admitted(at) => {
                let one = &admitted.all[at];
                ClaimAnswer::Admitted {
                    operation: one.operation.clone(),
                    instance: one.instance.clone(),
                    replayed: false,
                }
            }
            Verdict::Would(one) => {
                ClaimAnswer::Admitted { operation: one.operation, instance: one.instance, replayed: false }
            }
            Verdict::Replay(answer) => replay(tx, &answer).await?,
            // A retry that overtook its own first call: the answer is that of the one before it in this batch.
            Verdict::Same(at) => again(&answers[at]),
        });
    }
    Ok(answers)
}

/// As both are now; as they were then when they are gone.
async fn replay(tx: &mut Tx, answer: &str) -> Result<ClaimAnswer> {
    let (operation, instance): (Operation, Instance) = from_json(answer, "idempotency.answer")?;
    let operation = operation::get(&mut tx.conn, operation.uid).await?.unwrap_or(operation);
    let instance = by_uids(&mut tx.conn, &[instance.uid]).await?.pop().unwrap_or(instance);
    Ok(ClaimAnswer::Admitted { operation, instance, replayed: true })
}

fn again(answer: &ClaimAnswer) -> ClaimAnswer {
    match answer {
        ClaimAnswer::Admitted { operation, instance, .. } => {
            ClaimAnswer::Admitted { operation: operation.clone(), instance: instance.clone(), replayed: true }
        }
        other => other.clone(),
    }
}
