use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use croft_proto::agent::v1::{DesiredInstance, Tombstone};

use super::*;
use crate::hypervisor::Seed;

fn desired(power_generation: i64) -> DesiredInstance {
    DesiredInstance { name: "web".to_owned(), power_generation, reboot_generation: 4, ..DesiredInstance::default() }
}

fn open(directory: &Path) -> Opened {
    Journal::open(directory, Tasks::default()).expect("open")
}

#[tokio::test]
async fn what_was_updated_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("tempdir");
    let uid = Uuid::now_v7();
    let opened = open(dir.path());
    let entry = opened.journal.entry(uid, Record::new(desired(1)));
    entry.persist().await.expect("persist");
    let seed = Seed { meta_data: "m".to_owned(), user_data: "secret".to_owned(), ..Seed::default() };
    let kept = Some(KeptSeed { digest: "sha256:0".to_owned(), seed });
    entry.update(|record| record.seed.clone_from(&kept)).await.expect("update");
    opened.host.update(|host| host.epoch = 5).await.expect("host");

    let path = dir.path().join(format!("{uid}.json"));
    assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600, "it holds secrets");
    let again = open(dir.path());
    assert_eq!(again.host.read().await.epoch, 5);
    assert_eq!(again.records, [(uid, Record { seed: kept, ..Record::new(desired(1)) })]);

    entry.retire().await.expect("retire");
    assert!(open(dir.path()).records.is_empty());
}

#[tokio::test]
async fn a_failed_write_changes_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(&dir.path().join("journal"));
    let entry = opened.journal.entry(Uuid::now_v7(), Record::default());
    entry.persist().await.expect("persist");
    fs::remove_dir_all(dir.path().join("journal")).expect("remove");
    let error = entry.update(|record| record.restarts = 1).await.expect_err("nowhere to write");
    assert!(matches!(error, Error::Write(_)), "{error}");
    assert_eq!(entry.read().await.restarts, 0, "nobody reads what is not on the disk");
}

#[tokio::test]
async fn a_killed_agent_writes_no_more() {
    let dir = tempfile::tempdir().expect("tempdir");
    let tasks = Tasks::default();
    let opened = Journal::open(dir.path(), tasks.clone()).expect("open");
    let entry = opened.journal.entry(Uuid::now_v7(), Record::default());
    entry.persist().await.expect("persist");
    tasks.kill();
    assert!(matches!(entry.update(|record| record.restarts = 1).await, Err(Error::Killed)));
    assert_eq!(open(dir.path()).records[0].1.restarts, 0);
}

#[tokio::test]
async fn a_corrupt_record_is_shown_kept_and_healed_by_a_decision() {
    let dir = tempfile::tempdir().expect("tempdir");
    let uid = Uuid::now_v7();
    fs::write(dir.path().join(format!("{uid}.json")), "{ \"format\": 1, \"des").expect("write");
    fs::write(dir.path().join(format!("{uid}.json.tmp")), "half").expect("write");

    // Twice: a restart must not turn it into a healthy empty one.
    for _ in 0..2 {
        let (_, record) = open(dir.path()).records.pop().expect("never dropped");
        assert!(record.corrupt.expect("corrupt").message.contains(&uid.to_string()));
    }
    let kept = fs::read_to_string(dir.path().join(format!("{uid}.json.corrupt"))).expect("kept");
    assert_eq!(kept, "{ \"format\": 1, \"des");
    assert!(!dir.path().join(format!("{uid}.json.tmp")).exists());

    let (_, mut record) = open(dir.path()).records.pop().expect("record");
    record.set_desired(desired(3));
    assert!(record.corrupt.is_some(), "the plane's word alone heals nothing");
    assert_eq!(record.done.reboot, 4, "an imperative that may have been done is not done again");
    record.set_desired(desired(4));
    assert_eq!(record.corrupt, None, "somebody started or stopped it");
}

#[test]
fn a_record_of_another_format_is_not_guessed_at() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join(format!("{}.json", Uuid::now_v7()));
    fs::write(&path, serde_json::to_vec(&Record { format: 99, ..Record::default() }).expect("encode")).expect("write");
    let (_, record) = open(dir.path()).records.pop().expect("record");
    assert!(record.corrupt.expect("corrupt").message.contains("format 99"));
}

