//! The way to the control plane while there is one: the link puts its channel here, and unary calls take it.

use std::sync::Arc;
use std::time::Duration;

use croft_proto::agent::v1::FetchBlobRequest;
use croft_proto::agent::v1::agent_client::AgentClient;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::hypervisor::Seed;
use crate::reasons;

/// Seeds are at most 64 KiB of user data, as much network configuration, and the files that a guest joins a cluster with.
const LARGEST_SEED: usize = 1 << 20;

/// For one seed, however it trickles in.
const PATIENCE: Duration = Duration::from_secs(60);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Plane(Arc<watch::Sender<Option<Channel>>>);

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the control plane is not connected")]
    Away,
    #[error("the control plane does not hand out seed {digest}")]
    Status {
        digest: String,
        #[source]
        status: Box<tonic::Status>,
    },
    #[error("seed {digest} is not usable: {fault}")]
    Invalid { digest: String, fault: String },
}

impl Default for Plane {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Plane {
    /// Called by the link as sessions come and go.
    pub fn set(&self, channel: Option<Channel>) {
        self.0.send_replace(channel);
    }

    #[must_use]
    pub fn channel(&self) -> Option<Channel> {
        self.0.borrow().clone()
    }

    /// Changes as sessions come and go.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Channel>> {
        self.0.subscribe()
    }

    /// The seed with this digest, checked against it.
    pub async fn fetch_seed(&self, digest: &str) -> Result<Seed, FetchError> {
        let channel = self.channel().ok_or(FetchError::Away)?;
        let status = |status| FetchError::Status { digest: digest.to_owned(), status: Box::new(status) };
        let invalid = |fault: String| FetchError::Invalid { digest: digest.to_owned(), fault };
        let request = FetchBlobRequest { digest: digest.to_owned() };
        let fetch = async {
            let mut chunks = AgentClient::new(channel).fetch_blob(request).await.map_err(status)?.into_inner();
            let mut bytes = Vec::new();
            while let Some(chunk) = chunks.message().await.map_err(status)? {
                bytes.extend_from_slice(&chunk.data);
                if bytes.len() > LARGEST_SEED {
                    return Err(invalid(format!("it is larger than {LARGEST_SEED} bytes")));
                }
            }
            Ok(bytes)
        };
        let late = |_| status(tonic::Status::deadline_exceeded(format!("no answer in {} s", PATIENCE.as_secs())));
        let bytes = tokio::time::timeout(PATIENCE, fetch).await.map_err(late)??;
        let found = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        if found != digest {
            return Err(invalid(format!("what was fetched is {found}")));
        }
        // Where it is wrong, and nothing of what stands there: it may be secret.
        let at = |error: serde_json::Error| invalid(format!("line {}, column {}", error.line(), error.column()));
        serde_json::from_slice(&bytes).map_err(at)
    }
}

impl FetchError {
    /// The plane has no such seed, or none for this host.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status, .. } if status.code() == tonic::Code::NotFound)
    }

    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Away | Self::Status { .. } => reasons::PLANE_UNREACHABLE,
            Self::Invalid { .. } => reasons::SEED_INVALID,
        }
    }
}

/// For an instance without one: NoCloud needs at least an id.
#[must_use]
pub fn empty_seed(uid: uuid::Uuid) -> Seed {
    Seed { meta_data: format!("instance-id: {uid}\n"), user_data: "#cloud-config\n{}\n".to_owned(), ..Seed::default() }
}
