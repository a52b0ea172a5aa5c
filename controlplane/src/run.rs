//! The process around a plane: signals, limits, and the service manager.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::CommandFactory as _;
use croft_core::time::SystemClock;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Arguments, Command, Config};
use crate::{Plane, admin};

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(config) => serve(config).await,
        Command::Admin(command) => admin::run(command).await,
        Command::Manual(manual) => croft_program::write_manual(Arguments::command(), "8", &manual.directory)
            .with_context(|| manual.directory.display().to_string()),
    }
}

async fn serve(config: Config) -> Result<()> {
    let mut signals = Signals::listen()?;
    raise_file_limit(config.max_connections);
    let mut plane = Plane::start(config, Arc::new(SystemClock)).await?;
    notify("READY=1");
    tokio::select! {
        name = signals.next() => tracing::info!(signal = name, "told to stop"),
        error = plane.failed() => {
            plane.kill().await;
            return Err(error);
        }
    }
    notify("STOPPING=1");
    tokio::select! {
        stopped = plane.stop() => stopped,
        name = signals.next() => bail!("{name} again: not waiting for open calls"),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they no longer kill the process.
    fn listen() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The usual 1024 open files are fewer than the connections that are let in.
fn raise_file_limit(connections: u32) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Besides the connections: the database, its readers, logs, metrics.
    let wanted = u64::from(connections) + 256;
    let reachable = limit.maximum.map_or(wanted, |most| most.min(wanted));
    if limit.current.is_some_and(|current| current < reachable) {
        let raised = Rlimit { current: Some(reachable), maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
    if reachable < wanted {
        tracing::warn!(reachable, wanted, "fewer open files than --max-connections needs (ulimit -n, LimitNOFILE=)");
    }
}

/// sd_notify(3): `Type=notify` units learn when the plane serves. Without systemd there is nobody to tell.
fn notify(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = match path.to_string_lossy().strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    }
    .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager was not told `{state}`");
    }
}