#[tokio::test]
async fn a_corrupt_host_file_means_that_no_epoch_is_known() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::write(dir.path().join("host.json"), "not json").expect("write");
    let opened = open(dir.path());
    assert_eq!(opened.host.read().await, HostRecord::default());
    assert!(dir.path().join("host.json.corrupt").exists());
}

#[test]
fn a_second_tombstone_only_makes_the_first_more_urgent() {
    let mut record = Record::new(desired(1));
    record.after = Some(desired(2));
    let mut bury = |force, stop_timeout_seconds, generation| {
        let tombstone = Tombstone { force, stop_timeout_seconds, generation, ..Tombstone::default() };
        record.bury(&tombstone, tombstone.force);
    };
    bury(false, 60, 5);
    bury(true, 90, 0);
    bury(false, 90, 4);
    let grave = Grave { generation: 5, force: true, stop_timeout_seconds: 60, removed: false, gone: false };
    assert_eq!((record.generation(), record.tombstone, record.after), (5, Some(grave), None));
}

#[test]
fn what_cannot_be_kept_aside_is_not_replaced() {
    let dir = tempfile::tempdir().expect("tempdir");
    let uid = Uuid::now_v7();
    let path = dir.path().join(format!("{uid}.json"));
    fs::write(&path, "{ half").expect("write");
    // The name that it would be kept under is taken: as little as a full disk does it let a copy be made.
    fs::create_dir(dir.path().join(format!("{uid}.json.corrupt"))).expect("obstacle");
    let (_, record) = open(dir.path()).records.pop().expect("never dropped");
    let message = record.corrupt.expect("corrupt").message;
    assert!(message.contains("it stays as it is") && !message.contains("is kept as"), "{message}");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "{ half");
}

#[test]
fn a_record_that_cannot_be_read_now_is_left_as_it_is() {
    let dir = tempfile::tempdir().expect("tempdir");
    // Reading a directory fails, as reading from a failing disk does.
    let path = dir.path().join(format!("{}.json", Uuid::now_v7()));
    fs::create_dir(&path).expect("obstacle");
    let (_, record) = open(dir.path()).records.pop().expect("never dropped");
    assert!(record.corrupt.expect("corrupt").message.contains("can not be read"));
    assert!(path.is_dir());
}

#[tokio::test]
async fn what_cannot_be_read_of_devices_is_never_taken_for_nothing_nor_written_over() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("devices.json");
    assert_eq!(open(dir.path()).devices.read().await, crate::devices::Record::default(), "there is none yet");
    // Reading a directory fails, as reading from a failing disk does; and a link to itself is there, though it has no end.
    fs::create_dir(&path).expect("obstacle");
    let corrupt = async || open(dir.path()).devices.read().await.corrupt.expect("corrupt");
    assert!(corrupt().await.contains("can not be read"));
    fs::remove_dir(&path).expect("remove");
    std::os::unix::fs::symlink(&path, &path).expect("link");
    assert!(corrupt().await.contains("can not be read"));
    fs::remove_file(&path).expect("remove");

    fs::write(&path, "{ half").expect("write");
    assert!(corrupt().await.contains("it stays as it is"));
    assert_eq!(fs::read_to_string(&path).expect("there"), "{ half");

    // One damaged entry; but no room to keep the file aside.
    let record = serde_json::to_value(crate::devices::Record::default()).expect("record");
    let mut damaged = record;
    damaged["marks"] = serde_json::json!({ "0000:41:00.0": 7 });
    fs::write(&path, damaged.to_string()).expect("write");
    fs::create_dir(dir.path().join("devices.json.corrupt")).expect("obstacle");
    assert!(corrupt().await.contains("can not be kept aside"));
    fs::remove_dir(dir.path().join("devices.json.corrupt")).expect("remove");
    assert_eq!(open(dir.path()).devices.read().await.corrupt, None, "only that device");
    assert_eq!(fs::read_to_string(dir.path().join("devices.json.corrupt")).expect("kept"), damaged.to_string());
}
