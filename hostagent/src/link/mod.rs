//! The line to the control plane: the host dials, the plane never does.
//!
//! ```text
//! dial ─► Hello ─► Welcome ─► Sync ─► (journal) ─► SyncDone ─► Observation{complete} ─► changes both ways ─► …
//!   ▲                                                                                                        │
//!   └───────────────────── back-off with jitter, 1 s to 30 s ◄──────────────── anything that goes wrong ─────┘
//! ```
//!
//! Losing the line stops no VM: drivers go on with what the journal says. Bytes of consoles and port-forwards go over
//! calls of their own (`crate::tunnel`), so that they never hold up state.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tonic::transport::Channel;

use crate::clock::{Clock, jitter};
use crate::driver::Shared;
use crate::supervisor::Supervisor;

mod observer;
mod session;
mod tls;

pub use session::Ended;
pub use tls::MutualTls;
pub(crate) use tls::{dial, endpoint};

/// The protocol versions that this agent speaks.
pub const PROTOCOL: std::ops::RangeInclusive<i32> = 1..=1;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// A session this long forgives the failures before it.
const GOOD_SESSION: Duration = Duration::from_secs(60);

/// Makes a connection to the plane: over TLS in production, any channel in stories.
#[async_trait]
pub trait Connect: Send + std::marker::Sync + 'static {
    async fn connect(&self) -> Result<Channel, ConnectError>;

    /// The host that this agent has a certificate for, when it has one: the plane must agree.
    fn host_id(&self) -> Option<String> {
        None
    }
}

/// What stood in the way, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Will pass: the plane is down, the network is.
    #[error("{0}")]
    Unreachable(String),
    /// Will not pass by itself: the wrong certificate on this side or on the other.
    #[error("{0}")]
    Refused(String),
}

/// A channel that is there already.
#[derive(Debug, Clone)]
pub struct Fixed(pub Channel);

#[async_trait]
impl Connect for Fixed {
    async fn connect(&self) -> Result<Channel, ConnectError> {
        Ok(self.0.clone())
    }
}

/// Dials, holds the session, dials again; returns never, or with the words for an operator when the plane refuses this
/// host and there is nothing on it to look after.
pub(crate) async fn run(connect: Arc<dyn Connect>, supervisor: Supervisor, shared: Shared) -> String {
    let mut failures = 0_u32;
    loop {
        let began = shared.clock.steady();
        let ended = attempt(&*connect, &supervisor, &shared).await;
        shared.plane.set(None);
        shared.metrics.link_up(false);
        match &ended {
            Ended::Closed(why) => tracing::warn!("the control plane: {why}; instances go on running"),
            Ended::Refused(why) => {
                tracing::error!("the control plane: {why}");
                if supervisor.entries().is_empty() {
                    return why.clone();
                }
            }
        }
        let lasted_well = began.plus(GOOD_SESSION).left(shared.clock.steady()).is_none();
        failures = if lasted_well { 0 } else { failures.saturating_add(1) };
        shared.clock.sleep(pause(failures)).await;
    }
}

async fn attempt(connect: &dyn Connect, supervisor: &Supervisor, shared: &Shared) -> Ended {
    match connect.connect().await {
        Ok(channel) => {
            shared.metrics.dialled("ok");
            session::run(channel, connect.host_id(), supervisor, shared).await
        }
        Err(ConnectError::Unreachable(why)) => {
            shared.metrics.dialled("unreachable");
            Ended::Closed(why)
        }
        Err(ConnectError::Refused(why)) => {
            shared.metrics.dialled("refused");
            Ended::Refused(why)
        }
    }
}

fn pause(failures: u32) -> Duration {
    jitter(SHORTEST.saturating_mul(1 << failures.saturating_sub(1).min(5)).min(LONGEST))
}

/// Sends a heartbeat whenever nothing else was sent for that long.
async fn heartbeat(clock: Clock, every: Duration, outbox: session::Outbox) {
    loop {
        clock.sleep(every).await;
        if !outbox.sent_since_last_asked() && outbox.heartbeat().await.is_err() {
            return;
        }
    }
}
