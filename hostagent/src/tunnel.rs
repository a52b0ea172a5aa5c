//! Bytes of one console, console log or port-forward, on a call of its own.
//!
//! The plane asks over the session; the agent dials `Agent.Tunnel` and says which session it serves. One frame is in
//! flight towards a guest at a time and a few towards the plane, so whoever reads slowly slows down whoever writes.
//! Each direction ends with one Close.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use croft_proto::agent::v1::agent_client::AgentClient;
use croft_proto::agent::v1::{OpenTunnel, TunnelFrame, open_tunnel, tunnel_frame};
use futures::{Stream, StreamExt as _};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::driver::Shared;
use crate::hypervisor::{Duplex, Hypervisor};

const FRAME: usize = 32 * 1024;
/// Frames that may wait for the plane.
const WINDOW: usize = 4;
/// After one direction has ended, for the next byte of the other: who has said everything may still listen for long.
const LINGER: Duration = Duration::from_secs(60);
/// After both have, for the plane to have heard it.
const FAREWELL: Duration = Duration::from_secs(30);
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
    let mut client = AgentClient::new(channel);
    let dialled = tokio::time::timeout(FAREWELL, client.tunnel(ReceiverStream::new(outgoing))).await;
    let mut inbox =
        dialled.map_err(|_| tonic::Status::deadline_exceeded("the plane did not take the call"))??.into_inner();
    let ended = match target(&open, hypervisor).await {
        Ok(Target::Stream(stream, linger)) => carry(stream, &mut inbox, &outbox, linger).await,
        Ok(Target::Files(files, tail)) => send_files(files, tail, &outbox).await,
        Err(error) => Err(error),
    };
    if let Err(Fault(error)) = ended {
        let _ = outbox.send(close(error)).await;
    }
    // Dropping the answers cancels the call, and with it what has not been sent yet: the plane ends it when it has heard
    // everything.
    drop(outbox);
    let _ = tokio::time::timeout(FAREWELL, async { while let Ok(Some(_)) = inbox.message().await {} }).await;
    Ok(())
}

enum Target {
    /// How long one direction may be silent after the other has ended: a console is left by whoever leaves it.
    Stream(Box<dyn Duplex>, Duration),
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
        Some(open_tunnel::Target::Console(_)) => Ok(Target::Stream(hypervisor.console(uid).await?, Duration::ZERO)),
        Some(open_tunnel::Target::ConsoleLog(log)) => {
            let tail = u64::try_from(log.tail_bytes).unwrap_or(0);
            Ok(Target::Files(hypervisor.console_log(uid).await?, tail))
        }
        Some(open_tunnel::Target::Port(port)) => {
            let port = u16::try_from(port.port).ok().filter(|port| *port > 0);
            let port = port.ok_or("the port must be 1 to 65535")?;
            Ok(Target::Stream(hypervisor.connect(uid, port).await?, LINGER))
        }
        None => Err("this agent does not know what the tunnel is to: upgrade it".into()),
    }
}

/// Both directions, until both have ended.
async fn carry(
    stream: impl AsyncRead + AsyncWrite,
    inbox: impl Stream<Item = Result<TunnelFrame, tonic::Status>>,
    outbox: &Outbox,
    linger: Duration,
) -> Result<(), Fault> {
    let (from_guest, to_guest) = tokio::io::split(stream);
    let moved = AtomicU64::new(0);
    let mut up = std::pin::pin!(send_bytes(from_guest, outbox, &moved));
    let mut down = std::pin::pin!(write_frames(inbox, to_guest, &moved));
    tokio::select! {
        ended = &mut up => {
            ended?;
            outbox.send(close(String::new())).await?;
            // The other side has heard the end of ours, and nothing can be told it any more.
            let _ = while_it_moves(down, &moved, linger).await;
            Ok(())
        }
        ended = &mut down => {
            ended?;
            // The guest has seen end of file; it may still have something to say.
            while_it_moves(up, &moved, linger).await?;
            outbox.send(close(String::new())).await
        }
    }
}

/// Until it ends, or nothing moved for a while: what is cut off then must not look whole.
async fn while_it_moves(
    mut direction: impl Future<Output = Result<(), Fault>> + Unpin,
    moved: &AtomicU64,
    linger: Duration,
) -> Result<(), Fault> {
    if linger.is_zero() {
        return Ok(());
    }
    loop {
        let before = moved.load(Ordering::Relaxed);
        match tokio::time::timeout(linger, &mut direction).await {
            Ok(ended) => return ended,
            Err(_) if moved.load(Ordering::Relaxed) == before => {
                return Err(format!(
                    "cut off: one side has ended, and the other said nothing for {} s",
                    linger.as_secs()
                )
                .into());
            }
            Err(_) => {}
        }
    }
}

async fn send_bytes(mut from: impl AsyncRead + Unpin, outbox: &Outbox, moved: &AtomicU64) -> Result<(), Fault> {
    let mut buffer = BytesMut::with_capacity(FRAME);
    loop {
        buffer.reserve(FRAME);
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        outbox.send(tunnel_frame::Kind::Data(buffer.split().to_vec())).await?;
        moved.fetch_add(1, Ordering::Relaxed);
    }
}

async fn write_frames(
    inbox: impl Stream<Item = Result<TunnelFrame, tonic::Status>>,
    mut to: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
) -> Result<(), Fault> {
    let mut inbox = std::pin::pin!(inbox);
    loop {
        let frame = inbox.next().await.transpose().map_err(|status| Fault(status.message().to_owned()))?;
        match frame.and_then(|frame| frame.kind) {
            Some(tunnel_frame::Kind::Data(data)) => {
                to.write_all(&data).await?;
                to.flush().await?;
                moved.fetch_add(1, Ordering::Relaxed);
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
        send_bytes(file.take(bytes - from), outbox, &AtomicU64::new(0)).await?;
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

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    const LINGER: Duration = Duration::from_millis(400);

    /// A guest that was told end of file, and what the plane hears of it.
    async fn half_closed(guest: impl AsyncFnOnce(DuplexStream)) -> (usize, Result<(), Fault>) {
        let (here, there) = tokio::io::duplex(64);
        let (frames, mut heard) = mpsc::channel(1000);
        let inbox = futures::stream::iter([Ok(TunnelFrame { kind: Some(close(String::new())) })]);
        let outbox = Outbox(frames);
        let (carried, ()) = tokio::join!(carry(here, inbox, &outbox, LINGER), guest(there));
        drop(outbox);
        let mut bytes = 0;
        while let Some(frame) = heard.recv().await {
            if let Some(tunnel_frame::Kind::Data(data)) = frame.kind {
                bytes += data.len();
            }
        }
        (bytes, carried)
    }

    #[tokio::test]
    async fn a_long_answer_to_a_closed_request_comes_whole() {
        let slow = async |mut guest: DuplexStream| {
            for _ in 0..30 {
                tokio::time::sleep(LINGER / 15).await;
                guest.write_all(b"0123456789").await.expect("write");
            }
        };
        let (bytes, carried) = half_closed(slow).await;
        assert_eq!(bytes, 300);
        assert!(carried.is_ok());
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_off_says_so() {
        let stuck = async |mut guest: DuplexStream| {
            guest.write_all(b"0123456789").await.expect("write");
            tokio::time::sleep(LINGER * 4).await;
        };
        let (bytes, carried) = half_closed(stuck).await;
        assert_eq!(bytes, 10);
        assert!(matches!(carried, Err(Fault(why)) if why.contains("cut off")));
    }
}
