//! FetchBlob: seeds, by digest, for the host that runs what refers to them and for nobody else.

use croft_core::id::HostId;
use croft_core::{Error, Result};
use croft_proto::agent::v1::{FetchBlobRequest, FetchBlobResponse};
use futures::stream::{self, BoxStream, StreamExt as _};
use tonic::Status;

use crate::api::Api;

const CHUNK: usize = 64 * 1024;

type Chunks = BoxStream<'static, Result<FetchBlobResponse, Status>>;

pub async fn fetch(api: &Api, host: &HostId, request: FetchBlobRequest) -> Result<Chunks> {
    let digest = request.digest;
    if !digest.strip_prefix("sha256:").is_some_and(croft_core::validate::is_sha256) {
        return Err(Error::invalid("digest", "sha256: and 64 lower-case hex digits"));
    }
    let blob = api.store().blob_get(host, &digest).await?.ok_or_else(|| Error::not_found(format!("blob {digest}")))?;
    let chunks: Vec<_> = blob.chunks(CHUNK).map(|chunk| Ok(FetchBlobResponse { data: chunk.to_vec() })).collect();
    Ok(stream::iter(chunks).boxed())
}
