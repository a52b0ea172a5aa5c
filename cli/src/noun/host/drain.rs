//! `croft host drain` and `undrain`: maintenance, with a word on each instance before, meanwhile and after.

mod wait;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use croft_proto::v1::drain_step::Effect;
use croft_proto::v1::{self, HostMaintenance};

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::flags::RequestId;
use crate::output::cell::{Mood, Text};
use crate::output::{Format, Named as _, Resource, line, named, proto_json, table::Column};
use crate::{duration, names};

#[derive(Debug, Args)]
#[command(
    after_help = "Each guest is asked to power off and has its own stop timeout; nodes of a cluster are drained first. Nobody's \
    `power` changes: `croft host undrain` starts again what ran.\n\nExamples:\n  croft host drain h1 --preview\n  \
    croft host drain h1 --reason 'new kernel' --wait\n  \
    croft host drain h1 --preview -o json > plan.json && croft host drain h1 --expect plan.json --wait"
)]
pub struct Drain {
    host: String,
    /// Say what would happen to each instance, and change nothing; of a host that is being drained: what is still to be done
    #[arg(long, conflicts_with_all = ["expect", "reason", "wait"])]
    preview: bool,
    /// Why, in a few words; tenants read it on their instances
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Only if it does what this preview said (as `--preview -o json` wrote it)
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    #[command(flatten)]
    wait: Patience,
    #[command(flatten)]
    request: RequestId,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Also in the middle of a drain. A cordon of before stays: `croft host uncordon`.\n\nExample:\n  \
    croft host undrain h1 --wait"
)]
pub struct Undrain {
    host: String,
    #[command(flatten)]
    wait: Patience,
    #[command(flatten)]
    request: RequestId,
}

#[derive(Debug, Args)]
struct Patience {
    /// Wait until it is done, and tell what happens to each instance
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration::parse, requires = "wait")]
    timeout: Duration,
}

named!(v1::DrainPlan => "croft.v1.DrainPlan", v1::DrainStep => "croft.v1.DrainStep");

impl Resource for v1::DrainStep {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("INSTANCE", |step| step.instance.as_str().into()),
        Column::new("DRAIN", effect),
        Column::new("AFTERWARDS", |step| afterwards(step).into()),
        Column::new("HOW", |step| step.message.as_str().into()),
        Column::wide("UID", |step| step.uid.as_str().into()),
    ];

    fn name(&self) -> &str {
        &self.instance
    }
}

fn effect(step: &v1::DrainStep) -> Text {
    let mood = match step.effect() {
        Effect::Stops | Effect::Leaves => Mood::Busy,
        Effect::Cannot => Mood::Bad,
        Effect::StaysOff | Effect::Unspecified => Mood::Plain,
    };
    Text::new(step.effect().as_str_name(), mood)
}

fn afterwards(step: &v1::DrainStep) -> &'static str {
    match (step.effect(), step.starts_again) {
        (Effect::Leaves, _) => "gone",
        (_, true) => "starts again",
        (_, false) => "stays off",
    }
}

/// `DRAINED 4m by token:root: new kernel`, for the host's own page.
pub fn sentence(maintenance: &HostMaintenance) -> String {
    let since = crate::output::age::since(maintenance.start_time.as_ref());
    let why = if maintenance.reason.is_empty() { String::new() } else { format!(": {}", maintenance.reason) };
    let phase = maintenance.phase().as_str_name();
    format!("maintenance: {phase}, begun {} ago by {}{why}", since.as_str(), maintenance.actor)
}

