//! The files on the disk: their modes, a start after a kill, a backup, a schema from the future.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use croft_core::Reason;
use croft_core::event::Topic;
use croft_core::instance::{Phase, State};
use croft_store::{Command, Options, Schema, Store};
use sqlx::Connection as _;

use crate::bed::{Bed, call, refused, t};

#[tokio::test]
async fn nobody_else_reads_the_files() {
    let bed = Bed::furnished().await;
    for name in ["croft.db", "croft.db-wal", "croft.db-shm", "secrets.key"] {
        let mode = fs::metadata(bed.dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    bed.command(&vm, Command::Reboot).await.unwrap();
    bed.see(vm.uid, Phase::Off).await;
    let before = bed.dump().await;
    let bed = bed.reopen().await;
    assert_eq!(bed.dump().await, before);
    assert_eq!(bed.store.instance_unsettled().await.unwrap(), [vm.uid], "and is looked at first");
    assert_eq!(*bed.store.changed().borrow(), bed.store.revision().await.unwrap());
    bed.settle(vm.uid).await;
    assert_eq!(bed.get(vm.uid).await.status.state, State::Starting);
    let seed = bed.store.blob_get(vm.host().unwrap(), &vm.intent.seed_digest).await.unwrap();
    assert!(seed.is_some(), "the key is still the key");
    bed.consistent().await;
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let bed = Bed::furnished().await;
    bed.store.close().await;
    assert_eq!(refused(bed.store.tenant_get(&t("acme")).await).reason(), Reason::Unavailable);
    assert_eq!(refused(bed.store.tenant_delete(&call(), &t("acme"), "").await).reason(), Reason::Unavailable);
    assert!(!bed.dir.path().join("croft.db-wal").exists(), "taken into the file");
    let bed = bed.reopen().await;
    bed.instance("acme", "vm").await;
}

#[tokio::test]
async fn whoever_asks_for_the_schema_makes_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("croft.db");
    let url = format!("sqlite:{}", file.display());
    let nothing = Schema { program: 1, database: None };
    assert_eq!(Schema::of(&url).await.unwrap(), nothing);
    assert!(!file.exists());
    fs::write(&file, "").unwrap();
    assert_eq!(Schema::of(&url).await.unwrap(), nothing);
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[tokio::test]
async fn a_schema_from_the_future_is_refused_and_left_alone() {
    let bed = Bed::new().await;
    bed.store.close().await;
    let file = bed.dir.path().join("croft.db");
    let mut conn = sqlx::AnyConnection::connect(&format!("sqlite:{}?mode=rw", file.display())).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time)
         VALUES (99, 'future', '2030-01-01', TRUE, x'00', 0)",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    conn.close().await.unwrap();
    let error = refused(Store::open(Options::in_dir(bed.dir.path(), bed.clock.clone())).await);
    assert!(error.to_string().contains("has schema 99; this croft-controlplane knows up to 1"), "{error}");
    let schema = Schema::of(&Options::in_dir(bed.dir.path(), bed.clock.clone()).url).await.unwrap();
    assert_eq!(schema, Schema { program: 1, database: Some(99) });
}

#[tokio::test]
async fn secrets_without_their_key_are_not_started_with() {
    let bed = Bed::furnished().await;
    bed.instance("acme", "vm").await;
    bed.store.close().await;
    fs::remove_file(bed.dir.path().join("secrets.key")).unwrap();
    let error = refused(Store::open(Options::in_dir(bed.dir.path(), bed.clock.clone())).await);
    assert!(error.to_string().contains("is missing, and 1 secrets in the database need it"), "{error}");
    assert!(!bed.dir.path().join("secrets.key").exists(), "no new one in its place");
}

#[tokio::test]
async fn a_path_that_cannot_be_is_named() {
    let bed = Bed::new().await;
    let missing = Options::in_dir(&bed.dir.path().join("not/there"), bed.clock.clone());
    assert!(refused(Store::open(missing).await).to_string().contains("not/there/croft.db"));
    let postgres = Options { url: "postgres://x".to_owned(), ..Options::in_dir(bed.dir.path(), bed.clock.clone()) };
    assert!(refused(Store::open(postgres).await).to_string().contains("only a file"));
}

#[tokio::test]
async fn a_backup_is_whole_private_and_another_stretch_of_history() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("croft.db");
    bed.store.backup_to(&copy).await.unwrap();
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(refused(bed.store.backup_to(&copy).await).to_string().contains("croft.db"), "never overwritten");
    let taken_at = bed.store.revision().await.unwrap();
    let later = bed.instance("acme", "later").await;
    let token = bed.store.revision().await.unwrap();

    fs::copy(bed.dir.path().join("secrets.key"), elsewhere.path().join("secrets.key")).unwrap();
    let restored = Store::open(Options::in_dir(elsewhere.path(), bed.clock.clone())).await.unwrap();
    assert_eq!(restored.consistency().await.unwrap(), Vec::<String>::new());
    assert_eq!(restored.instance_by_uid(vm.uid).await.unwrap(), Some(vm.clone()));
    assert_eq!(restored.instance_by_uid(later.uid).await.unwrap(), None);
    assert!(restored.blob_get(vm.host().unwrap(), &vm.intent.seed_digest).await.unwrap().is_some());
    for old in [token, taken_at] {
        let error = refused(restored.changes_after(old, Topic::Instances, None, 9).await);
        assert_eq!(error.reason(), Reason::ResumeTokenTooOld);
    }
    let fresh = restored.revision().await.unwrap();
    assert!(fresh > token);
    assert!(restored.changes_after(fresh, Topic::Instances, None, 9).await.is_ok());
    bed.consistent().await;
}
