//! Labels and annotations of what is not created and updated like the rest.

use croft_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use v1::quotas_client::QuotasClient;
use v1::token::Role;
use v1::tokens_client::TokensClient;

use super::plane::Plane;

fn map(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn labelled(etag: &str, pairs: &[(&str, &str)]) -> Option<v1::Metadata> {
    Some(v1::Metadata { etag: etag.into(), labels: map(pairs), ..Default::default() })
}

fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() })
}

fn fields(status: &Status) -> Vec<String> {
    let bad = status.get_details_bad_request();
    bad.into_iter().flat_map(|bad| bad.field_violations).map(|violation| violation.field).collect()
}

#[test]
fn everything_that_can_be_got_has_metadata() {
    let pool = prost_reflect::DescriptorPool::decode(croft_proto::FILE_DESCRIPTOR_SET).unwrap();
    let services = pool.services().filter(|service| service.package_name() == "croft.v1");
    let methods: Vec<_> = services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    let got: Vec<_> = methods.iter().filter(|method| method.name().starts_with("Get")).collect();
    assert!(got.len() >= 8, "{got:?}");
    // A device is found and not made, and a layout is a part of its host.
    let bare = ["croft.v1.Devices.GetDevice", "croft.v1.Hosts.GetHostLayout"];
    for method in got.into_iter().filter(|method| !bare.contains(&method.full_name())) {
        let kind = method.output().get_field_by_name("metadata").map(|field| field.kind());
        let message = kind.as_ref().and_then(|kind| kind.as_message()).map(|message| message.full_name());
        assert_eq!(message, Some("croft.v1.Metadata"), "{}", method.full_name());
    }
}

#[tokio::test]
async fn a_quota_is_labelled_without_touching_its_limit_and_the_other_way_round() {
    let plane = Plane::new().await;
    plane.tenant("a", "").await;
    let quotas = || QuotasClient::new(plane.admin());
    let quota =
        |limit, metadata| v1::Quota { name: "tenants/a/quotas/vcpus".into(), limit, metadata, ..Default::default() };
    let set = async |quota: v1::Quota, paths: &[&str]| {
        let update_mask = mask(paths).filter(|mask| !mask.paths.is_empty());
        let request = v1::SetQuotaRequest { quota: Some(quota), update_mask, ..Default::default() };
        quotas().set_quota(request).await.map(tonic::Response::into_inner)
    };

    let both = set(quota(Some(8), labelled("", &[("tier", "gold")])), &[]).await.unwrap();
    let metadata = both.metadata.unwrap();
    assert_eq!((both.limit, &metadata.labels), (Some(8), &map(&[("tier", "gold")])));
    let limit = set(quota(Some(9), labelled(&metadata.etag, &[])), &[]).await.unwrap();
    assert_eq!((limit.limit, limit.metadata.unwrap().labels), (Some(9), map(&[("tier", "gold")])));
    let stale = set(quota(Some(7), labelled(&metadata.etag, &[])), &[]).await.unwrap_err();
    assert_eq!(stale.get_details_error_info().unwrap().reason, "ETAG_MISMATCH");
    let labels = set(quota(Some(1), labelled("", &[("tier", "lead")])), &["metadata.labels"]).await.unwrap();
    assert_eq!((labels.limit, labels.metadata.unwrap().labels), (Some(9), map(&[("tier", "lead")])));
    let cleared = set(quota(None, None), &["limit"]).await.unwrap();
    assert_eq!((cleared.limit, cleared.metadata.unwrap().labels), (None, map(&[("tier", "lead")])));

    let wrong = set(quota(Some(-1), labelled("", &[("a b", "")])), &[]).await.unwrap_err();
    assert_eq!(fields(&wrong), ["quota.metadata.labels[a b]", "quota.limit"]);
    assert_eq!(fields(&set(quota(None, None), &[]).await.unwrap_err()), ["quota.limit"], "it would set nothing");
    assert_eq!(fields(&set(quota(None, None), &["used"]).await.unwrap_err()), ["update_mask"]);

    let list = async |label_selector: &str, page_size| {
        let request = v1::ListQuotasRequest {
            parent: "tenants/a".into(),
            label_selector: label_selector.into(),
            page_size,
            ..Default::default()
        };
        quotas().list_quotas(request).await.unwrap().into_inner()
    };
    let found = list("tier=lead", 1).await;
    assert_eq!((found.quotas.len(), found.quotas[0].name.as_str()), (1, "tenants/a/quotas/vcpus"));
    assert_eq!(found.next_page_token, "", "nothing that matches is left");
    assert_eq!(list("tier=gold", 0).await.quotas, []);
}

