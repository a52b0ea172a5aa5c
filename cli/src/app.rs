//! What every command has at hand: the chosen context, the connection when it is first needed, the output.

use std::cell::OnceCell;
use std::path::PathBuf;

use clap::CommandFactory as _;

use crate::apply;
use crate::args::{Args, Global, Noun};
use crate::config::{self, Config};
use crate::failure::{Failure, Result};
use crate::noun::{
    audit, cluster, context, device, event, gpu, host, image, instance, network, operation, pool, quota, tenant, token,
};
use crate::output::{self, Output};
use crate::plane::Plane;
use crate::target::Chosen;

#[derive(Debug)]
pub struct App {
    pub out: Output,
    pub chosen: Chosen,
    plane: OnceCell<Plane>,
}

impl App {
    fn new(global: Global) -> Result<Self> {
        let config = Config::load(&config_path()?)?;
        let chosen = Chosen::new(&config, global.context.as_deref(), global.tenant.as_deref(), env)?;
        Ok(Self { out: Output::new(global.output), chosen, plane: OnceCell::new() })
    }

    pub fn plane(&self) -> Result<&Plane> {
        if let Some(plane) = self.plane.get() {
            return Ok(plane);
        }
        let plane = Plane::new(&self.chosen.target()?)?;
        Ok(self.plane.get_or_init(|| plane))
    }

    /// `tenants/acme`
    pub fn tenant(&self) -> Result<String> {
        self.chosen.tenant()
    }

    /// The tenant, or everything that the caller may see.
    pub fn tenant_or_all(&self, everything: bool, all: &str) -> Result<String> {
        let tenant = if everything { None } else { self.chosen.tenant_if_any()? };
        Ok(tenant.unwrap_or_else(|| all.to_owned()))
    }
}

pub fn config_path() -> Result<PathBuf> {
    config::path(env)
}

/// An empty variable is one that is not set.
pub fn env(key: &str) -> Option<String> {
    std::env::var(key).ok().filter(|value| !value.is_empty())
}

pub async fn run(args: Args) -> Result<()> {
    let Args { global, noun } = args;
    match noun {
        // These work without any context, also with one that is broken.
        Noun::Context(command) => context::run(&global, command),
        Noun::Completion { shell } => completion(shell),
        Noun::Cluster(cluster::Command::Manifest) => cluster::print_manifest(),
        Noun::Host(host::Command::Preflight(command)) => host::preflight::run(&Output::new(global.output), command),
        Noun::Manual(manual) => croft_program::write_manual(Args::command(), "1", &manual.directory)
            .map_err(|error| Failure::local(format!("{}: {error}", manual.directory.display()))),
        Noun::Version => version(&Output::new(global.output)),
        Noun::Instance(command) => instance::run(&App::new(global)?, command).await,
        Noun::Image(command) => image::run(&App::new(global)?, command).await,
        Noun::Network(command) => network::run(&App::new(global)?, command).await,
        Noun::Tenant(command) => tenant::run(&App::new(global)?, command).await,
        Noun::Quota(command) => quota::run(&App::new(global)?, command).await,
        Noun::Token(command) => token::run(&App::new(global)?, command).await,
        Noun::Host(command) => host::run(&App::new(global)?, command).await,
        Noun::Gpu(command) => gpu::run(&App::new(global)?, command).await,
        Noun::Device(command) => device::run(&App::new(global)?, command).await,
        Noun::Cluster(command) => cluster::run(&App::new(global)?, command).await,
        Noun::Pool(command) => pool::run(&App::new(global)?, command).await,
        Noun::Operation(command) => operation::run(&App::new(global)?, command).await,
        Noun::Event(command) => event::run(&App::new(global)?, command).await,
        Noun::Audit(command) => audit::run(&App::new(global)?, command).await,
        Noun::Apply(command) => apply::run(&App::new(global)?, command).await,
    }
}

fn completion(shell: clap_complete::Shell) -> Result<()> {
    // clap_complete panics when its writer fails; a pipe that closes early must not.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "croft", &mut script);
    output::bytes(&script)
}

fn version(out: &Output) -> Result<()> {
    let version = croft_program::version();
    if out.is_table() || out.format == output::Format::Name {
        output::line(&format!("croft {version}"))
    } else {
        out.document(&serde_json::json!({ "version": version, "api": "croft.v1" }))
    }
}
