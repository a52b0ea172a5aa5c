//! `croft apply`: what is missing is made, what may change is changed, the rest is refused by name.

use crate::support::{Say, Stage};
use croft_proto::v1::{self, instance_spec::Power};
use tonic::Status;

const FILE: &str = "
kind: Instance
name: web
spec:
  power: RUNNING
  vcpus: 2
  memoryMib: 1024
  image: images/debian
  disks: [{sizeGib: 6}]
---
# Written after what is in it: the order does not matter.
kind: Tenant
name: acme
displayName: Acme
---
kind: Quota
name: vcpus
limit: 8
";

fn tenant(display_name: &str) -> v1::Tenant {
    let metadata = v1::Metadata { etag: "e1".into(), ..v1::Metadata::default() };
    v1::Tenant {
        name: "tenants/acme".into(),
        display_name: display_name.into(),
        metadata: Some(metadata),
        ..v1::Tenant::default()
    }
}

fn quota(limit: i64) -> v1::Quota {
    v1::Quota { name: "tenants/acme/quotas/vcpus".into(), limit: Some(limit), ..v1::Quota::default() }
}

fn web(power: Power, vcpus: i32) -> v1::Instance {
    let spec = v1::InstanceSpec {
        power: power.into(),
        vcpus,
        memory_mib: 1024,
        boot_source: Some(v1::instance_spec::BootSource::Image("images/debian".into())),
        disks: vec![v1::Disk { size_gib: 6 }],
        ..v1::InstanceSpec::default()
    };
    v1::Instance { name: "tenants/acme/instances/web".into(), spec: Some(spec), ..v1::Instance::default() }
}

fn operation() -> v1::Operation {
    let (name, target) = ("operations/o1".into(), "tenants/acme/instances/web".into());
    v1::Operation { name, target, done: true, ..v1::Operation::default() }
}

