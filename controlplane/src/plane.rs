//! A running control plane: everything wired, started in order and ended in order.
//!
//! It has a runtime of its own, so that [`Plane::kill`] can end every task at its next breath, as a crash would, while the
//! process goes on: stories do that. Several planes can live in one process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use croft_core::Clock;
use croft_core::join::ports::Clusters;
use croft_engine::Engine;
use croft_kube::KubeClusters;
use croft_store::Store;
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::datadir::{DataDir, Lock};
use crate::files;
use crate::serve::Health;
use crate::wiring::{Assembled, assemble};

/// How long a kill waits for worker threads to let go of sockets and files.
const LET_GO: Duration = Duration::from_secs(5);

/// Where it listens and what is needed to talk to it; ended by [`Plane::stop`] or [`Plane::kill`].
#[derive(Debug)]
pub struct Plane {
    pub api_addr: SocketAddr,
    pub metrics_addr: SocketAddr,
    /// What clients and agents trust.
    pub ca_pem: String,
    /// As in the file admin.token, if that is (still) there.
    pub admin_token: Option<String>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    threads: Threads,
    parts: Parts,
}

/// What lives on the plane's runtime.
#[derive(Debug)]
pub struct Parts {
    pub directory: DataDir,
    pub store: Store,
    pub engine: Engine,
    pub health: Health,
    /// Ends the port, streams and whatever else goes on.
    pub shutdown: CancellationToken,
    /// What `/readyz` says of us.
    pub serving: Arc<AtomicBool>,
    pub api: JoinHandle<Result<()>>,
    pub chores: JoinSet<()>,
    pub grace: Duration,
    /// Given back last.
    pub lock: Lock,
}

impl Plane {
    /// Returns when it serves. `clock` decides leases, expiry and certificates alike: clients check certificates by
    /// their own clocks, so one that tests move must begin near the machine's.
    pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let clusters = KubeClusters::allowing(config.tenant_cluster_allow_prefixes.clone());
        Self::start_with(config, clock, Arc::new(clusters)).await
    }

    /// The same, with clusters of the caller's making: stories have some in memory.
    pub async fn start_with(config: Config, clock: Arc<dyn Clock>, clusters: Arc<dyn Clusters>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("croft-plane")
            .enable_all()
            .build()
            .context("no threads for the control plane")?;
        let started = tokio::task::spawn_blocking(move || {
            let assembled = runtime.block_on(assemble(config, clock, clusters));
            (runtime, assembled)
        });
        let (runtime, assembled) = started.await.context("the start of the control plane panicked")?;
        let threads = Threads(Some(runtime));
        match assembled {
            Ok(assembled) => {
                let Assembled { parts, api_addr, metrics_addr, ca_pem } = assembled;
                let token = files::read(&parts.directory.admin_token())?;
                let admin_token = token.map(|text| String::from_utf8_lossy(&text).trim().to_owned());
                Ok(Self { api_addr, metrics_addr, ca_pem, admin_token, running: Some(Running { threads, parts }) })
            }
            Err(error) => {
                threads.end().await;
                Err(error)
            }
        }
    }

    /// For stories, which look behind the API.
    ///
    /// # Panics
    /// After `kill` or `stop`; both take the plane, so nobody gets there.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.parts().store
    }

    /// For stories, which move the clock and want its consequences now.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.parts().engine
    }

    /// Returns, with the reason, only if the plane ends without having been told to.
    pub async fn failed(&mut self) -> anyhow::Error {
        let Some(running) = &mut self.running else { return anyhow::anyhow!("the control plane was stopped") };
        let parts = &mut running.parts;
        tokio::select! {
            why = parts.engine.failed() => anyhow::anyhow!(why),
            ended = &mut parts.api => match ended {
                Ok(Ok(())) => anyhow::anyhow!("the API ended by itself"),
                Ok(Err(error)) => error,
                Err(error) => anyhow::anyhow!("the API ended by itself: {error}"),
            },
        }
    }

    /// Health turns first; then streams are ended and open calls finish, for as long as the grace lasts.
    pub async fn stop(mut self) -> Result<()> {
        let Some(Running { threads, parts }) = self.running.take() else { return Ok(()) };
        let Some(runtime) = &threads.0 else { return Ok(()) };
        let stopped = runtime.spawn(parts.stop()).await.context("the stop of the control plane panicked");
        threads.end().await;
        stopped?
    }

    /// As kill -9 would, as far as that goes inside of a process: no task comes further than its next await, nothing is
    /// answered, closed or written down. When this returns, port, database and lock are free.
    pub async fn kill(mut self) {
        if let Some(Running { threads, parts }) = self.running.take() {
            threads.end().await;
            drop(parts);
        }
    }

    fn parts(&self) -> &Parts {
        &self.running.as_ref().expect("running until it is taken by stop or kill").parts
    }
}

/// The plane's own runtime.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Threads {
    /// When this returns, no task of it runs any more.
    async fn end(mut self) {
        if let Some(runtime) = self.0.take() {
            // Waits for threads, so it needs one that may wait. It can only fail by a panic in a destructor.
            let _ = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(LET_GO)).await;
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Whoever drops it may be a task himself, and must not wait.
            runtime.shutdown_background();
        }
    }
}

impl Parts {
    async fn stop(mut self) -> Result<()> {
        tracing::info!("stopping");
        self.serving.store(false, Ordering::Relaxed);
        self.health.stop().await;
        self.shutdown.cancel();
        let ended = tokio::time::timeout(self.grace, &mut self.api).await;
        self.chores.shutdown().await;
        self.engine.stop().await;
        self.store.close().await;
        self.directory.forget_addresses()?;
        drop(self.lock);
        match ended {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => bail!("the API ended by a panic: {error}"),
            Err(_) => {
                tracing::warn!(grace = ?self.grace, "calls that did not finish in time were cut");
                Ok(())
            }
        }
    }
}
