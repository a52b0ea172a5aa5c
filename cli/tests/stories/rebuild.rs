//! `instance rebuild`: asked before something is lost, and told like every other verb.

use croft_proto::v1;
use tonic::{Code, Status};

use crate::support::{Say, Stage};

const WEB: &str = "tenants/acme/instances/web";

fn begun() -> v1::Operation {
    v1::Operation { name: "operations/o1".into(), target: WEB.into(), verb: "rebuild".into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_before_somebody_said_yes() {
    let stage = Stage::new().await;
    stage.fake.say("rebuild_instance", Say::one(begun()));
    let ran = stage.run(&["instance", "rebuild", "web"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("Everything on the root disk of tenants/acme/instances/web will be lost"), "{}", ran.err);
    assert!(ran.err.contains("say --yes"), "{}", ran.err);
    let asked = || stage.fake.asked::<v1::RebuildInstanceRequest>("rebuild_instance");
    assert!(asked().is_empty());

    let said = stage.run(&["instance", "rebuild", "web", "--yes"]).await.ok();
    assert_eq!(said, "tenants/acme/instances/web rebuild: begun (operation o1)\n");
    stage.run(&["instance", "rebuild", "web", "--yes", "--elsewhere", "--etag", "7-1"]).await.ok();
    stage.run(&["instance", "rebuild", "web", "--dry-run"]).await.ok();
    let asked = asked();
    let what: Vec<_> = asked.iter().map(|r| (r.elsewhere, r.validate_only, r.etag.as_str())).collect();
    assert_eq!(what, [(false, false, ""), (true, false, "7-1"), (false, true, "")]);
    assert!(asked.iter().all(|request| request.name == WEB && !request.request_id.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_room_it_says_so() {
    let stage = Stage::new().await;
    let full = Status::new(Code::ResourceExhausted, "no host fits (1 looked at)");
    stage.fake.say("rebuild_instance", Say::No(full));
    let ran = stage.run(&["instance", "rebuild", "web", "--elsewhere", "-y"]).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.err.contains("no host fits"), "{}", ran.err);
}
