//! One session: from the Hello to whatever ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use croft_proto::agent::v1::agent_client::AgentClient;
use croft_proto::agent::v1::{AgentMessage, Heartbeat, Hello, PlaneMessage, SyncDone, agent_message, plane_message};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::{PROTOCOL, heartbeat, observer, tls};
use crate::driver::Shared;
use crate::features;
use crate::supervisor::Supervisor;
use crate::tunnel;

/// The plane answers a Hello at once, or it is not there.
const PATIENCE: Duration = Duration::from_secs(30);
const DEFAULT_HEARTBEAT: i32 = 5;

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// Dial again.
    Closed(String),
    /// The plane will not have this host; what to do is in the words.
    Refused(String),
}

/// Messages to the plane. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    stream: mpsc::Sender<AgentMessage>,
    used: Arc<AtomicBool>,
}

/// The session is over.
#[derive(Debug)]
pub(super) struct Over;

impl Outbox {
    pub(super) async fn send(&self, kind: agent_message::Kind) -> Result<(), Over> {
        self.used.store(true, Ordering::Relaxed);
        self.stream.send(AgentMessage { kind: Some(kind) }).await.map_err(|_| Over)
    }

    pub(super) async fn heartbeat(&self) -> Result<(), Over> {
        let sent = self.send(agent_message::Kind::Heartbeat(Heartbeat {})).await;
        self.used.store(false, Ordering::Relaxed);
        sent
    }

