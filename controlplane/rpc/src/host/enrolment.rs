//! CreateEnrolmentToken: the right to become one host, once, for a while.

use std::time::Duration;

use croft_core::audit::Call;
use croft_core::validate::{Violations, is_dns_name};
use croft_core::{Result, host};
use croft_proto::v1;
use croft_store::Done;
use sha2::{Digest as _, Sha256};

use crate::api::Api;
use crate::convert::time;
use crate::random;

const TTL_DEFAULT: Duration = Duration::from_secs(3600);
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

pub async fn create(
    api: Api,
    call: Call,
    request: v1::CreateEnrolmentTokenRequest,
) -> Result<v1::CreateEnrolmentTokenResponse> {
    let mut violations = Violations::new();
    violations.check(
        is_dns_name(&request.host_id, host::ID_MAX),
        "host_id",
        format!("a host name in lower case: 1 to {} of [a-z0-9.-]", host::ID_MAX),
    );
    let ttl = time::span_into("ttl", request.ttl, TTL_MAX, &mut violations);
    violations.check(ttl != Some(Duration::ZERO), "ttl", "more than 0 s; leave it out for an hour");
    violations.finish()?;

    let token = random::enrolment_token()?;
    let expire = api.store().now().plus(ttl.unwrap_or(TTL_DEFAULT));
    let id = request.host_id.as_str().into();
    let done = api.store().host_enrolment_create(&call, &id, Sha256::digest(&token).into(), expire).await?;
    let (token, expire_time) = match done {
        Done::New(()) => (token, Some(time::out(expire))),
        // A retry: the token of the first answer is the one that counts, and nobody has it but who got that answer.
        Done::Replayed(()) => (String::new(), None),
    };
    Ok(v1::CreateEnrolmentTokenResponse { token, expire_time, ca_pem: api.deps.signer.ca_pem() })
}
