//! A backup: one directory with the database of one moment, the CA and the keys, and a list of what is in it.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use croft_core::Timestamp;
use croft_store::Store;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::datadir::{DataDir, told};
use crate::files;

pub(super) const MANIFEST: &str = "backup.json";
pub(super) const DATABASE: &str = "croft.db";
/// Beside the database. A plane with your own CA at another place has no CA files here: those are yours to keep.
pub(super) const OTHERS: [&str; 3] = ["secrets.key", "ca.pem", "ca.key"];

/// The manifest is written last: a directory without one is no backup, whatever else is in it.
pub async fn backup(directory: &DataDir, store: &Store, to: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(to)
        .with_context(|| format!("--to: the new directory {} cannot be made", to.display()))?;
    // The database first: whatever key a secret in it needs is in the key file by then.
    let copied = store.backup_to(&to.join(DATABASE)).await;
    copied.map_err(|error| anyhow::anyhow!("the database cannot be copied: {}", told(&error)))?;
    let mut digests = Map::from_iter([(DATABASE.to_owned(), json!(digest(&to.join(DATABASE))?))]);
    let mut missing = Vec::new();
    for name in OTHERS {
        match files::read(&directory.path().join(name))? {
            Some(contents) => {
                files::write(&to.join(name), &contents, files::SECRET)?;
                digests.insert(name.to_owned(), json!(hex::encode(Sha256::digest(&contents))));
            }
            None => missing.push(name),
        }
    }
    ensure!(digests.contains_key("secrets.key"), "secrets.key is missing: seeds in this backup could not be read");
    let manifest =
        json!({ "version": croft_program::version(), "time_us": store.now().0, "sha256": Value::Object(digests) });
    files::write(&to.join(MANIFEST), format!("{manifest:#}\n").as_bytes(), files::SECRET)?;
    println!("backed up to {}", to.display());
    if !missing.is_empty() {
        println!("not in the data directory, and so not in the backup: {}; keep your own CA safe", missing.join(", "));
    }
    Ok(())
}

/// What a backup says of itself, once each of its files was held against it.
pub(super) fn verified(from: &Path) -> Result<(Vec<String>, Timestamp)> {
    let path = from.join(MANIFEST);
    let text = files::read(&path)?.with_context(|| {
        format!("{} is missing: {} is no backup, or one that was never finished", path.display(), from.display())
    })?;
    let unreadable = || format!("{} is not what `admin backup` writes", path.display());
    let manifest: Value = serde_json::from_slice(&text).with_context(unreadable)?;
    let time = manifest["time_us"].as_i64().with_context(unreadable)?;
    let digests = manifest["sha256"].as_object().with_context(unreadable)?;
    let mut names = Vec::new();
    for (name, expected) in digests {
        ensure!(name == DATABASE || OTHERS.contains(&name.as_str()), "{}: `{name}` is not ours", path.display());
        let found = digest(&from.join(name))?;
        ensure!(expected == &json!(found), "{} is damaged: it is not what was backed up", from.join(name).display());
        names.push(name.clone());
    }
    for needed in [DATABASE, OTHERS[0]] {
        ensure!(digests.contains_key(needed), "{}: lists no {needed}", path.display());
    }
    Ok((names, Timestamp(time)))
}

fn digest(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut digest = Sha256::new();
    std::io::copy(&mut file, &mut digest).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(hex::encode(digest.finalize()))
}
