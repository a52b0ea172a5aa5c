//! The main job on real libvirt and QEMU, with the real binaries: create, console, adoption, deaths, delete.
//!
//! Runs inside `tests/with-libvirtd.sh`, which sets CROFT_LIBVIRT_TEST; elsewhere it says that it did not run.

use std::path::Path;
use std::time::Duration;

use croft_proto::v1;
use croft_proto::v1::instance_status::State;
use croft_tests::eventually::within;
use croft_tests::lab::{BOOT, Lab, agent_arguments, domains, guest, run};
use croft_tests::process::Supervised;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_vm_under_real_libvirt_through_every_death() {
    if std::env::var_os("CROFT_LIBVIRT_TEST").is_none() {
        println!("not run: needs tests/with-libvirtd.sh (the libvirt lane of `cargo xtask test`)");
        return;
    }
    let mut lab = Lab::start().await;
    let create = lab.api.create_as(guest("web", "#!/bin/sh\necho seed-was-read\n")).await.expect("accepted");
    lab.until("web", State::Running).await;
    lab.api.done(&create).await.expect("created");
    lab.console_says("web", "seed-was-read").await;
    let uid = lab.api.get("acme", "web").await.unwrap().metadata.unwrap().uid;
    assert_eq!(domains(), [format!("croft-{uid}")]);
    within(BOOT, "the plane knows the guest's address", || async {
        let status = lab.api.get("acme", "web").await.unwrap().status.unwrap();
        if status.addresses.iter().any(|address| !address.ip.is_empty()) { Ok(()) } else { Err(status) }
    })
    .await;
    let first_boot = run("virsh", &["-q", "domid", &format!("croft-{uid}")]);

    // The agent dies: the VM runs on, and is adopted.
    lab.agent.kill_and_revive();
    label(&lab, "web").await;
    // libvirtd dies, with the agent looking on.
    let pidfile = std::env::var("CROFT_LIBVIRTD_PIDFILE").expect("set by with-libvirtd.sh");
    run("kill", &["-9", std::fs::read_to_string(&pidfile).expect("libvirtd's pid").trim()]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(lab.api.used("acme", "vcpus").await, 1, "not seen is not free");
    run(Path::new(env!("CARGO_MANIFEST_DIR")).join("start-libvirtd.sh").to_str().unwrap(), &[]);
    // The plane dies.
    lab.plane.kill_and_revive();
    within(BOOT, "the plane is back", || async { lab.api.get("acme", "web").await.map(|_| ()) }).await;
    lab.until("web", State::Running).await;
    assert_eq!(run("virsh", &["-q", "domid", &format!("croft-{uid}")]), first_boot, "the same boot all along");

    // Stop is graceful: the guest says so itself.
    lab.api.done(&lab.api.stop("acme", "web").await.unwrap()).await.expect("stopped");
    let log = lab.console("web").await;
    assert!(log.contains("power button") || log.contains("asked to shut down"), "readable after the stop: {log}");
    let exit = lab.api.get("acme", "web").await.unwrap().status.unwrap().exit.expect("an exit");
    assert_eq!(exit.kind(), v1::exit::Kind::Stopped, "{exit:?}");
    lab.api.done(&lab.api.start("acme", "web").await.unwrap()).await.expect("started");

    // Over quota: refused, and nothing of it exists.
    let mut big = guest("big", "");
    big.instance.as_mut().unwrap().spec.as_mut().unwrap().vcpus = 4;
    assert_eq!(lab.api.create_as(big).await.unwrap_err().code(), Code::ResourceExhausted);

    lab.api.done(&lab.api.delete("acme", "web").await.unwrap()).await.expect("deleted");
    assert_eq!(domains(), Vec::<String>::new());
    let left: Vec<_> = std::fs::read_dir(lab.state.join("instances")).unwrap().flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let networks = run("virsh", &["-q", "net-list", "--all", "--name"]);
    assert!(!networks.contains("croft-"), "{networks}");
    assert_eq!(lab.api.used("acme", "vcpus").await, 0);

    deaths_at_points(&mut lab).await;
}

/// A change of intent that the agent must hear of and journal, and that restarts nothing.
async fn label(lab: &Lab, id: &str) {
    let mut instance = lab.api.get("acme", id).await.unwrap();
    let metadata = instance.metadata.as_mut().unwrap();
    metadata.labels.insert("touched".to_owned(), "yes".to_owned());
    metadata.etag.clear();
    let update_mask = Some(prost_types::FieldMask { paths: vec!["metadata.labels".to_owned()] });
    let request = v1::UpdateInstanceRequest { instance: Some(instance), update_mask, ..Default::default() };
    let generation = lab.api.instances.clone().update_instance(request).await.expect("update").into_inner();
    let generation = generation.metadata.unwrap().generation;
    within(BOOT, "the agent answers to the new generation", || async {
        let status = lab.api.get("acme", id).await.unwrap().status.unwrap();
        if status.observed_generation >= generation { Ok(()) } else { Err(status.observed_generation) }
    })
    .await;
}

/// A handful of the points that the simulated backend is killed at, here with QEMU underneath.
async fn deaths_at_points(lab: &mut Lab) {
    for point in ["agent.ensure_defined.after", "agent.start.before", "agent.start.after", "agent.remove.before"] {
        let images = lab.state.with_file_name("images");
        let arguments = agent_arguments(&lab.server, &lab.data, &lab.state, &images, "spent");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        lab.agent.kill();
        let log = lab.state.with_file_name("agent.log");
        lab.agent = Supervised::start("croft-hostagent", &arguments, &log, Some(point));
        let create = lab.api.create_as(guest("frail", "")).await.expect("accepted");
        done(lab, &create).await;
        let delete = lab.api.delete("acme", "frail").await.expect("accepted");
        done(lab, &delete).await;
        assert_eq!(lab.agent.deaths, 1, "{point} was not reached");
        assert_eq!(domains(), Vec::<String>::new(), "{point}");
        assert_eq!(lab.api.used("acme", "vcpus").await, 0, "{point}");
    }
}

async fn done(lab: &mut Lab, operation: &v1::Operation) {
    let began = tokio::time::Instant::now();
    loop {
        lab.agent.revive();
        let request = v1::GetOperationRequest { name: operation.name.clone() };
        let now = lab.api.operations.clone().get_operation(request).await.expect("operation").into_inner();
        if now.done {
            assert_eq!(now.error, None);
            return;
        }
        assert!(began.elapsed() < BOOT, "{now:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
