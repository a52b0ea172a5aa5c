//! Waiting for a drain, or for what starts again after one: a line on stderr for each instance whenever something is new.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use croft_proto::v1::drain_step::Effect;
use croft_proto::v1::host_maintenance::Phase;
use croft_proto::v1::instance_status::State;
use croft_proto::v1::{self, HostMaintenance};
use tonic::Code;

use super::plan;
use crate::app::App;
use crate::failure::{Failure, Result};
use crate::noun::host;
use crate::noun::instance::state;
use crate::output::note;
use crate::wait::is_away;
use crate::{duration, names, retry};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Why an instance is off, as the plane says it.
const HOST_MAINTENANCE: &str = "HostMaintenance";

/// The host as it is then, and its instances.
pub async fn until_drained(app: &App, name: &str, timeout: Duration) -> Result<(v1::Host, v1::DrainPlan)> {
    let mut watch = Watch::new(timeout);
    loop {
        // The host first: what is said of its instances is then no older than that it is drained.
        let looked = async { Ok((host::get(app, name.to_owned()).await?, plan(app, name).await?)) }.await;
        if let Some((host, plan)) = watch.answered(looked).await? {
            match host.maintenance.as_ref().map(HostMaintenance::phase) {
                Some(Phase::Drained) => return Ok((host, plan)),
                None => {
                    return Err(Failure::local(format!(
                        "{name} is not drained: somebody ended its maintenance meanwhile"
                    )));
                }
                Some(_) => {}
            }
            for step in plan.steps.iter().filter(|step| step.effect() != Effect::StaysOff) {
                watch.tell(&step.instance, format!("{}: {}", step.effect().as_str_name(), step.message));
            }
        }
        let id = names::id(name);
        watch
            .pause(|| {
                format!(
                    "{name} is not drained after {}; it goes on: `croft host drain {id} --preview` shows what is left, \
                 `croft host undrain {id}` ends it",
                    duration::show(timeout)
                )
            })
            .await?;
    }
}

/// Also those that do not start are waited for no longer; they are the failure of the command.
pub async fn until_started(app: &App, mut starting: Vec<String>, timeout: Duration) -> Result<()> {
    let mut watch = Watch::new(timeout);
    let mut failed = Vec::new();
    while !starting.is_empty() {
        let mut still = Vec::new();
        for name in std::mem::take(&mut starting) {
            let Some(status) = watch.answered(status(app, &name).await).await? else {
                still.push(name);
                continue;
            };
            match &status {
                Some(status) => watch.tell(&name, state::name(status).to_owned()),
                None => watch.tell(&name, "gone".to_owned()),
            }
            match status {
                Some(status) if status.state() == State::Failed => failed.push(format!("{name}: {}", status.message)),
                Some(status) if !has_settled(&status) => still.push(name),
                _ => {}
            }
        }
        starting = still;
        if !starting.is_empty() {
            watch
                .pause(|| format!("not all run after {}: {} go on", duration::show(timeout), starting.join(", ")))
                .await?;
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::local(format!("did not start: {}", failed.join("; ")))) }
}

/// `None`: it is gone.
async fn status(app: &App, name: &str) -> Result<Option<v1::InstanceStatus>> {
    let request = v1::GetInstanceRequest { name: name.to_owned() };
    match app.plane()?.call(request, async |plane, r| plane.instances().get_instance(r).await).await {
        Ok(instance) => Ok(Some(instance.status.unwrap_or_default())),
        Err(Failure::NotFound(_)) => Ok(None),
        Err(Failure::Refused(status)) if status.code() == Code::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// It runs, or somebody has stopped it since.
fn has_settled(status: &v1::InstanceStatus) -> bool {
    match status.state() {
        State::Running => true,
        State::Stopped => status.reason != HOST_MAINTENANCE,
        _ => false,
    }
}

/// Looks until a deadline, and tells on stderr what is new.
struct Watch {
    deadline: Instant,
    backoff: retry::Backoff,
    told: BTreeMap<String, String>,
}

impl Watch {
    fn new(timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout, backoff: retry::Backoff::default(), told: BTreeMap::new() }
    }

    /// `None`: the plane is away; what it was asked to do goes on when it is back.
    async fn answered<T>(&mut self, answer: Result<T>) -> Result<Option<T>> {
        match answer {
            Ok(answer) => {
                self.backoff.reset();
                Ok(Some(answer))
            }
            Err(failure) if is_away(&failure) => {
                self.backoff.wait().await;
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    fn tell(&mut self, whom: &str, what: String) {
        if self.told.get(whom) != Some(&what) {
            note(&format!("{whom}: {what}"));
            self.told.insert(whom.to_owned(), what);
        }
    }

    async fn pause(&self, late: impl FnOnce() -> String) -> Result<()> {
        if Instant::now() >= self.deadline {
            return Err(Failure::Timeout(late()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_off_for_the_maintenance_has_yet_to_start() {
        let status = |state: State, reason: &str| v1::InstanceStatus {
            state: state.into(),
            reason: reason.into(),
            ..Default::default()
        };
        assert!(!has_settled(&status(State::Stopped, HOST_MAINTENANCE)));
        assert!(has_settled(&status(State::Stopped, "GuestPoweredOff")) && has_settled(&status(State::Running, "")));
        assert!(!has_settled(&status(State::Starting, "")));
    }
}
