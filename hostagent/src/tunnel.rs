//! Bytes of one console, console log or port-forward, on a call of its own.
//!
//! The plane asks over the session; the agent dials `Agent.Tunnel` and says which session it serves. One frame is in
//! flight towards a guest at a time and a few towards the plane, so whoever reads slowly slows down whoever writes.
//! Each direction ends with one Close.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use croft_proto::agent::v1::agent_client::AgentClient;
use croft_proto::agent::v1::{OpenTunnel, TunnelFrame, open_tunnel, tunnel_frame};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::driver::Shared;
use crate::hypervisor::{Duplex, Hypervisor};

const FRAME: usize = 32 * 1024;
/// Frames that may wait for the plane.
const WINDOW: usize = 4;
/// After this side has ended, for the other one to end as well.
const LINGER: Duration = Duration::from_secs(30);
/// More than anybody types at; a plane that asks for more is broken.
const AT_ONCE: usize = 256;

/// Dials, and carries bytes until both directions have ended.
pub(crate) fn spawn(open: OpenTunnel, channel: Channel, shared: &Shared) {
    if shared.metrics.tunnels_open() >= AT_ONCE {
        tracing::warn!(session = open.session, "more than {AT_ONCE} tunnels at once: refused");
        return;
    }
    let counted = shared.metrics.tunnel();
    let hypervisor = std::sync::Arc::clone(&shared.hypervisor);
    shared.tasks.spawn(async move {
        let _counted = counted;
        let session = open.session.clone();
        if let Err(status) = serve(open, channel, &*hypervisor).await {
            tracing::info!(session, "tunnel ended: {}", status.message());
        }
    });
}

async fn serve(open: OpenTunnel, channel: Channel, hypervisor: &dyn Hypervisor) -> Result<(), tonic::Status> {
    let (frames, outgoing) = mpsc::channel(WINDOW);
    let outbox = Outbox(frames);
    // An error means that the call is over, which the call itself says better.
    let _ = outbox.send(tunnel_frame::Kind::Session(open.session.clone())).await;
    let mut inbox = AgentClient::new(channel).tunnel(ReceiverStream::new(outgoing)).await?.into_inner();
    let ended = match target(&open, hypervisor).await {
        Ok(Target::Stream(stream)) => carry(stream, &mut inbox, &outbox).await,
        Ok(Target::Files(files, tail)) => send_files(files, tail, &outbox).await,
        Err(error) => Err(error),
    };
    if let Err(Fault(error)) = ended {
        let _ = outbox.send(close(error)).await;
    }
    // Dropping the answers cancels the call, and with it what has not been sent yet: the plane ends it when it has heard
    // everything.
    drop(outbox);
    let _ = tokio::time::timeout(LINGER, async { while let Ok(Some(_)) = inbox.message().await {} }).await;
    Ok(())
}

enum Target {
    Stream(Box<dyn Duplex>),
    /// With how many of the last bytes are wanted; 0: all.
    Files(Vec<PathBuf>, u64),
}

/// What the other side is told in the Close.
struct Fault(String);

impl<E: std::fmt::Display> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

async fn target(open: &OpenTunnel, hypervisor: &dyn Hypervisor) -> Result<Target, Fault> {
    let uid = Uuid::try_parse(&open.instance_uid)?;
    match &open.target {
        Some(open_tunnel::Target::Console(_)) => Ok(Target::Stream(hypervisor.console(uid).await?)),
        Some(open_tunnel::Target::ConsoleLog(log)) => {
            let tail = u64::try_from(log.tail_bytes).unwrap_or(0);
            Ok(Target::Files(hypervisor.console_log(uid).await?, tail))
        }
        Some(open_tunnel::Target::Port(port)) => {
            let port = u16::try_from(port.port).ok().filter(|port| *port > 0);
            let port = port.ok_or("the port must be 1 to 65535")?;
            Ok(Target::Stream(hypervisor.connect(uid, port).await?))
        }
        None => Err("this agent does not know what the tunnel is to: upgrade it".into()),
    }
}

/// Both directions, until both have ended.
async fn carry(stream: Box<dyn Duplex>, inbox: &mut Streaming<TunnelFrame>, outbox: &Outbox) -> Result<(), Fault> {
    let (from_guest, to_guest) = tokio::io::split(stream);
    let mut up = std::pin::pin!(send_bytes(from_guest, outbox));
    let mut down = std::pin::pin!(write_frames(inbox, to_guest));
    tokio::select! {
        ended = &mut up => {
            ended?;
            outbox.send(close(String::new())).await?;
            tokio::time::timeout(LINGER, down).await.unwrap_or(Ok(()))
        }
        ended = &mut down => {
            ended?;
            // The guest has seen end of file; it may still have something to say.
            tokio::time::timeout(LINGER, up).await.unwrap_or(Ok(()))?;
            outbox.send(close(String::new())).await
        }
    }
}

async fn send_bytes(mut from: impl AsyncRead + Unpin, outbox: &Outbox) -> Result<(), Fault> {
    let mut buffer = BytesMut::with_capacity(FRAME);
    loop {
        buffer.reserve(FRAME);
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        outbox.send(tunnel_frame::Kind::Data(buffer.split().to_vec())).await?;
    }
}

async fn write_frames(inbox: &mut Streaming<TunnelFrame>, mut to: impl AsyncWrite + Unpin) -> Result<(), Fault> {
    loop {
        let frame = inbox.message().await.map_err(|status| Fault(status.message().to_owned()))?;
        match frame.and_then(|frame| frame.kind) {
            Some(tunnel_frame::Kind::Data(data)) => {
                to.write_all(&data).await?;
                to.flush().await?;
            }
            Some(tunnel_frame::Kind::Session(_)) => {}
            // A Close, or the call ended without one.
            Some(tunnel_frame::Kind::Close(_)) | None => {
                // A guest that is gone cannot be told.
                let _ = to.shutdown().await;
                return Ok(());
            }
        }
    }
}

/// The last `tail` bytes of the files together, oldest first; 0: all.
async fn send_files(files: Vec<PathBuf>, tail: u64, outbox: &Outbox) -> Result<(), Fault> {
    let mut open = Vec::new();
    let mut total = 0;
    for path in files {
        // Opened first, so that a rotation from here on moves nothing under our feet.
        match File::open(&path).await {
            Ok(file) => {
                let bytes = file.metadata().await?.len();
                total += bytes;
                open.push((file, bytes));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Fault(format!("{}: {error}", path.display()))),
        }
    }
    let mut skip = if tail == 0 { 0 } else { total.saturating_sub(tail) };
    for (mut file, bytes) in open {
        let from = skip.min(bytes);
        skip -= from;
        file.seek(SeekFrom::Start(from)).await?;
        // Not what is written from now on: a chatty guest would never let the log end.
        send_bytes(file.take(bytes - from), outbox).await?;
    }
    outbox.send(close(String::new())).await
}

struct Outbox(mpsc::Sender<TunnelFrame>);

impl Outbox {
    async fn send(&self, kind: tunnel_frame::Kind) -> Result<(), Fault> {
        self.0.send(TunnelFrame { kind: Some(kind) }).await.map_err(|_| "the call ended".into())
    }
}

fn close(error: String) -> tunnel_frame::Kind {
    tunnel_frame::Kind::Close(tunnel_frame::Close { error })
}
