//! Watches: nothing lost, nothing twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use croft_core::event::{Changed, Event, HISTORY, Severity, Topic};
use croft_core::instance::Phase;
use croft_core::{Clock, Reason};
use croft_store::{Command, HistoryRows, InstanceFilter, Page, Trimmed};

use crate::bed::{Bed, call, refused, small, t};

fn event(bed: &Bed, tenant: Option<&str>, message: &str) -> Event {
    Event {
        revision: 0,
        time: bed.clock.now(),
        tenant: tenant.map(t),
        target: "hosts/h1".to_owned(),
        reason: "Tried".to_owned(),
        message: message.to_owned(),
        severity: Severity::Info,
    }
}

#[tokio::test]
async fn a_watcher_rebuilds_what_the_list_shows() {
    let bed = Bed::furnished().await;
    let (list, _, mut revision) = bed.store.instance_list(&InstanceFilter::default(), &Page::first(9)).await.unwrap();
    assert!(list.is_empty());
    let vm = bed.running("acme", "vm").await;
    let other = bed.running("acme", "other").await;
    bed.command(&other, Command::Stop { timeout: None }).await.unwrap();
    bed.delete(&vm).await;

    let mut known = BTreeMap::new();
    let mut kinds = Vec::new();
    loop {
        // A small limit: as if the stream were cut at every message.
        let read = bed.store.changes_after(revision, Topic::Instances, Some(&t("acme")), 1).await.unwrap();
        assert!(read.changes.iter().all(|change| change.revision > revision));
        for change in &read.changes {
            match &change.what {
                Changed::InstanceWritten { instance, created } => {
                    assert_eq!(*created, !known.contains_key(&instance.uid), "added once");
                    kinds.push(if *created { "added" } else { "modified" });
                    known.insert(instance.uid, (**instance).clone());
                }
                Changed::InstanceRemoved { instance } => {
                    kinds.push("removed");
                    known.remove(&instance.uid).expect("was there");
                }
                Changed::Event(_) => panic!("another topic"),
            }
        }
        let before = std::mem::replace(&mut revision, read.up_to);
        if before == revision {
            break;
        }
    }
    let (list, _, now) = bed.store.instance_list(&InstanceFilter::default(), &Page::first(9)).await.unwrap();
    assert_eq!(known.into_values().collect::<Vec<_>>(), list);
    assert_eq!((now, kinds.last()), (revision, Some(&"removed")));
    assert_eq!(kinds.iter().filter(|kind| **kind == "added").count(), 2);
}

#[tokio::test]
async fn each_sees_its_own_part() {
    let bed = Bed::furnished().await;
    bed.tenant("child", Some("acme")).await;
    bed.tenant("other", None).await;
    let start = bed.store.revision().await.unwrap();
    for (tenant, message) in [(Some("acme"), "a"), (Some("child"), "c"), (Some("other"), "o"), (None, "p")] {
        bed.store.event_append(event(&bed, tenant, message)).await.unwrap();
    }
    let read = async |within: Option<&str>| {
        let within = within.map(t);
        let read = bed.store.changes_after(start, Topic::Events, within.as_ref(), 100).await.unwrap();
        assert_eq!(read.up_to, start + 4, "everything up to here was looked at");
        let messages = read.changes.into_iter().map(|change| match change.what {
            Changed::Event(event) => {
                assert_eq!(event.revision, change.revision);
                event.message
            }
            _ => panic!("another topic"),
        });
        messages.collect::<String>()
    };
    assert_eq!(read(None).await, "acop");
    assert_eq!(read(Some("acme")).await, "ac");
    assert_eq!(read(Some("other")).await, "o");
    assert_eq!(read(Some("nobody")).await, "");
}

#[tokio::test]
async fn a_watcher_that_lags_still_hears_the_end_of_a_deleted_tenant() {
    let bed = Bed::furnished().await;
    bed.tenant("child", Some("acme")).await;
    let vm = bed.running("child", "vm").await;
    let lagging = bed.store.revision().await.unwrap();
    bed.delete(&vm).await;
    bed.store.tenant_delete(&call(), &t("child"), "").await.unwrap();
    let read = bed.store.changes_after(lagging, Topic::Instances, Some(&t("acme")), 100).await.unwrap();
    assert!(
        matches!(&read.changes.last().unwrap().what, Changed::InstanceRemoved { instance } if instance.uid == vm.uid)
    );
}

#[tokio::test]
async fn events_are_listed_oldest_first_in_pages() {
    let bed = Bed::new().await;
    for number in 0..7 {
        bed.store.event_append(event(&bed, None, &number.to_string())).await.unwrap();
    }
    let mut page = Page::first(3);
    let mut messages = String::new();
    loop {
        let (events, next, revision) = bed.store.events_list(None, Some("hosts/h1"), &page).await.unwrap();
        assert_eq!(revision, bed.store.revision().await.unwrap());
        messages.extend(events.into_iter().map(|event| event.message));
        page.token = next;
        if page.token.is_none() {
            break;
        }
    }
    assert_eq!(messages, "0123456");
    let (none, _, _) = bed.store.events_list(None, Some("hosts/h2"), &Page::first(3)).await.unwrap();
    assert!(none.is_empty());
}