    pub(super) fn sent_since_last_asked(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

/// Until it ends. Dropping the future ends it as well.
pub(super) async fn run(channel: Channel, host_id: Option<String>, supervisor: &Supervisor, shared: &Shared) -> Ended {
    match converse(channel, host_id, supervisor, shared).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

async fn converse(
    channel: Channel,
    host_id: Option<String>,
    supervisor: &Supervisor,
    shared: &Shared,
) -> Result<std::convert::Infallible, Ended> {
    let boot_id = shared.hypervisor.boot_id().await.map_err(|error| Ended::Closed(error.to_string()))?;
    let (stream, outgoing) = mpsc::channel(16);
    let outbox = Outbox { stream, used: Arc::default() };
    let hello = Hello {
        protocol_min: *PROTOCOL.start(),
        protocol_max: *PROTOCOL.end(),
        agent_version: croft_program::version().to_owned(),
        boot_id: boot_id.clone(),
        features: features::ALL.iter().map(ToString::to_string).collect(),
        epoch: supervisor.epoch().await,
    };
    // Before the call: the plane may answer with headers only once it has read it.
    outbox.send(agent_message::Kind::Hello(hello)).await.map_err(over)?;
    let mut client = AgentClient::new(channel.clone());
    let opening = async {
        let mut inbox =
            client.session(ReceiverStream::new(outgoing)).await.map_err(|status| refused(&status))?.into_inner();
        let first = inbox.message().await.map_err(|status| refused(&status))?;
        Ok::<_, Ended>((inbox, first))
    };
    let silence = || Ended::Closed(format!("no answer to the Hello in {} s", PATIENCE.as_secs()));
    let (inbox, first) = tokio::time::timeout(PATIENCE, opening).await.unwrap_or_else(|_| Err(silence()))?;
    let every = welcome(first, host_id.as_deref())?;
    tracing::info!("session with the control plane is open");
    shared.plane.set(Some(channel.clone()));
    shared.metrics.link_up(true);

    let (synced, first_sync) = oneshot::channel();
    let conversation = Conversation { channel, outbox: outbox.clone(), supervisor, shared, boot_id: boot_id.clone() };
    tokio::select! {
        ended = conversation.listen(inbox, synced) => Err(ended),
        Over = observer::run(first_sync, supervisor, shared, outbox.clone()) => Err(over(Over)),
        () = heartbeat(shared.clock.clone(), every, outbox) => Err(over(Over)),
        () = reboot(shared, &boot_id) => {
            supervisor.boot_changed();
            Err(Ended::Closed("the machine has another boot id".to_owned()))
        }
    }
}

/// The first message of the plane.
fn welcome(first: Option<PlaneMessage>, host_id: Option<&str>) -> Result<Duration, Ended> {
    let Some(plane_message::Kind::Welcome(welcome)) = first.and_then(|message| message.kind) else {
        return Err(Ended::Closed("it did not answer the Hello with a Welcome".to_owned()));
    };
    if !PROTOCOL.contains(&welcome.protocol) {
        return Err(Ended::Closed(format!(
            "it speaks agent protocol {}, this agent {} to {}: upgrade whichever is older",
            welcome.protocol,
            PROTOCOL.start(),
            PROTOCOL.end()
        )));
    }
    if let Some(mine) = host_id.filter(|mine| *mine != welcome.host_id) {
        return Err(Ended::Refused(format!(
            "it takes this host for {:?}, its certificate says {mine:?}",
            welcome.host_id
        )));
    }
    let seconds = if welcome.heartbeat_seconds > 0 { welcome.heartbeat_seconds } else { DEFAULT_HEARTBEAT };
    Ok(Duration::from_secs(u64::from(seconds.unsigned_abs())))
}

struct Conversation<'a> {
    channel: Channel,
    outbox: Outbox,
    supervisor: &'a Supervisor,
    shared: &'a Shared,
    boot_id: String,
}

impl Conversation<'_> {
    /// Carries out what the plane says, in order. `synced` is told when the first Sync is on the disk.
    async fn listen(&self, mut inbox: Streaming<PlaneMessage>, synced: oneshot::Sender<()>) -> Ended {
        let mut synced = Some(synced);
        loop {
            let message = match inbox.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Ended::Closed("it ended the session".to_owned()),
                Err(status) => return refused(&status),
            };
            let reached = match message.kind {
                Some(plane_message::Kind::Sync(sync)) => self.supervisor.sync(sync, &self.boot_id).await,
                Some(plane_message::Kind::Change(change)) => self.supervisor.change(change).await,
                Some(plane_message::Kind::OpenTunnel(open)) => {
                    tunnel::spawn(open, self.channel.clone(), self.shared);
                    continue;
                }
                // A Welcome out of turn, or something from a later protocol: nothing that this agent must act on.
                Some(plane_message::Kind::Welcome(_)) | None => continue,
            };
            let (epoch, revision) = match reached {
                Ok(reached) => reached,
                Err(error) => return Ended::Closed(format!("{:#}", anyhow::Error::new(error))),
            };
            let done = agent_message::Kind::SyncDone(SyncDone { epoch, revision });
            if self.outbox.send(done).await.is_err() {
                return over(Over);
            }
            if let Some(synced) = synced.take() {
                let _ = synced.send(());
            }
        }
    }
}

/// Returns when this is not the boot any more that the plane was told of.
async fn reboot(shared: &Shared, boot_id: &str) {
    let mut looks = shared.surveyor.watch();
    let another = |look: &Option<Arc<crate::surveyor::Look>>| {
        look.as_ref().is_some_and(|look| look.outcome.is_ok() && look.boot_id != boot_id)
    };
    if looks.wait_for(another).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn over(Over: Over) -> Ended {
    Ended::Closed("the session ended".to_owned())
}

/// What a status at the start of a session, or in it, means for this host.
fn refused(status: &Status) -> Ended {
    let message = status.message();
    if let Some(why) = tls::explain(status) {
        return Ended::Refused(why);
    }
    match status.code() {
        Code::Unauthenticated => Ended::Refused(format!(
            "it does not accept this host's certificate ({message}); if the host was deleted or its certificate has \
             expired, enrol it again with a new token: croft-hostagent enrol"
        )),
        Code::PermissionDenied => Ended::Refused(format!("it refuses this host: {message}")),
        Code::FailedPrecondition => Ended::Closed(format!("it refuses the session: {message}")),
        code => Ended::Closed(format!("{code:?}: {message}")),
    }
}