#[tokio::test]
async fn a_tokens_labels_change_and_whom_it_lets_in_does_not() {
    let plane = Plane::new().await;
    plane.tenant("a", "").await;
    plane.tenant("b", "").await;
    let admin = plane.token("a-admin", Role::TenantAdmin, "tenants/a").await;
    plane.token("b-admin", Role::TenantAdmin, "tenants/b").await;
    let tokens = || TokensClient::new(plane.by(&admin));

    let token = v1::Token {
        tenant: "tenants/a".into(),
        role: Role::TenantViewer.into(),
        metadata: labelled("", &[("team", "ml")]),
        ..Default::default()
    };
    let create = v1::CreateTokenRequest { token_id: "eyes".into(), token: Some(token), ..Default::default() };
    let made = tokens().create_token(create.clone()).await.unwrap().into_inner().token.unwrap();
    let get = |name: &str| v1::GetTokenRequest { name: name.into() };
    assert_eq!(tokens().get_token(get("tokens/eyes")).await.unwrap().into_inner(), made);
    let metadata = made.metadata.clone().unwrap();
    assert_eq!((&metadata.labels, metadata.uid.len()), (&map(&[("team", "ml")]), 36));
    assert_eq!(tokens().get_token(get("tokens/b-admin")).await.unwrap_err().code(), Code::NotFound);

    // What was read, changed and written back.
    let update = |token: v1::Token, paths: &[&str]| v1::UpdateTokenRequest {
        token: Some(token),
        update_mask: mask(paths).filter(|mask| !mask.paths.is_empty()),
        ..Default::default()
    };
    let wanted = v1::Token { metadata: labelled(&metadata.etag, &[("team", "web")]), ..made.clone() };
    let updated = tokens().update_token(update(wanted.clone(), &[])).await.unwrap().into_inner();
    assert_eq!(updated.metadata.as_ref().unwrap().labels, map(&[("team", "web")]));
    let stale = tokens().update_token(update(wanted.clone(), &[])).await.unwrap_err();
    assert_eq!(stale.get_details_error_info().unwrap().reason, "ETAG_MISMATCH");
    for (token, paths, part) in [
        (v1::Token { role: Role::TenantAdmin.into(), metadata: None, ..made.clone() }, &[][..], "never changes"),
        (v1::Token { tenant: "tenants/b".into(), metadata: None, ..made.clone() }, &[], "never changes"),
        (v1::Token { disabled: true, metadata: None, ..made.clone() }, &[], "DisableToken"),
        (made.clone(), &["role"], "never changes"),
        (made.clone(), &["last_used_time"], "output only"),
        (v1::Token { metadata: labelled("", &[("a b", "")]), ..made.clone() }, &[], "token.metadata.labels[a b]"),
    ] {
        let refused = tokens().update_token(update(token, paths)).await.unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(part), "{part}: {refused}");
    }
    let foreign =
        v1::Token { name: "tokens/b-admin".into(), metadata: labelled("", &[("x", "y")]), ..Default::default() };
    assert_eq!(tokens().update_token(update(foreign, &[])).await.unwrap_err().code(), Code::NotFound);

    let list = async |label_selector: &str| {
        let request = v1::ListTokensRequest { label_selector: label_selector.into(), ..Default::default() };
        let tokens = tokens().list_tokens(request).await.unwrap().into_inner().tokens;
        tokens.into_iter().map(|token| token.name).collect::<Vec<_>>()
    };
    assert_eq!(list("").await, ["tokens/a-admin", "tokens/eyes"]);
    assert_eq!(list("team=web").await, ["tokens/eyes"]);
    assert_eq!(list("team=ml").await, [""; 0]);

    let rows = plane.audit().await;
    let of = |result: &str| rows.iter().filter(|row| row.0.ends_with("/UpdateToken") && row.1 == result).count();
    assert_eq!((of("OK"), of("ABORTED"), of("INVALID_ARGUMENT"), of("NOT_FOUND")), (1, 1, 6, 1), "{rows:?}");
}
