//! `--label`, `--annotation` and `--selector` mean the same wherever they stand.

use crate::support::{Say, Stage};
use croft_proto::v1;

fn metadata(etag: &str, labels: &[(&str, &str)]) -> Option<v1::Metadata> {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Some(v1::Metadata { etag: etag.into(), labels, ..v1::Metadata::default() })
}

fn quota(resource: &str, labels: &[(&str, &str)]) -> v1::Quota {
    let name = format!("tenants/acme/quotas/{resource}");
    v1::Quota { name, limit: Some(8), metadata: metadata("q1", labels), ..v1::Quota::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_alone_asks_nothing_and_touches_no_label() {
    let stage = Stage::new().await;
    stage.fake.say("set_quota", Say::one(quota("vcpus", &[])));
    let said = stage.run(&["quota", "set", "vcpus=8", "--etag", "q0"]).await.ok();
    assert_eq!(said, "tenants/acme/quotas/vcpus set to 8\n");
    let asked: Vec<v1::SetQuotaRequest> = stage.fake.asked("set_quota");
    assert_eq!(asked[0].update_mask.as_ref().unwrap().paths, ["limit"]);
    let sent = asked[0].quota.as_ref().unwrap();
    assert_eq!((sent.limit, sent.metadata.as_ref().unwrap().etag.as_str()), (Some(8), "q0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_a_quota_are_edited_with_its_limit_or_without() {
    let stage = Stage::new().await;
    stage.fake.say("get_quota", Say::one(quota("vcpus", &[("old", "1"), ("kept", "2")])));
    stage.fake.say("set_quota", Say::one(quota("vcpus", &[])));
    let labels = ["--label", "tier=gold", "--label", "old-"];
    let said = stage.run(&[&["quota", "set", "vcpus"][..], &labels].concat()).await.ok();
    assert_eq!(said, "tenants/acme/quotas/vcpus labelled\n");
    stage.run(&[&["quota", "set", "vcpus=9", "--annotation", "contract=No. 7"][..], &labels].concat()).await.ok();
    let asked: Vec<v1::SetQuotaRequest> = stage.fake.asked("set_quota");
    let paths = |at: usize| asked[at].update_mask.as_ref().unwrap().paths.clone();
    assert_eq!(
        (paths(0), paths(1)),
        (
            vec!["metadata.labels".to_owned()],
            vec!["metadata.labels".to_owned(), "metadata.annotations".to_owned(), "limit".to_owned()],
        )
    );
    let sent = asked[0].quota.as_ref().unwrap().metadata.as_ref().unwrap();
    assert_eq!(sent.labels, metadata("", &[("kept", "2"), ("tier", "gold")]).unwrap().labels);
    assert_eq!(sent.etag, "q1", "it must fail if somebody was faster");
    assert_eq!(asked[1].quota.as_ref().unwrap().limit, Some(9));

    for (wrong, why) in
        [(&["vcpus"][..], "nothing to set for vcpus"), (&["vcpus=1", "instances=2", "vcpus=3"], "vcpus is there twice")]
    {
        let ran = stage.run(&[&["quota", "set"], wrong].concat()).await;
        assert!(ran.code == Some(2) && ran.err.contains(why), "{ran:?}");
    }
    assert_eq!(stage.fake.asked::<v1::SetQuotaRequest>("set_quota").len(), 2, "nothing of what is wrong is sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tokens_labels_are_given_edited_and_shown() {
    let stage = Stage::new().await;
    let token =
        v1::Token { name: "tokens/ci".into(), metadata: metadata("e1", &[("team", "ml")]), ..v1::Token::default() };
    let made = v1::CreateTokenResponse { token: Some(token.clone()), secret: "croft_ci_x".into() };
    stage.fake.say("create_token", Say::one(made)).say("get_token", Say::one(token.clone()));
    stage.fake.say("update_token", Say::one(token));
    stage.run(&["token", "create", "ci", "--role", "tenant-viewer", "--label", "team=ml"]).await.ok();
    let asked: Vec<v1::CreateTokenRequest> = stage.fake.asked("create_token");
    assert_eq!(asked[0].token.as_ref().unwrap().metadata, metadata("", &[("team", "ml")]));

    let said = stage.run(&["token", "update", "ci", "--label", "team=web", "--description", "x"]).await.ok();
    assert_eq!(said, "tokens/ci updated\n");
    let asked: Vec<v1::UpdateTokenRequest> = stage.fake.asked("update_token");
    assert_eq!(asked[0].update_mask.as_ref().unwrap().paths, ["description", "metadata.labels"]);
    assert_eq!(asked[0].token.as_ref().unwrap().metadata, metadata("e1", &[("team", "web")]));
    let shown = stage.run(&["token", "get", "ci", "-o", "wide"]).await.ok();
    assert!(shown.lines().next().unwrap().ends_with("LABELS") && shown.contains("team=ml"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_selected_by_the_plane() {
    let stage = Stage::new().await;
    stage.fake.say("list_quotas", Say::one(v1::ListQuotasResponse::default()));
    stage.fake.say("list_tokens", Say::one(v1::ListTokensResponse::default()));
    let operation = v1::Operation { metadata: metadata("", &[("a", "1")]), ..v1::Operation::default() };
    let operations = v1::ListOperationsResponse { operations: vec![operation], next_page_token: String::new() };
    stage.fake.say("list_operations", Say::one(operations));
    for noun in ["quota", "token", "operation"] {
        stage.run(&[noun, "list", "-l", "b=2,a=1", "-o", "wide"]).await.ok();
    }
    assert_eq!(stage.fake.asked::<v1::ListQuotasRequest>("list_quotas")[0].label_selector, "a=1,b=2");
    assert_eq!(stage.fake.asked::<v1::ListTokensRequest>("list_tokens")[0].label_selector, "a=1,b=2");
    assert_eq!(stage.fake.asked::<v1::ListOperationsRequest>("list_operations")[0].label_selector, "a=1,b=2");
    let shown = stage.run(&["operation", "list", "-o", "wide"]).await.ok();
    assert!(shown.contains("LABELS") && shown.contains("a=1"), "{shown}");
    for command in [&["quota", "list"][..], &["instance", "list"], &["instance", "list", "--watch"]] {
        let ran = stage.run(&[command, &["-l", "a=1", "-l", "a=2"]].concat()).await;
        assert!(ran.code == Some(2) && ran.err.contains("two values for a"), "{ran:?}");
    }
}
