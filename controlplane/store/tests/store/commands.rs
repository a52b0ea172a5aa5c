use std::time::Duration;

use croft_core::instance::{Phase, Power, State};
use croft_core::meta::Labels;
use croft_core::operation::Verb;
use croft_core::{Clock, Error, Reason};
use croft_store::{Command, Done};

use crate::bed::{Bed, call, call_with, labels, refused, small, t};

#[tokio::test]
async fn commands_raise_the_counters_that_say_when_they_are_done() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    let once = Some(Duration::from_secs(5));
    let (stop, stopped) = bed.command(&vm, Command::Stop { timeout: once }).await.unwrap();
    assert_eq!((stop.verb, stop.counter), (Verb::Stop, 2));
    assert_eq!((stopped.intent.power, stopped.intent.stop_timeout_once), (Power::Stopped, once));
    assert_eq!(stopped.meta.generation, vm.meta.generation + 1);
    let (start, started) = bed.command(&vm, Command::Start).await.unwrap();
    assert_eq!((start.verb, start.counter), (Verb::Start, 3));
    assert_eq!((started.intent.power, started.intent.stop_timeout_once), (Power::Running, None));
    let (reboot, _) = bed.command(&vm, Command::Reboot).await.unwrap();
    let (reset, now) = bed.command(&vm, Command::Reset).await.unwrap();
    assert_eq!((reboot.counter, reset.counter), (1, 1));
    assert_eq!(bed.get(vm.uid).await, now);
    let open = bed.store.operation_open(vm.uid).await.unwrap();
    assert_eq!(open.len(), 4, "the create is done");
}

#[tokio::test]
async fn what_does_not_run_is_not_rebooted() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    bed.command(&vm, Command::Stop { timeout: None }).await.unwrap();
    for command in [Command::Reboot, Command::Reset] {
        assert_eq!(refused(bed.command(&vm, command).await).reason(), Reason::InstanceNotRunning);
    }
    // A guest that powered itself off, though it should run.
    bed.command(&vm, Command::Start).await.unwrap();
    let mut truth = crate::bed::seen(&bed.get(vm.uid).await, Phase::Off);
    truth.exit = Some(croft_core::instance::Exit {
        kind: croft_core::instance::ExitKind::GuestPoweroff,
        message: String::new(),
        time: bed.clock.now(),
    });
    bed.store.instance_observe(vm.host().unwrap(), 1, vec![(vm.uid, truth)], false).await.unwrap();
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Stopped));
    assert_eq!(refused(bed.command(&vm, Command::Reboot).await).reason(), Reason::InstanceNotRunning);
}

#[tokio::test]
async fn a_delete_forgets_what_was_seen_and_happens_once() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    let stale =
        refused(bed.store.instance_command(&call(), &t("acme"), "vm", "0-0", Command::Delete { force: false }).await);
    assert_eq!(stale.reason(), Reason::EtagMismatch);
    let (delete, deleting) = bed.command(&vm, Command::Delete { force: false }).await.unwrap();
    assert_eq!((deleting.meta.delete_time, deleting.status.observed), (Some(bed.clock.now()), None));
    let (again, forced) = bed.command(&vm, Command::Delete { force: true }).await.unwrap();
    assert_eq!(again.uid, delete.uid, "the same delete");
    assert!(forced.intent.delete_force, "that pulls the plug now");
    assert_eq!(refused(bed.command(&vm, Command::Start).await).reason(), Reason::InstanceDeleting);
    let update = bed.store.instance_update(&call(), &t("acme"), "vm", "", |_| Ok(())).await;
    assert_eq!(refused(update).reason(), Reason::InstanceDeleting);
    let nothing = bed.store.instance_command(&call(), &t("acme"), "no", "", Command::Start).await;
    assert_eq!(refused(nothing), Error::not_found("tenants/acme/instances/no"));
    bed.consistent().await;
}