pub async fn drain(app: &App, drain: Drain) -> Result<()> {
    let name = names::top("hosts", &drain.host)?;
    let before = plan(app, &name).await?;
    if drain.preview {
        return preview(app, &before);
    }
    let request = v1::DrainHostRequest {
        name: name.clone(),
        reason: drain.reason.clone(),
        expect: drain.expect.as_deref().map(read).transpose()?,
        request_id: drain.request.get(),
        validate_only: false,
    };
    let host = app.plane()?.call(request, async |plane, r| plane.hosts().drain_host(r).await).await?;
    if !drain.wait.wait {
        let id = names::id(&name);
        return app.out.did(&host, &format!("draining; `croft host drain {id} --preview` shows how far it is"));
    }
    let (host, after) = wait::until_drained(app, &name, drain.wait.timeout).await?;
    if app.out.is_table() {
        for step in &before.steps {
            line(&format!("  {}: {}", step.instance, became(step, &after)))?;
        }
    }
    app.out.did(&host, "drained")
}

fn preview(app: &App, plan: &v1::DrainPlan) -> Result<()> {
    match app.out.format {
        Format::Json | Format::Yaml => app.out.message(plan, ""),
        _ => app.out.list("instances", &plan.steps),
    }
}

fn read(file: &Path) -> Result<v1::DrainPlan> {
    let wrong = |why: String| Failure::usage(format!("{} is no preview: {why}", file.display()));
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
    let value: serde_json::Value = serde_yaml_ng::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    proto_json::from_value(v1::DrainPlan::MESSAGE, &value)?
        .map_err(|field| wrong(format!("{}: {}", field.path, field.message)))
}

async fn plan(app: &App, name: &str) -> Result<v1::DrainPlan> {
    let request = v1::ExplainHostDrainRequest { name: name.to_owned() };
    app.plane()?.call(request, async |plane, r| plane.hosts().explain_host_drain(r).await).await
}

/// What came of it, in a few words.
fn became(step: &v1::DrainStep, after: &v1::DrainPlan) -> String {
    let Some(now) = after.steps.iter().find(|now| now.uid == step.uid) else { return "gone".to_owned() };
    let did = match step.effect() {
        Effect::StaysOff => "was off",
        _ => "stopped",
    };
    format!("{did}; {} afterwards", afterwards(now))
}

pub async fn undrain(app: &App, undrain: Undrain) -> Result<()> {
    let name = names::top("hosts", &undrain.host)?;
    // Who was stopped for it is known only until it is over.
    let before = plan(app, &name).await?;
    let request = v1::UndrainHostRequest { name: name.clone(), request_id: undrain.request.get() };
    let host = app.plane()?.call(request, async |plane, r| plane.hosts().undrain_host(r).await).await?;
    if undrain.wait.wait {
        let starting = before.steps.into_iter().filter(|step| step.starts_again).map(|step| step.instance).collect();
        wait::until_started(app, starting, undrain.wait.timeout).await?;
    }
    app.out.did(&host, "is not under maintenance any more")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(effect: Effect, starts_again: bool) -> v1::DrainStep {
        v1::DrainStep {
            instance: "tenants/acme/instances/web".into(),
            uid: "1".into(),
            effect: effect.into(),
            message: "it is asked".into(),
            starts_again,
        }
    }

    #[test]
    fn a_preview_that_was_written_is_read_as_it_was() {
        let plan = v1::DrainPlan { host: "hosts/h1".into(), steps: vec![step(Effect::Stops, true)] };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("plan.json");
        let value = proto_json::to_value(v1::DrainPlan::MESSAGE, &plan).unwrap();
        std::fs::write(&file, value.to_string()).unwrap();
        assert_eq!(read(&file).unwrap(), plan);
        std::fs::write(&file, r#"{"host": "hosts/h1", "stepz": []}"#).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("stepz"));
    }

    #[test]
    fn each_instance_is_told_what_became_of_it() {
        let after = v1::DrainPlan { host: String::new(), steps: vec![step(Effect::StaysOff, true)] };
        assert_eq!(became(&step(Effect::Stops, true), &after), "stopped; starts again afterwards");
        assert_eq!(became(&step(Effect::StaysOff, false), &after), "was off; starts again afterwards");
        assert_eq!(became(&step(Effect::Leaves, false), &v1::DrainPlan::default()), "gone");
    }
}