#[tokio::test]
async fn trimmed_history_is_said_to_be_too_old() {
    let bed = Bed::new().await;
    for number in 0..10 {
        bed.store.event_append(event(&bed, None, &number.to_string())).await.unwrap();
    }
    // Too many is too many whatever the clock says.
    let rows = HistoryRows { changes_most: 4, changes_least: 0, audit_least: 0 };
    assert_eq!(bed.store.janitor_keeping(None, rows).await.unwrap().changes, 6);
    let read = bed.store.changes_after(6, Topic::Events, None, 100).await.unwrap();
    assert_eq!(read.changes.len(), 4, "the last token that still leads on");
    for token in [5, 0, 11, -1, i64::MAX] {
        let error = refused(bed.store.changes_after(token, Topic::Events, None, 100).await);
        assert_eq!(error.reason(), Reason::ResumeTokenTooOld, "{token}");
    }
    bed.clock.advance(HISTORY + Duration::from_secs(1));
    bed.store.event_append(event(&bed, None, "young")).await.unwrap();
    assert_eq!(bed.store.janitor_keeping(None, rows).await.unwrap().changes, 1, "again one too many");
    assert_eq!(bed.store.janitor_keeping(Some(bed.clock.now()), rows).await.unwrap().changes, 3);
    assert_eq!(refused(bed.store.changes_after(9, Topic::Events, None, 1).await).reason(), Reason::ResumeTokenTooOld);
    assert_eq!(bed.store.changes_after(10, Topic::Events, None, 1).await.unwrap().changes.len(), 1);
    bed.consistent().await;
}

#[tokio::test]
async fn the_newest_stay_however_old_they_are() {
    let bed = Bed::new().await;
    for number in 0..10 {
        bed.store.event_append(event(&bed, None, &number.to_string())).await.unwrap();
        bed.tenant(&format!("t{number}"), None).await;
        bed.advance(1);
    }
    bed.advance(10 * 365 * 24 * 3600);
    let now = Some(bed.clock.now());
    assert_eq!(bed.store.janitor(None).await.unwrap(), Trimmed::default(), "without a time nothing is old");
    let trimmed = bed.store.janitor(now).await.unwrap();
    assert_eq!((trimmed.changes, trimmed.audit), (0, 0), "a quiet plane keeps its last words");
    let rows = HistoryRows { changes_most: 1_000, changes_least: 3, audit_least: 4 };
    let trimmed = bed.store.janitor_keeping(now, rows).await.unwrap();
    assert_eq!((trimmed.changes, trimmed.audit), (7, 6));
    let (rows, _) = bed.store.audit_list(None, &Page::first(10)).await.unwrap();
    let left: Vec<_> = rows.into_iter().map(|row| row.target).collect();
    assert_eq!(left, ["tenants/t9", "tenants/t8", "tenants/t7", "tenants/t6"]);
    bed.consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_beside_writers_miss_nothing() {
    const WRITERS: usize = 4;
    const EACH: usize = 60;
    let bed = Arc::new(Bed::new().await);
    let start = bed.store.revision().await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let bed = bed.clone();
        writers.spawn(async move {
            for number in 0..EACH {
                bed.store.event_append(event(&bed, None, &format!("{writer}-{number}"))).await.unwrap();
            }
        });
    }
    let reader = tokio::spawn({
        let bed = bed.clone();
        async move {
            let (mut revision, mut messages) = (start, Vec::new());
            let mut changed = bed.store.changed();
            while messages.len() < WRITERS * EACH {
                let read = bed.store.changes_after(revision, Topic::Events, None, 7).await.unwrap();
                for change in read.changes {
                    assert_eq!(change.revision, revision + 1, "no gap");
                    revision = change.revision;
                    let Changed::Event(event) = change.what else { panic!("another topic") };
                    messages.push(event.message);
                }
                assert_eq!(read.up_to, revision);
                if messages.len() < WRITERS * EACH && bed.store.revision().await.unwrap() == revision {
                    changed.wait_for(|newest| *newest > revision).await.unwrap();
                }
            }
            messages
        }
    });
    writers.join_all().await;
    let messages = reader.await.unwrap();
    for writer in 0..WRITERS {
        let own: Vec<_> = messages.iter().filter(|text| text.starts_with(&format!("{writer}-"))).cloned().collect();
        let expected: Vec<_> = (0..EACH).map(|number| format!("{writer}-{number}")).collect();
        assert_eq!(own, expected, "each writer's in its order");
    }
}

#[tokio::test]
async fn a_commit_is_seen_whole() {
    let bed = Bed::furnished().await;
    let start = bed.store.revision().await.unwrap();
    let vm = bed.claim(bed.fresh(), small("acme", "vm")).await.unwrap().1;
    bed.see(vm.uid, Phase::Running).await;
    bed.settle(vm.uid).await;
    let instances = bed.store.changes_after(start, Topic::Instances, None, 100).await.unwrap().changes;
    let events = bed.store.changes_after(start, Topic::Events, None, 100).await.unwrap().changes;
    let mut revisions: Vec<i64> = instances.iter().chain(&events).map(|change| change.revision).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (start + 1..=start + 5).collect::<Vec<_>>(), "claim 2, observe 1, settle 2");
}
