//! Reflection: a client that was taught nothing finds every service. Both versions, for older tools know only the first.

use anyhow::{Context, Result};
use tonic::service::Routes;
use tonic_reflection::server::Builder;

pub fn with_reflection(routes: Routes) -> Result<Routes> {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(croft_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = builder().build_v1().context("reflection")?;
    let v1alpha = builder().build_v1alpha().context("reflection")?;
    Ok(routes.add_service(v1).add_service(v1alpha))
}
