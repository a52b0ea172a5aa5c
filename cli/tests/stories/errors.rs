//! What a user sees when the plane says no, is not there, or is not the plane.

use crate::support::{Say, Stage, TOKEN, another_ca};
use croft_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

fn refusal(code: Code, reason: &str, message: &str, fill: impl FnOnce(&mut ErrorDetails)) -> Status {
    let mut details = ErrorDetails::new();
    fill(&mut details);
    details.set_error_info(reason, "croft.dev", std::collections::HashMap::new());
    Status::with_error_details(code, message, details)
}

fn acme() -> v1::Tenant {
    v1::Tenant { name: "tenants/acme".into(), display_name: "Acme".into(), ..v1::Tenant::default() }
}

const CREATE: [&str; 11] =
    ["instance", "create", "web", "--image", "images/i", "--vcpus", "2", "--memory", "1GiB", "--disk", "6"];

#[tokio::test(flavor = "multi_thread")]
async fn quota_is_told_by_limit_and_ends_with_four() {
    let stage = Stage::new().await;
    let status = refusal(Code::ResourceExhausted, "QUOTA_EXCEEDED", "over quota", |details| {
        details.add_quota_failure_violation("tenants/acme/quotas/vcpus", "limit 4, used 3, requested 2");
    });
    stage.fake.say("create_instance", Say::No(status));
    let ran = stage.run(&CREATE).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert_eq!(
        ran.err,
        "error: QUOTA_EXCEEDED: over quota\n  tenants/acme/quotas/vcpus: limit 4, used 3, requested 2\n  \
         see docs/errors/QUOTA_EXCEEDED.md\n"
    );

    let ran = stage.run(&[&CREATE[..], &["-o", "json"]].concat()).await;
    let error: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((ran.code, ran.out.as_str()), (Some(4), ""));
    assert_eq!(error["error"]["reason"], "QUOTA_EXCEEDED");
    assert_eq!(error["error"]["details"][0]["violations"][0]["subject"], "tenants/acme/quotas/vcpus");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_exit_code() {
    for (code, exit) in [
        (Code::NotFound, 3),
        (Code::PermissionDenied, 4),
        (Code::Unauthenticated, 4),
        (Code::InvalidArgument, 2),
        (Code::FailedPrecondition, 1),
        (Code::DeadlineExceeded, 5),
    ] {
        let stage = Stage::new().await;
        stage.fake.say("get_tenant", Say::No(refusal(code, "WHY", "because", |_| {})));
        let ran = stage.run(&["tenant", "get", "acme"]).await;
        assert_eq!(ran.code, Some(exit), "{ran:?}");
        assert!(ran.err.starts_with("error: WHY: because\n"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_that_is_away_for_a_moment_is_not_noticed_and_nothing_happens_twice() {
    let stage = Stage::new().await;
    stage.fake.say("create_tenant", Say::No(Status::unavailable("starting")));
    stage.fake.say("create_tenant", Say::No(Status::unavailable("starting")));
    stage.fake.say("create_tenant", Say::one(acme()));
    let said = stage.run(&["tenant", "create", "acme", "--display-name", "Acme"]).await.ok();
    assert_eq!(said, "tenants/acme created\n");
    let asked: Vec<v1::CreateTenantRequest> = stage.fake.asked("create_tenant");
    assert_eq!(asked.len(), 3);
    assert!(!asked[0].request_id.is_empty());
    assert!(asked.iter().all(|request| *request == asked[0]), "one request, three times");
    assert!(stage.fake.authorizations().iter().all(|seen| *seen == format!("Bearer {TOKEN}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_that_stays_away_ends_with_six() {
    let stage = Stage::new().await;
    stage.fake.say("get_tenant", Say::No(Status::unavailable("starting")));
    assert_eq!(stage.run(&["tenant", "get", "acme"]).await.code, Some(6));

    // Nobody listens on a port that was just closed.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = stage.command(&["tenant", "get", "acme"]);
    command.env("CROFT_SERVER", &gone);
    let ran = stage.run_with(command, b"").await;
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert!(ran.err.contains(&format!("cannot reach https://{gone}")) && ran.err.contains("refused"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_certificate_is_refused_at_once() {
    let stage = Stage::new().await;
    stage.fake.say("get_tenant", Say::one(acme()));
    stage.write("ca.pem", &another_ca());
    let begun = std::time::Instant::now();
    let ran = stage.run(&["tenant", "get", "acme"]).await;
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert!(ran.err.contains("does not prove to be the plane"), "{ran:?}");
    assert!(begun.elapsed().as_secs() < 3, "a wrong certificate is not worth a retry");
    assert_eq!(stage.fake.authorizations(), [""; 0], "the token went nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_on_the_command_line_end_with_two() {
    let stage = Stage::new().await;
    for arguments in [
        &["tenant", "frobnicate"][..],
        &["instance", "list", "-o", "xml"],
        &["instance", "get", "a/b"],
        &["host", "fence", "h1"],
        &["tenant", "delete"],
        &["apply", "-f", "/nowhere.yaml"],
        &["context", "set", "new"],
    ] {
        let ran = stage.run(arguments).await;
        assert_eq!(ran.code, Some(2), "{arguments:?}: {ran:?}");
    }
    let mut command = stage.command(&["instance", "get", "web"]);
    command.env_remove("CROFT_TENANT");
    let ran = stage.run_with(command, b"").await;
    assert!(ran.code == Some(2) && ran.err.contains("which tenant?"), "{ran:?}");
}
