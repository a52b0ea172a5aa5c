//! Operations. A failure is a `google.rpc.Status`, field by field, with the details that a call would have brought.

use std::collections::HashMap;

use croft_core::Reason;
use croft_core::operation::{Failure, Operation};
use croft_proto::v1;
use prost::Message as _;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

use super::time;
use crate::status::code;

#[must_use]
pub fn out(operation: &Operation) -> v1::Operation {
    v1::Operation {
        name: operation.name(),
        metadata: Some(v1::Metadata {
            uid: operation.uid.to_string(),
            labels: operation.labels.clone(),
            annotations: operation.annotations.clone(),
            create_time: Some(time::out(operation.create_time)),
            ..v1::Metadata::default()
        }),
        target: operation.target.clone(),
        verb: operation.verb.as_str().to_owned(),
        done: operation.done,
        error: operation.failure.as_ref().map(failure),
        progress: operation.progress.clone(),
        end_time: operation.end_time.map(time::out),
        actor: operation.actor.clone(),
    }
}

/// The answer to `validate_only`: no operation was made, so it has no name to ask for.
#[must_use]
pub fn validated(operation: &Operation) -> v1::Operation {
    let progress = "everything was checked; nothing was changed".to_owned();
    let shown = out(operation);
    let metadata = shown.metadata.map(|metadata| v1::Metadata { uid: String::new(), create_time: None, ..metadata });
    v1::Operation { name: String::new(), metadata, done: true, error: None, progress, ..shown }
}

fn failure(failure: &Failure) -> v1::Error {
    let code = Reason::parse(&failure.reason).map_or(tonic::Code::Unknown, code);
    let details = ErrorDetails::with_error_info(failure.reason.as_str(), croft_proto::DOMAIN, HashMap::new());
    let status = Status::with_error_details(code, failure.message.as_str(), details);
    let details = tonic_types::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
    v1::Error { code: code.into(), message: failure.message.clone(), details }
}

#[cfg(test)]
mod tests {
    use croft_core::Timestamp;
    use croft_core::id::{InstanceUid, OperationUid};
    use croft_core::meta::Labels;
    use croft_core::operation::Verb;

    use super::*;

    #[test]
    fn a_failure_reads_like_the_status_of_a_call() {
        let failure = Failure { reason: Reason::InstanceFailed.as_str().into(), message: "DiskTooSmall: 1 GiB".into() };
        let operation = Operation {
            uid: OperationUid::new(Timestamp(1)),
            tenant: "a".into(),
            target: "tenants/a/instances/b".into(),
            target_uid: InstanceUid::new(Timestamp(1)),
            verb: Verb::Create,
            counter: 1,
            subject: String::new(),
            actor: "token:t".into(),
            labels: Labels::from([("tier".into(), "front".into())]),
            annotations: Labels::new(),
            create_time: Timestamp(1),
            progress: String::new(),
            done: true,
            failure: Some(failure),
            end_time: Some(Timestamp(2)),
        };
        let error = out(&operation).error.unwrap();
        let status = Status::with_details(error.code.into(), &error.message, error.encode_to_vec().into());
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert_eq!(status.get_details_error_info().unwrap().reason, "INSTANCE_FAILED");
        let dry = validated(&operation);
        assert_eq!((dry.name.as_str(), dry.metadata.unwrap().uid.as_str()), ("", ""), "there is none to ask for");
    }
}
