//! Formats, pages, contexts and completions, as the binary prints them.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Say, Stage};
use croft_proto::v1;

fn quota(resource: &str, limit: Option<i64>) -> v1::Quota {
    let name = format!("tenants/acme/quotas/{resource}");
    v1::Quota { name, limit, used: 2, available: limit.map(|limit| limit - 2), ..v1::Quota::default() }
}

async fn with_quotas() -> Stage {
    let stage = Stage::new().await;
    let page = |quotas, next: &str| v1::ListQuotasResponse { quotas, next_page_token: next.into() };
    stage.fake.say("list_quotas", Say::one(page(vec![quota("vcpus", Some(8))], "more")));
    stage.fake.say("list_quotas", Say::one(page(vec![quota("gpus/h100_sxm_80gb", None)], "")));
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn one_list_in_every_format() {
    let stage = with_quotas().await;
    assert_eq!(
        stage.run(&["quota", "list"]).await.ok(),
        "RESOURCE             USED   LIMIT       AVAILABLE\n\
         vcpus                2      8           6\n\
         gpus/h100_sxm_80gb   2      unlimited   unlimited\n"
    );
    let asked: Vec<v1::ListQuotasRequest> = stage.fake.asked("list_quotas");
    assert_eq!(asked.iter().map(|request| request.page_token.as_str()).collect::<Vec<_>>(), ["", "more"]);

    let json = with_quotas().await.run(&["quota", "list", "-o", "json"]).await.ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["quotas"][0]["limit"], "8", "64-bit numbers are strings in proto JSON");
    assert_eq!(json["quotas"][1].get("limit"), None, "no limit is no field");
    let yaml = with_quotas().await.run(&["quota", "list", "-o", "yaml"]).await.ok();
    assert!(yaml.starts_with("quotas:\n- name: tenants/acme/quotas/vcpus\n  limit: '8'\n"), "{yaml}");
    let names = with_quotas().await.run(&["quota", "list", "-o", "name"]).await.ok();
    assert_eq!(names, "tenants/acme/quotas/vcpus\ntenants/acme/quotas/gpus/h100_sxm_80gb\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_leaves_stdout_empty() {
    let stage = Stage::new().await;
    stage.fake.say("list_tenants", Say::one(v1::ListTenantsResponse::default()));
    let ran = stage.run(&["tenant", "list"]).await;
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "No tenants found.\n"));
    assert_eq!(stage.run(&["tenant", "list", "-o", "json"]).await.ok(), "{\n  \"tenants\": []\n}\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_are_kept_private_and_used() {
    let stage = Stage::new().await;
    stage.fake.say("list_tenants", Say::one(v1::ListTenantsResponse::default()));
    let token = stage.write("token", &format!("{}\n", crate::support::TOKEN));
    let (server, ca) = (stage.address.to_string(), stage.path("ca.pem"));
    let plain = |arguments: &[&str]| {
        let mut command = stage.command(arguments);
        for key in ["CROFT_SERVER", "CROFT_CA_FILE", "CROFT_TOKEN", "CROFT_TENANT"] {
            command.env_remove(key);
        }
        command
    };
    let set =
        ["context", "set", "prod", "--server", &server, "--ca-file", ca.to_str().unwrap(), "--token-file", &token];
    assert_eq!(stage.run_with(plain(&set), b"").await.ok(), "prod created, current\n");
    let mode = stage.path(".config/croft/config.yaml").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    stage.run_with(plain(&["tenant", "list"]), b"").await.ok();
    assert_eq!(stage.fake.authorizations(), [format!("Bearer {}", crate::support::TOKEN)]);

    let other = ["context", "set", "lab", "--server", "lab:1", "--token", "-", "--tenant", "acme"];
    assert_eq!(stage.run_with(plain(&other), b"croft_from_stdin\n").await.ok(), "lab created\n");
    let list = stage.run_with(plain(&["context", "list"]), b"").await.ok();
    assert!(list.contains("*         prod") && list.contains("-         lab    lab:1"), "{list}");
    let json = stage.run_with(plain(&["context", "list", "-o", "json"]), b"").await.ok();
    assert!(!json.contains("croft_from_stdin"), "{json}");
    assert_eq!(stage.run_with(plain(&["context", "use", "lab"]), b"").await.ok(), "lab is current\n");
    assert_eq!(stage.run_with(plain(&["context", "current"]), b"").await.ok(), "lab\n");
    assert_eq!(stage.run_with(plain(&["context", "delete", "lab"]), b"").await.ok(), "lab deleted\n");
    assert_eq!(stage.run_with(plain(&["context", "current"]), b"").await.code, Some(3));
    assert_eq!(stage.run_with(plain(&["--context", "none", "tenant", "list"]), b"").await.code, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn completion_and_version_need_no_plane() {
    let stage = Stage::new().await;
    for shell in ["bash", "zsh", "fish"] {
        let script = stage.run(&["completion", shell]).await.ok();
        assert!(script.contains("port-forward"), "{shell}");
    }
    assert!(stage.run(&["version"]).await.ok().starts_with("croft "));
}