fn missing() -> Say {
    Say::No(Status::not_found("not there"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_made_in_an_order_that_works() {
    let stage = Stage::new().await;
    let file = stage.write("f.yaml", FILE);
    stage.fake.say("get_tenant", missing()).say("get_quota", missing()).say("get_instance", missing());
    stage.fake.say("create_tenant", Say::one(tenant("Acme"))).say("set_quota", Say::one(quota(8)));
    stage.fake.say("create_instance", Say::one(operation()));
    let said = stage.run(&["apply", "-f", &file]).await.ok();
    assert_eq!(said, "tenants/acme created\ntenants/acme/quotas/vcpus created\ntenants/acme/instances/web created\n");
    let asked: Vec<v1::CreateInstanceRequest> = stage.fake.asked("create_instance");
    assert_eq!((asked[0].parent.as_str(), asked[0].instance_id.as_str()), ("tenants/acme", "web"));
    assert_eq!(asked[0].instance.as_ref().unwrap().spec.as_ref().unwrap().memory_mib, 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_time_changes_nothing() {
    let stage = Stage::new().await;
    let file = stage.write("f.yaml", FILE);
    stage.fake.say("get_tenant", Say::one(tenant("Acme"))).say("get_quota", Say::one(quota(8)));
    stage.fake.say("get_instance", Say::one(web(Power::Running, 2)));
    let said = stage.run(&["apply", "-f", &file, "-o", "json"]).await.ok();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let results: Vec<_> = said["results"].as_array().unwrap().iter().map(|result| &result["result"]).collect();
    assert_eq!(results, ["unchanged"; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_change_is_changed_and_guarded() {
    let stage = Stage::new().await;
    let file = stage.write("f.yaml", FILE);
    stage.fake.say("get_tenant", Say::one(tenant("Old"))).say("update_tenant", Say::one(tenant("Acme")));
    stage.fake.say("get_quota", Say::one(quota(4))).say("set_quota", Say::one(quota(8)));
    stage.fake.say("get_instance", Say::one(web(Power::Stopped, 2))).say("start_instance", Say::one(operation()));
    let said = stage.run(&["apply", "-f", &file]).await.ok();
    assert_eq!(
        said,
        "tenants/acme updated: display_name\ntenants/acme/quotas/vcpus updated: limit\n\
         tenants/acme/instances/web updated: spec.power\n"
    );
    let asked: Vec<v1::UpdateTenantRequest> = stage.fake.asked("update_tenant");
    assert_eq!(asked[0].update_mask.as_ref().unwrap().paths, ["display_name"]);
    assert_eq!(asked[0].tenant.as_ref().unwrap().metadata.as_ref().unwrap().etag, "e1");
    assert_eq!(stage.fake.asked::<v1::StartInstanceRequest>("start_instance").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_a_quota_are_applied_without_its_limit() {
    let stage = Stage::new().await;
    let metadata = v1::Metadata { etag: "q3".into(), ..v1::Metadata::default() };
    let live = v1::Quota { metadata: Some(metadata), ..quota(8) };
    stage.fake.say("get_quota", Say::one(live)).say("set_quota", Say::one(quota(8)));
    let file = "{kind: Quota, name: vcpus, limit: 8, metadata: {labels: {tier: gold}}}";
    let said = stage.run_with(stage.command(&["apply", "-f", "-"]), file.as_bytes()).await.ok();
    assert_eq!(said, "tenants/acme/quotas/vcpus updated: metadata.labels\n");
    let asked: Vec<v1::SetQuotaRequest> = stage.fake.asked("set_quota");
    assert_eq!(asked[0].update_mask.as_ref().unwrap().paths, ["metadata.labels"]);
    let sent = asked[0].quota.as_ref().unwrap().metadata.as_ref().unwrap();
    assert_eq!((sent.etag.as_str(), sent.labels["tier"].as_str()), ("q3", "gold"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_change_is_refused_by_name_and_nothing_of_it_is_sent() {
    let stage = Stage::new().await;
    let file = stage.write("f.yaml", FILE);
    stage.fake.say("get_tenant", Say::one(tenant("Acme"))).say("get_quota", Say::one(quota(8)));
    stage.fake.say("get_instance", Say::one(web(Power::Stopped, 4)));
    let ran = stage.run(&["apply", "-f", &file]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("spec.vcpus: is 4, the file says 2"), "{ran:?}");
    assert!(ran.err.contains("document 1 (tenants/acme/instances/web)"), "{ran:?}");
    assert_eq!(stage.fake.asked::<v1::StartInstanceRequest>("start_instance"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_field_is_found_before_anything_is_sent() {
    let stage = Stage::new().await;
    let ran = stage
        .run_with(
            stage.command(&["apply", "-f", "-"]),
            b"{\"kind\": \"Tenant\", \"name\": \"acme\", \"displayname\": \"x\"}",
        )
        .await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("stdin, document 1 (tenants/acme): displayname: no such field"), "{ran:?}");
    assert!(ran.err.contains("displayName"), "{ran:?}");
    assert_eq!(stage.fake.authorizations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_checks_what_can_be_checked() {
    let stage = Stage::new().await;
    let file = stage.write("f.yaml", FILE);
    stage.fake.say("get_tenant", missing()).say("create_tenant", Say::one(tenant("Acme")));
    let said = stage.run(&["apply", "-f", &file, "--dry-run"]).await.ok();
    assert_eq!(
        said,
        "tenants/acme created (dry run)\n\
         tenants/acme/quotas/vcpus created (dry run); not checked before tenants/acme exists\n\
         tenants/acme/instances/web created (dry run); not checked before tenants/acme exists\n"
    );
    let asked: Vec<v1::CreateTenantRequest> = stage.fake.asked("create_tenant");
    assert!(asked[0].validate_only);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_the_documentation_can_be_applied() {
    let page = include_str!("../../../docs/cli.md");
    let example = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let stage = Stage::new().await;
    for method in ["get_tenant", "get_quota", "get_network", "get_image", "get_instance"] {
        stage.fake.say(method, missing());
    }
    stage.fake.say("create_tenant", Say::one(tenant("Acme"))).say("set_quota", Say::one(quota(16)));
    stage.fake.say("create_network", Say::one(v1::Network::default()));
    stage.fake.say("create_image", Say::one(v1::Image::default())).say("create_instance", Say::one(operation()));
    let said = stage.run_with(stage.command(&["apply", "-f", "-"]), example.as_bytes()).await.ok();
    assert_eq!(said.lines().count(), 5, "{said}");
    assert!(said.lines().all(|line| line.ends_with(" created")), "{said}");
}
