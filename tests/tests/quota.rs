//! Quota: exact under concurrency, charged to every ancestor, and the same in API, database and metrics.

use croft_proto::v1;
use croft_tests::{Fleet, Wanted};
use tonic_types::StatusExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_creates_by_sixteen_clients_against_fifty() {
    let mut fleet = Fleet::with_host("h1").await;
    fleet.host("h2").await;
    let api = fleet.api.clone();
    api.tenant("corp", None).await;
    api.quota("corp", "instances", 50).await;
    for child in ["red", "green", "blue"] {
        api.tenant(child, Some("corp")).await;
    }
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..16 {
        let api = fleet.another_client();
        clients.spawn(async move {
            let (mut made, mut refused) = (0, 0);
            for n in (client..200).step_by(16) {
                let tenant = ["red", "green", "blue"][n % 3];
                let wanted = Wanted { power: v1::instance_spec::Power::Stopped, ..Wanted::default() };
                match api.create_as(wanted.request(tenant, &format!("i{n}"))).await {
                    Ok(_) => made += 1,
                    Err(status) => {
                        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
                        let violations = status.get_details_quota_failure().expect("a QuotaFailure").violations;
                        assert!(violations.iter().any(|v| v.subject.contains("corp")), "{violations:?}");
                        refused += 1;
                    }
                }
            }
            (made, refused)
        });
    }
    let totals = clients.join_all().await;
    assert_eq!(totals.iter().map(|(made, _)| made).sum::<i32>(), 50);
    assert_eq!(totals.iter().map(|(_, refused)| refused).sum::<i32>(), 150);
    assert_eq!(api.used("corp", "instances").await, 50, "in the API");
    fleet.consistent().await;
    let in_database = fleet.store().quota_get(&"corp".into(), "instances").await.unwrap().quota.used;
    assert_eq!(in_database, 50);
    let metrics = fleet.metrics().await;
    let line = metrics
        .lines()
        .find(|line| {
            line.starts_with("croft_quota_used{") && line.contains("\"corp\"") && line.contains("\"instances\"")
        })
        .unwrap_or_else(|| panic!("no croft_quota_used of corp in:\n{metrics}"));
    assert!(line.ends_with(" 50"), "{line}");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_limit_that_would_break_is_named_and_a_shrunk_limit_takes_nothing_away() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    api.tenant("corp", None).await;
    api.tenant("team", Some("corp")).await;
    api.quota("corp", "vcpus", 2).await;
    api.quota("team", "memory_mib", 300).await;
    let wanted = Wanted { vcpus: 3, memory_mib: 512, ..Wanted::default() };
    let status = api.create_as(wanted.request("team", "big")).await.unwrap_err();
    let violations = status.get_details_quota_failure().unwrap().violations;
    assert_eq!(violations.len(), 2, "{violations:?}");
    api.running("team", "small").await;
    api.quota("corp", "vcpus", 0).await;
    assert_eq!(api.state("team", "small").await, Some(v1::instance_status::State::Running));
    assert!(api.create("team", "more").await.is_err());
    let name = "tenants/team/quotas/vcpus".to_owned();
    let quota = api.quotas.clone().get_quota(v1::GetQuotaRequest { name }).await.unwrap().into_inner();
    assert_eq!((quota.limit, quota.used), (None, 1));
    assert!(quota.available.is_some_and(|left| left <= 0), "the ancestor's limit binds: {quota:?}");
    fleet.end().await;
}