#[tokio::test]
async fn a_retried_command_is_not_carried_out_twice() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    let reboot = async |request| {
        bed.store.instance_command(&call_with(request, 1), &t("acme"), "vm", "", Command::Reboot).await.unwrap()
    };
    let Done::New((first, _)) = reboot("r").await else { panic!("new") };
    let Done::Replayed((again, instance)) = reboot("r").await else { panic!("replay") };
    assert_eq!((first.uid, instance.intent.reboot_generation), (again.uid, 1));
    bed.see(vm.uid, Phase::Running).await;
    bed.settle(vm.uid).await;
    assert!(reboot("r").await.into_inner().0.done, "as it is now");
}

#[tokio::test]
async fn operations_are_listed_newest_first_within_a_scope() {
    let bed = Bed::furnished().await;
    bed.tenant("other", None).await;
    let vm = bed.running("acme", "vm").await;
    bed.advance(1);
    bed.command(&vm, Command::Reboot).await.unwrap();
    bed.advance(1);
    bed.instance("other", "vm").await;
    let verbs = async |within: Option<&str>| {
        let within = within.map(t);
        let mut page = croft_store::Page::first(1);
        let mut verbs = Vec::new();
        loop {
            let (operations, next) = bed.store.operation_list(within.as_ref(), &Labels::new(), &page).await.unwrap();
            verbs.extend(operations.into_iter().map(|one| format!("{} {}", one.tenant, one.verb.as_str())));
            page.token = next;
            if page.token.is_none() {
                return verbs;
            }
        }
    };
    assert_eq!(verbs(None).await, ["other create", "acme reboot", "acme create"]);
    assert_eq!(verbs(Some("acme")).await, ["acme reboot", "acme create"]);
    bed.see(vm.uid, Phase::Running).await;
    bed.settle(vm.uid).await;
    bed.advance(7 * 24 * 3600 + 1);
    assert_eq!(bed.store.janitor(Some(bed.clock.now())).await.unwrap().operations, 2, "done, and a week old");
    assert_eq!(verbs(None).await, ["other create"], "an open one stays however old");
}

#[tokio::test]
async fn an_operation_carries_what_its_target_had_when_it_was_accepted() {
    let bed = Bed::furnished().await;
    let mut new = small("acme", "vm");
    new.labels = labels(&[("tier", "front"), ("croft.dev/team", "Ml")]);
    new.annotations = labels(&[("note", "a \"quoted\" word")]);
    let created = bed.claim(bed.fresh(), new).await.unwrap().0;
    assert_eq!((created.labels.len(), created.annotations["note"].as_str()), (2, "a \"quoted\" word"));
    let vm = bed.get(created.target_uid).await;
    let relabel = |instance: &mut croft_core::instance::Instance| {
        instance.meta.labels = labels(&[("tier", "back")]);
        Ok(())
    };
    bed.store.instance_update(&call(), &vm.tenant, &vm.id, "", relabel).await.unwrap();
    bed.command(&bed.get(vm.uid).await, Command::Stop { timeout: None }).await.unwrap();
    assert_eq!(bed.operation(&created).await.labels["tier"], "front", "what it was, not what it is");

    let verbs = async |pairs: &[(&str, &str)]| {
        let page = croft_store::Page::first(10);
        let (found, _) = bed.store.operation_list(Some(&t("acme")), &labels(pairs), &page).await.unwrap();
        found.into_iter().map(|one| one.verb.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(verbs(&[("tier", "front")]).await, ["create"]);
    assert_eq!(verbs(&[("tier", "front"), ("croft.dev/team", "Ml")]).await, ["create"]);
    assert_eq!(verbs(&[("tier", "back")]).await, ["stop"]);
    for other in [("tier", "fron"), ("ier", "front"), ("tier", "Front"), ("croft.dev/team", "ml"), ("note", "a")] {
        assert_eq!(verbs(&[other]).await, [""; 0], "{other:?}");
    }
}
