//! Bytes over a bidirectional call: what a port-forwarded connection is made of.

use croft_proto::v1::{self, port_forward_request as request};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::plane::Plane;

/// Large enough for throughput, small enough that a keystroke is not stuck behind it.
const CHUNK: usize = 32 * 1024;
/// Chunks on their way before the reader has to wait.
const QUEUE: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    #[error("{}", .0.message())]
    Plane(Box<Status>),
    #[error("{0}")]
    Local(#[from] std::io::Error),
}

impl TunnelError {
    /// The client hung up in the middle, which is its right.
    #[must_use]
    pub fn is_hang_up(&self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        matches!(self, Self::Local(error) if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset))
    }
}

impl From<Status> for TunnelError {
    fn from(status: Status) -> Self {
        Self::Plane(Box::new(status))
    }
}

/// One TCP connection into the guest. Our end of input closes the guest's input and waits for the rest of its answer;
/// the guest's end is the end.
pub async fn tunnel(
    plane: &Plane,
    instance: String,
    port: u16,
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
) -> Result<(), TunnelError> {
    let (send, receive) = mpsc::channel(QUEUE);
    let target = request::Target { instance, port: port.into() };
    // The queue has room: nothing is in it.
    let _ = send.send(message(request::Kind::Target(target))).await;
    let mut answers = plane.instances().port_forward(ReceiverStream::new(receive)).await?.into_inner();

    let up = async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = reader.read(&mut buffer).await?;
            if read == 0 || send.send(message(request::Kind::Data(buffer[..read].to_vec()))).await.is_err() {
                return Ok::<(), TunnelError>(());
            }
        }
    };
    let down = async {
        while let Some(answer) = answers.message().await? {
            writer.write_all(&answer.data).await?;
            writer.flush().await?;
        }
        // A client that is gone already needs no goodbye.
        let _ = writer.shutdown().await;
        Ok::<(), TunnelError>(())
    };
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut down => ended,
        read = &mut up => match read {
            Ok(()) => down.await,
            Err(error) => Err(error),
        },
    }
}

fn message(kind: request::Kind) -> v1::PortForwardRequest {
    v1::PortForwardRequest { kind: Some(kind) }
}
