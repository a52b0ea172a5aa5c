//! What `main` does with a parsed command line.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::CommandFactory as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::{Clock, jitter};
use crate::config::{Backend, Cli, Command, EnrolArgs, RunArgs};
use crate::devices::{self, simulate};
use crate::enrol::{self, Invitation};
use crate::host_report::Source;
use crate::hypervisor::Hypervisor;
use crate::hypervisor::libvirt::Libvirt;
use crate::hypervisor::simulated::Simulated;
use crate::identity::Identity;
use crate::link::MutualTls;
use crate::{Agent, Config, durable, metrics};

/// Between two attempts to reach a plane that is not there yet.
const KNOCK_AGAIN: Duration = Duration::from_secs(3);
const BROKEN: &str = "a part of the agent panicked (see above); it must be started again, instances go on running";
const LOCK_TRIES: u32 = 10;
const LOCK_AGAIN: Duration = Duration::from_millis(100);

/// Until the work is done or a signal ends it. An error is for the operator, and the exit code is 1.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Enrol(args) => enrol(args).await,
        Command::Run(args) => agent(*args).await,
        Command::Manual(manual) => croft_program::write_manual(Cli::command(), "8", &manual.directory)
            .with_context(|| manual.directory.display().to_string()),
        // In a process without a runtime: see `main`.
        Command::DeviceHelper { .. } => Ok(()),
    }
}

async fn enrol(args: EnrolArgs) -> anyhow::Result<()> {
    let state_dir = args.plane.state_dir;
    let _only = lock(&state_dir)?;
    let invitation =
        Invitation { server: args.plane.server, ca_file: args.ca_file, token: args.token, host_id: args.host_id };
    let identity = enrol::enrol(&invitation, &state_dir).await?;
    tracing::info!(host = identity.host_id, state_dir = %state_dir.display(), "enrolled");
    Ok(())
}

async fn agent(args: RunArgs) -> anyhow::Result<()> {
    let state_dir = args.plane.state_dir.clone();
    let _only = lock(&state_dir)?;
    let clock = Clock::system();
    let identity = if Identity::exists(&state_dir) { Identity::load(&state_dir)? } else { first_start(&args).await? };
    if let Err(expired) = identity.check(clock.wall()) {
        // Not the end: instances are looked after without the plane, this clock may be wrong, and the plane has the word.
        tracing::error!("{expired}");
    }

    let connect = Arc::new(MutualTls { server: args.plane.server.clone(), state_dir: state_dir.clone() });
    let mut config = Config::new(&state_dir, connect, Source::Machine(args.host_root.clone()));
    config.renew = Some(state_dir.clone());
    config.console_logs = args.console_log.limits();
    let backend = if args.simulated.simulate.is_some() { Backend::Simulated } else { args.backend };
    let hypervisor: Arc<dyn Hypervisor> = match backend {
        Backend::Libvirt => {
            let machine = devices::Config::machine(args.devices.device_root, args.devices.nvml_library);
            config.devices = Some(devices::Config { cgroups: devices::delegated_cgroup(), ..machine });
            let libvirt = args.libvirt.into_config(state_dir);
            tokio::task::spawn_blocking(move || Libvirt::open(libvirt)).await??
        }
        Backend::Simulated => {
            let directory = args.simulated.sim_dir.unwrap_or_else(|| state_dir.join("simulated"));
            let observation = Box::new(args.simulated.sim_capacity.observation());
            config.inventory = Source::Fixed(observation.clone());
            let simulated = match args.simulated.simulate {
                None => Simulated::open(directory, args.simulated.sim_capacity)?,
                Some(preset) => {
                    let machine = directory.join("machine");
                    let library = args.devices.nvml_library.map_or_else(simulate::library, Ok)?;
                    let host = simulate::ensure(&preset, &machine)?;
                    config.inventory = Source::Simulated(observation, machine.clone());
                    config.devices = Some(devices::Config::simulated(&machine, library));
                    Simulated::open_with_devices(directory, args.simulated.sim_capacity, host)?
                }
            };
            config.console_directory = simulated.console_directory();
            simulated
        }
    };
    config.metrics = metrics::Metrics::of_host(&identity.host_id);
    let mut agent = Agent::spawn(config, hypervisor).await?;
    let at = args.metrics_listen;
    let at = metrics::serve(at, agent.metrics(), agent.tasks().clone())
        .await
        .with_context(|| format!("--metrics-listen {at}: can not listen there"))?;
    tracing::info!(host = identity.host_id, metrics = %at, version = croft_program::version(), "agent runs");

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let broken = agent.broken();
    let failed = tokio::select! {
        () = broken => Some(BROKEN.to_owned()),
        why = agent.refused() => Some(format!("the control plane: {why}")),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    tracing::info!("agent ends; instances go on running");
    let end = async {
        match &failed {
            // What is broken may never come to its end.
            Some(_) => agent.finish_devices().await,
            None => agent.stop().await,
        }
    };
    tokio::select! {
        () = end => {}
        // Whoever asks twice does not want to wait.
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    match failed {
        Some(why) => bail!("{why}"),
        None => Ok(()),
    }
}

/// Knocks until the plane is there: a host may well start before it.
async fn first_start(args: &RunArgs) -> anyhow::Result<Identity> {
    let (Some(ca_file), Some(token), Some(host_id)) = (&args.ca_file, &args.token, &args.host_id) else {
        bail!(
            "{} holds no certificate: run croft-hostagent enrol first, or give --ca-file, --token and --host-id",
            args.plane.state_dir.display()
        );
    };
    let invitation = Invitation {
        server: args.plane.server.clone(),
        ca_file: ca_file.clone(),
        token: token.clone(),
        host_id: host_id.clone(),
    };
    loop {
        match enrol::enrol(&invitation, &args.plane.state_dir).await {
            Err(enrol::Error::Connect(why)) => tracing::warn!("can not enrol yet: {why}"),
            enrolled => return Ok(enrolled?),
        }
        tokio::time::sleep(jitter(KNOCK_AGAIN)).await;
    }
}

/// Two agents on one state directory would run every instance twice over.
fn lock(state_dir: &Path) -> anyhow::Result<File> {
    durable::private_directory(state_dir)?;
    let path = state_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("{}: can not be created", path.display()))?;
    // An agent that was killed may have left a child that has not yet become the program it was to be: it holds what its
    // parent held, for a moment.
    for attempt in 1.. {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if attempt < LOCK_TRIES => std::thread::sleep(LOCK_AGAIN),
            locked => {
                locked.with_context(|| {
                    format!("{}: another croft-hostagent runs with this state directory", path.display())
                })?;
                break;
            }
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::config::{Cli, Command};

    #[tokio::test]
    async fn a_first_start_needs_all_three() {
        let arguments = ["croft-hostagent", "run", "--server", "p:1", "--ca-file", "ca.pem", "--host-id", "h1"];
        let Command::Run(args) = Cli::parse_from(arguments).command else { panic!("run") };
        let error = first_start(&args).await.expect_err("without a token").to_string();
        assert!(error.contains("--ca-file, --token and --host-id"), "{error}");
    }
}
