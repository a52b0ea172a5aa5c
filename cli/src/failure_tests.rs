use std::collections::HashMap;

use tonic_types::ErrorDetails;

use super::*;

fn refused(code: Code, message: &str, fill: impl FnOnce(&mut ErrorDetails)) -> Failure {
    let mut details = ErrorDetails::new();
    fill(&mut details);
    Status::with_error_details(code, message, details).into()
}

fn reason(details: &mut ErrorDetails, reason: &str) {
    details.set_error_info(reason, "croft.dev", HashMap::new());
}

#[test]
fn a_quota_refusal_names_the_limit_and_the_page() {
    let failure = refused(Code::ResourceExhausted, "over quota", |details| {
        reason(details, "QUOTA_EXCEEDED");
        details.set_quota_failure(vec![tonic_types::QuotaViolation {
            subject: "tenants/acme".into(),
            quota_metric: "vcpus".into(),
            quota_value: 4,
            quota_dimensions: [("used".into(), "3".into()), ("requested".into(), "2".into())].into(),
            ..Default::default()
        }]);
    });
    assert_eq!(
        failure.text(),
        "error: QUOTA_EXCEEDED: over quota\n  tenants/acme vcpus: limit 4, used 3, requested 2\n  see docs/errors/QUOTA_EXCEEDED.md\n"
    );
    assert_eq!(failure.exit(), Exit::Denied);
}

#[test]
fn a_quota_refusal_in_words_is_told_in_words() {
    let violation = tonic_types::QuotaViolation {
        subject: "tenants/acme/quotas/vcpus".into(),
        description: "limit 4, used 3, requested 2".into(),
        quota_metric: "vcpus".into(),
        ..Default::default()
    };
    assert_eq!(quota_line(&violation), "tenants/acme/quotas/vcpus: limit 4, used 3, requested 2");
}

#[test]
fn every_wrong_field_has_its_line() {
    let failure = refused(Code::InvalidArgument, "2 fields are wrong", |details| {
        details.add_bad_request_violation("instance.spec.vcpus", "1 to 512, not 0");
        details.add_bad_request_violation("instance.spec.memory_mib", "at least 64, not 1");
    });
    assert_eq!(
        failure.text(),
        "error: INVALID_ARGUMENT: 2 fields are wrong\n  instance.spec.vcpus: 1 to 512, not 0\n  instance.spec.memory_mib: at least 64, not 1\n"
    );
    assert_eq!(failure.exit(), Exit::Usage);
}

#[test]
fn a_reason_of_somebody_else_has_no_page_here() {
    let failure = refused(Code::Internal, "no", |details| {
        details.set_error_info("OOPS", "example.org", HashMap::new());
    });
    assert_eq!(failure.text(), "error: OOPS: no\n");
}

#[test]
fn preconditions_name_what_is_in_the_way() {
    let failure = refused(Code::FailedPrecondition, "image is in use", |details| {
        reason(details, "IMAGE_IN_USE");
        details.add_precondition_failure_violation("IMAGE_IN_USE", "images/debian", "web boots from it");
    });
    assert!(failure.text().contains("  images/debian (IMAGE_IN_USE): web boots from it\n"), "{}", failure.text());
}

#[test]
fn nothing_is_said_twice() {
    let failure = refused(Code::FailedPrecondition, "images/debian is in use by web", |details| {
        reason(details, "IMAGE_IN_USE");
        details.add_precondition_failure_violation("IMAGE_IN_USE", "images/debian", "images/debian is in use by web");
    });
    assert_eq!(
        failure.text(),
        "error: IMAGE_IN_USE: images/debian is in use by web\n  see docs/errors/IMAGE_IN_USE.md\n"
    );
    let failure = refused(Code::InvalidArgument, "vcpus: not 0; memory: not 1", |details| {
        details.add_bad_request_violation("vcpus", "not 0").add_bad_request_violation("memory", "not 1");
    });
    assert_eq!(failure.text(), "error: INVALID_ARGUMENT: 2 things are in the way\n  vcpus: not 0\n  memory: not 1\n");
}

#[test]
fn json_keeps_the_details() {
    let failure = refused(Code::ResourceExhausted, "over quota", |details| reason(details, "QUOTA_EXCEEDED"));
    let error = &failure.json()["error"];
    assert_eq!(error["status"], "RESOURCE_EXHAUSTED");
    assert_eq!(error["code"], 8);
    assert_eq!(error["exitCode"], 4);
    assert_eq!(error["reason"], "QUOTA_EXCEEDED");
    assert_eq!(error["details"][0]["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
    assert_eq!(error["details"][0]["domain"], "croft.dev");
}

#[test]
fn a_failed_operation_is_told_like_a_refused_call() {
    let status = Status::with_error_details(Code::NotFound, "gone", {
        let mut details = ErrorDetails::new();
        reason(&mut details, "NOT_FOUND");
        details
    });
    let error = v1::Error::decode(status.details()).unwrap();
    let failure = Failure::operation(&error);
    assert_eq!(failure.exit(), Exit::NotFound);
    assert_eq!(failure.text(), "error: NOT_FOUND: gone\n  see docs/errors/NOT_FOUND.md\n");
}
