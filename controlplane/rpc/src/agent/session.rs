//! Agent.Session: desired state down, truth up, for as long as the agent lives.
//!
//! ```text
//!  agent                               plane
//!    Hello{versions, features, epoch} ──►
//!                                     ◄── Welcome{version}
//!                                     ◄── Sync(epoch, revision): everything
//!    SyncDone(epoch, revision) ────────►  journaled
//!    Observation, Heartbeat, … ────────►  into the store where it differs; renews the lease
//!                                     ◄── Change: what differs from what was sent, OpenTunnel
//! ```
//! One session for each host: a newer one ends the older. A stream that is silent for a lease is dropped, and so is an
//! agent that does not read. Nothing here is remembered: the next session begins with everything.

use std::time::Duration;

use croft_core::id::HostId;
use croft_core::{Error, Reason, Result, host};
use croft_proto::agent::v1 as wire;
use futures::stream::{BoxStream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use wire::{agent_message, plane_message};

use super::negotiate;
use super::observe::Observer;
use super::sent::{Sent, Wanted};
use crate::api::Api;
use crate::auth::ended;
use crate::caller::Caller;
use crate::hub::Session;
use crate::status::{clip, status};
use crate::tunnel::first;

/// Messages that the agent has not taken yet.
const WINDOW: usize = 16;
/// When nobody said that there is something new: for lost hints and what other replicas wrote.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Of what an agent says of itself, and of each word of it.
const FEATURES_MAX: usize = 256;
const WORD_MAX: usize = 100;

type Outbox = mpsc::Sender<Result<wire::PlaneMessage, Status>>;

/// Answers at once: an agent may wait for the answer's head before it says Hello.
pub fn spawn(
    api: Api,
    caller: Caller,
    host: HostId,
    inbox: Streaming<wire::AgentMessage>,
) -> BoxStream<'static, Result<wire::PlaneMessage, Status>> {
    let (outbox, messages) = mpsc::channel(WINDOW);
    tokio::spawn(async move {
        let result = tokio::select! {
            result = converse(&api, &host, inbox, outbox.clone()) => result,
            status = ended(api.clone(), caller) => Err(status),
            () = outbox.closed() => Ok(()),
        };
        match result {
            Ok(()) => tracing::info!(%host, "the agent's session ended"),
            Err(status) => {
                tracing::warn!(%host, code = ?status.code(), "the agent's session ended: {}", status.message());
                // An agent that does not read will not read this either.
                let _ = timeout(host::LEASE, outbox.send(Err(status))).await;
            }
        }
    });
    ReceiverStream::new(messages).boxed()
}

async fn converse(
    api: &Api,
    host: &HostId,
    mut inbox: Streaming<wire::AgentMessage>,
    outbox: Outbox,
) -> Result<(), Status> {
    let Some(agent_message::Kind::Hello(hello)) = first(&mut inbox, "hello").await?.kind else {
        return Err(status(Error::invalid("hello", "must be the first message")));
    };
    let protocol = negotiate::protocol(host.as_str(), &hello).map_err(status)?;
    let session = api.deps.hub.sessions().open(host);
    let (version, boot_id) = (clip(&hello.agent_version, WORD_MAX), clip(&hello.boot_id, WORD_MAX));
    tracing::info!(%host, protocol, version, boot_id, "an agent's session begins");
    let heartbeat_seconds = i32::try_from(host::HEARTBEAT.as_secs()).unwrap_or(i32::MAX);
    let welcome = wire::Welcome { protocol, host_id: host.to_string(), heartbeat_seconds };
    send(&outbox, plane_message::Kind::Welcome(welcome)).await.map_err(status)?;
    api.deps.wake.hosts();

    let mut observer = Observer {
        api: api.clone(),
        host: host.clone(),
        features: hello.features.iter().take(FEATURES_MAX).map(|feature| clip(feature, WORD_MAX)).collect(),
        boot_id,
        epoch: hello.epoch,
    };
    // Side by side: an agent that is slow to read must still be heard, and one that talks much must still be told.
    tokio::select! {
        result = listen(&session, inbox, &mut observer) => result,
        result = tell(api, host, &session, &outbox) => result.map_err(status),
        () = session.replaced.cancelled() => {
            let message = format!("a newer session of hosts/{host} took over");
            Err(status(Error::Unavailable { reason: Reason::Unavailable, message }))
        }
    }
}

/// Until the agent hangs up, or is silent for too long.
async fn listen(
    session: &Session,
    mut inbox: Streaming<wire::AgentMessage>,
    observer: &mut Observer,
) -> Result<(), Status> {
    let silent = || {
        let message = format!("nothing was heard for {} s", host::LEASE.as_secs());
        status(Error::Unavailable { reason: Reason::HostUnreachable, message })
    };
    loop {
        let Some(message) = timeout(host::LEASE, inbox.message()).await.map_err(|_| silent())?? else {
            return Ok(());
        };
        session.heard();
        match message.kind {
            Some(agent_message::Kind::Observation(seen)) => observer.observe(seen).await.map_err(status)?,
            Some(agent_message::Kind::SyncDone(done)) => synced(observer, done).await.map_err(status)?,
            Some(agent_message::Kind::Heartbeat(wire::Heartbeat {})) => {}
            Some(agent_message::Kind::Hello(_)) => {
                return Err(status(Error::invalid("hello", "is the first message, and only that")));
            }
            // From a later protocol; what we must act on has a version of its own.
            None => {}
        }
    }
}

/// The agent has journaled what it was told: from here on its silence about a removed instance means something.
async fn synced(observer: &mut Observer, done: wire::SyncDone) -> Result<()> {
    let wire::SyncDone { epoch, revision } = done;
    observer.epoch = epoch;
    let store = observer.api.store();
    store.host_synced(&observer.host, epoch, revision);
    store.host_epoch_confirmed(&observer.host, epoch).await?;
    observer.api.deps.wake.hosts();
    Ok(())
}

/// Says what is new whenever somebody thinks that something is.
async fn tell(api: &Api, host: &HostId, session: &Session, outbox: &Outbox) -> Result<()> {
    let mut sent = Sent::default();
    let mut tunnels = session.open_tunnels.lock().await;
    loop {
        let wanted = Wanted::new(api.store().host_desired(host).await?)?;
        let revision = wanted.revision;
        if let Some(message) = sent.next(wanted) {
            send(outbox, message).await?;
        }
        loop {
            tokio::select! {
                () = session.wake.notified() => break,
                // Thousands of hosts look; most of the time nothing at all was written since.
                () = tokio::time::sleep(LOOK_EVERY) => {
                    if api.store().revision().await? != revision {
                        break;
                    }
                }
                Some(open) = tunnels.recv() => send(outbox, plane_message::Kind::OpenTunnel(open)).await?,
            }
        }
    }
}

async fn send(outbox: &Outbox, kind: plane_message::Kind) -> Result<()> {
    let message = wire::PlaneMessage { kind: Some(kind) };
    match timeout(host::LEASE, outbox.send(Ok(message))).await {
        // Closed: whoever waits for that ends the session.
        Ok(_) => Ok(()),
        Err(_) => {
            let message = format!("the agent took nothing for {} s", host::LEASE.as_secs());
            Err(Error::Unavailable { reason: Reason::HostUnreachable, message })
        }
    }
}
