//! Waiting for an operation, with the live state of what it works on.
//!
//! The plane does the waiting ([`WAIT_STEP`] at a time); in between the instance is read, so that people see what moves.
//! A plane that goes away meanwhile is waited for, too: the operation survives it.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use clap::Args;
use croft_proto::v1;
use indicatif::{ProgressBar, ProgressStyle};
use tonic::Code;

use crate::app::App;
use crate::duration;
use crate::failure::{Failure, Result};
use crate::noun::instance::state;
use crate::output::note;
use crate::{names, retry};

/// How long one call waits: short enough for a state that people watch, long enough to be cheap.
const WAIT_STEP: Duration = Duration::from_secs(2);
/// The plane may answer late without being away.
const WAIT_SLACK: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Wait until the work is done, and show how it goes
    #[arg(long)]
    pub wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse, requires = "wait")]
    pub timeout: Duration,
}

impl WaitArgs {
    /// The operation at its end, if waiting was asked for.
    pub async fn maybe(&self, app: &App, operation: v1::Operation) -> Result<v1::Operation> {
        if self.wait { until_done(app, operation, self.timeout).await } else { Ok(operation) }
    }
}

/// Waits until it is done; one that failed is a failure of the command.
pub async fn until_done(app: &App, mut operation: v1::Operation, timeout: Duration) -> Result<v1::Operation> {
    let deadline = Instant::now() + timeout;
    let mut progress = Progress::new();
    let mut backoff = retry::Backoff::default();
    // An answer to --dry-run has no name: nothing runs.
    while !operation.done && !operation.name.is_empty() {
        progress.show(&operation, live(app, &operation.target).await.as_ref());
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            progress.end();
            return Err(timed_out(&operation, timeout));
        }
        match wait_once(app, &operation.name, left.min(WAIT_STEP)).await {
            Ok(next) => {
                backoff.reset();
                operation = next;
            }
            Err(failure) if is_away(&failure) => {
                progress.away();
                backoff.wait().await;
            }
            Err(failure) => {
                progress.end();
                return Err(failure);
            }
        }
    }
    progress.end();
    match &operation.error {
        Some(error) => Err(Failure::operation(error)),
        None => Ok(operation),
    }
}

async fn wait_once(app: &App, name: &str, timeout: Duration) -> Result<v1::Operation> {
    let request = v1::WaitOperationRequest { name: name.to_owned(), timeout: Some(duration::to_proto(timeout)) };
    let rpc = async |plane: crate::plane::Plane, request| plane.operations().wait_operation(request).await;
    app.plane()?.call_within(timeout + WAIT_SLACK, request, rpc).await
}

/// The instance as it is now; not being able to show it is no reason to stop waiting.
async fn live(app: &App, target: &str) -> Option<v1::Instance> {
    if !target.contains("/instances/") {
        return None;
    }
    let request = v1::GetInstanceRequest { name: target.to_owned() };
    let rpc = async |plane: crate::plane::Plane, request| plane.instances().get_instance(request).await;
    app.plane().ok()?.call(request, rpc).await.ok()
}

/// Also a deadline that passed without an answer: the plane may hang while it stops.
pub fn is_away(failure: &Failure) -> bool {
    match failure {
        Failure::Unavailable(_) => true,
        Failure::Refused(status) => matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
        _ => false,
    }
}

fn timed_out(operation: &v1::Operation, timeout: Duration) -> Failure {
    let id = names::id(&operation.name);
    let progress = if operation.progress.is_empty() { String::new() } else { format!(" ({})", operation.progress) };
    Failure::Timeout(format!(
        "{} of {} is not done after {}{progress}; it goes on: `croft operation wait {id}`",
        operation.verb,
        operation.target,
        duration::show(timeout),
    ))
}

/// On a terminal one line that moves; elsewhere a line whenever something changed.
enum Progress {
    Spinner(ProgressBar),
    Lines(String),
}

impl Progress {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines(String::new());
        }
        let bar = ProgressBar::new_spinner();
        // The template is a constant; should it ever be wrong, the default style is good enough.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self::Spinner(bar)
    }

    fn show(&mut self, operation: &v1::Operation, instance: Option<&v1::Instance>) {
        self.say(describe(operation, instance));
    }

    fn away(&mut self) {
        self.say("the plane is away; waiting for it".to_owned());
    }

    fn say(&mut self, text: String) {
        match self {
            Self::Spinner(bar) => bar.set_message(text),
            Self::Lines(last) => {
                if *last != text {
                    note(&text);
                    *last = text;
                }
            }
        }
    }

    fn end(&mut self) {
        if let Self::Spinner(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// `web: STARTING on h1: waiting for the guest`
fn describe(operation: &v1::Operation, instance: Option<&v1::Instance>) -> String {
    let status = instance.and_then(|instance| instance.status.as_ref());
    let doing = status.map_or(operation.verb.as_str(), |status| state::name(status));
    let mut text = format!("{}: {doing}", names::id(&operation.target));
    if let Some(status) = status.filter(|status| !status.host.is_empty()) {
        text.push_str(&format!(" on {}", names::id(&status.host)));
    }
    // The plane may begin with the state, which is said already.
    let progress = operation.progress.strip_prefix(doing).unwrap_or(&operation.progress).trim_start_matches([':', ' ']);
    if !progress.is_empty() {
        text.push_str(&format!(": {progress}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(progress: &str) -> v1::Operation {
        v1::Operation {
            name: "operations/1".into(),
            target: "tenants/acme/instances/web".into(),
            verb: "create".into(),
            progress: progress.into(),
            ..v1::Operation::default()
        }
    }

    #[test]
    fn people_see_state_host_and_what_it_waits_for() {
        let status = v1::InstanceStatus {
            state: v1::instance_status::State::Preparing.into(),
            host: "hosts/h1".into(),
            ..v1::InstanceStatus::default()
        };
        let instance = v1::Instance { status: Some(status), ..v1::Instance::default() };
        assert_eq!(
            describe(&operation("fetching images/debian: 40 %"), Some(&instance)),
            "web: PREPARING on h1: fetching images/debian: 40 %"
        );
        assert_eq!(describe(&operation("PREPARING"), Some(&instance)), "web: PREPARING on h1");
        assert_eq!(describe(&operation("PREPARING: the disk"), Some(&instance)), "web: PREPARING on h1: the disk");
        assert_eq!(describe(&operation(""), None), "web: create");
    }

    #[test]
    fn a_timeout_says_how_to_go_on() {
        let failure = timed_out(&operation("booting"), Duration::from_secs(600));
        assert_eq!(
            failure.to_string(),
            "create of tenants/acme/instances/web is not done after 10m (booting); it goes on: `croft operation wait 1`"
        );
        assert_eq!(failure.exit(), crate::exit::Exit::Timeout);
    }
}
