//! `croft gpu`: GPUs, what is cut of them and what still can be. For platform operators; `explain` is for tenants too.

mod board;
mod explain;

use clap::Subcommand;
use croft_proto::v1;

use super::device::{self, KindArg};
use crate::app::App;
use crate::failure::{Failure, Result};
use crate::output::{self, table};
use crate::{names, size};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the GPUs of all hosts
    List {
        /// Only of this host
        #[arg(long)]
        host: Option<String>,
    },
    /// Show one GPU: what it can be cut into, and where there is room
    #[command(visible_alias = "get", after_help = "Example:\n  croft gpu show h1/0000:41:00.0")]
    Show { gpu: String },
    /// Say for each host whether a GPU, or a piece of one, could be had there now, and what would help
    Explain(explain::Explain),
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::List { host } => list(app, host).await,
        Command::Show { gpu } => show(app, &gpu).await,
        Command::Explain(explain) => explain::run(app, explain).await,
    }
}

/// Of one host, or of all.
pub async fn all(app: &App, host: Option<String>) -> Result<Vec<v1::Device>> {
    device::list(app, &device::List { host, kinds: vec![KindArg::Gpu], pool: None }).await
}

async fn list(app: &App, host: Option<String>) -> Result<()> {
    let gpus = all(app, host).await?;
    if !app.out.is_table() || gpus.is_empty() {
        return app.out.list("devices", &gpus);
    }
    let header = ["HOST", "DEVICE", "MODEL", "MEMORY", "MODE", "STATE", "TAKEN", "HELD BY"];
    output::text(&table::plain(&header, gpus.iter().map(row).collect()))
}

fn row(device: &v1::Device) -> Vec<String> {
    let gpu = device.gpu.clone().unwrap_or_default();
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let mood = |text: crate::output::cell::Text| text.as_str().to_owned();
    vec![
        device::host(device).to_owned(),
        names::id(&device.name).to_owned(),
        or_dash(if gpu.model.is_empty() { gpu.product_name.clone() } else { gpu.model.clone() }),
        size::show_mib(gpu.memory_mib),
        mode_word(gpu.mode()).to_owned(),
        mood(device::state(device)),
        or_dash(board::taken(device)),
        or_dash(mood(device::holders(device))),
    ]
}

/// As a layout file spells it.
pub fn mode_word(mode: v1::gpu::Mode) -> &'static str {
    use v1::gpu::Mode;
    match mode {
        Mode::Unspecified => "",
        Mode::Idle => "idle",
        Mode::Passthrough => "passthrough",
        Mode::Vgpu => "vgpu",
        Mode::MigVgpu => "mig-vgpu",
        Mode::Foreign => "foreign",
    }
}

async fn show(app: &App, gpu: &str) -> Result<()> {
    let found = device::get(app, gpu).await?;
    let Some(facts) = &found.gpu else {
        return Err(Failure::usage(format!("{} is no GPU; see `croft device show {gpu}`", found.name)));
    };
    if !app.out.is_table() {
        return app.out.one(&found);
    }
    output::text(&table::plain(
        &["HOST", "DEVICE", "MODEL", "MEMORY", "MODE", "STATE", "TAKEN", "HELD BY"],
        vec![row(&found)],
    ))?;
    for line in board::facts(facts).iter().chain(&device::details(&found)) {
        output::line(line)?;
    }
    if !facts.mig_profiles.is_empty() {
        let header = ["PROFILE", "MEMORY", "SLICES", "COMPUTE", "AT MOST", "ROOM AT"];
        output::text(&format!("\n{}", table::plain(&header, board::profiles(&found, facts))))?;
    }
    if !facts.vgpu_types.is_empty() {
        let header = ["VGPU TYPE", "FRAMEBUFFER", "ON", "AT MOST"];
        output::text(&format!("\n{}", table::plain(&header, board::vgpu_types(facts))))?;
    }
    Ok(())
}
