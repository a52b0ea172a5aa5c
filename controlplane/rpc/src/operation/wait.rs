//! WaitOperation. Waits on hints and reads again: a hint that is lost costs a second, never an answer.

use std::time::Duration;

use croft_core::Result;
use croft_core::validate::Violations;
use croft_proto::v1;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::find;
use crate::api::Api;
use crate::caller::Caller;
use crate::convert::operation::out;
use crate::convert::time::span_into;

const DEFAULT: Duration = Duration::from_secs(30);
const MOST: Duration = Duration::from_secs(3600);
/// When nothing was heard: for lost hints and other replicas.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Somebody's write is a weak hint: many writes a second must not become many reads a second for each who waits.
const AT_MOST_EVERY: Duration = Duration::from_millis(100);

pub async fn wait(api: Api, caller: Caller, request: v1::WaitOperationRequest) -> Result<v1::Operation> {
    let mut violations = Violations::new();
    let patience = span_into("timeout", request.timeout, MOST, &mut violations).unwrap_or(DEFAULT);
    violations.finish()?;
    let until = Instant::now() + patience;
    let mut finished = api.deps.hub.operations();
    let mut changed = api.store().changed();
    loop {
        // Before the look, so that what happens during it is not missed.
        finished.mark_unchanged();
        changed.mark_unchanged();
        let looked = Instant::now();
        let operation = find(&api, &caller, &request.name).await?;
        if operation.done || Instant::now() >= until {
            return Ok(out(&operation));
        }
        let hint = async {
            tokio::select! {
                Ok(()) = finished.changed() => {}
                Ok(()) = changed.changed() => sleep_until(looked + AT_MOST_EVERY).await,
                () = sleep(LOOK_EVERY) => {}
                () = api.deps.shutdown.cancelled() => {}
            }
        };
        // Time over: one last look, and its answer whatever it is.
        let _ = timeout_at(until, hint).await;
        if api.deps.shutdown.is_cancelled() {
            return Ok(out(&find(&api, &caller, &request.name).await?));
        }
    }
}
