//! What is made once per content of its recipe and then found in the cache: the key, and one maker at a time.
//!
//! What the archives serve is not part of a key: remove the directory to get today's packages.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::guest_image::{sha256, sha256_text};

/// Sixteen hex digits of every file of these parts of `dir`, and of the options.
pub(crate) fn key(dir: &Path, parts: &[&str], options: &[(&str, String)]) -> Result<String> {
    let mut files = Vec::new();
    for part in parts {
        list(&dir.join(part), &mut files)?;
    }
    files.sort();
    let mut digest = String::new();
    for file in &files {
        let name = file.strip_prefix(dir).unwrap_or(file).display().to_string();
        digest = sha256_text(&format!("{digest} {name} {}", sha256(file)?))?;
    }
    for (name, value) in options {
        digest = sha256_text(&format!("{digest} {name}={value}"))?;
    }
    Ok(digest.chars().take(16).collect())
}

fn list(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
        list(&entry.with_context(|| format!("cannot list {}", path.display()))?.path(), files)?;
    }
    Ok(())
}

/// Waits until nobody else makes anything in this folder of the cache. The kernel lets go of it when the maker dies.
pub(crate) fn lock(cache: &Path) -> Result<File> {
    let path = cache.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            println!("    somebody else is at work in {}: waiting for them", cache.display());
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_of_every_file_of_the_recipe_and_of_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("host/etc")).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        for name in ["build.sh", "host/etc/one"] {
            write(name, name);
        }
        let key = |options: &[(&str, String)]| super::key(dir.path(), &["build.sh", "host"], options).unwrap();
        let first = key(&[]);
        write("in-namespace.sh", "no part of it");
        assert_eq!(key(&[]), first);
        assert_ne!(key(&[("SUITE", "forky".to_owned())]), first);
        write("host/etc/one", "changed");
        assert_ne!(key(&[]), first);
    }

    #[test]
    fn a_second_maker_waits_for_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let path = dir.path().to_owned();
        let second = std::thread::spawn(move || {
            let _held = lock(&path).unwrap();
            sender.send(()).unwrap();
        });
        assert!(receiver.recv_timeout(std::time::Duration::from_millis(200)).is_err(), "it did not wait");
        drop(first);
        receiver.recv_timeout(std::time::Duration::from_secs(180)).unwrap();
        second.join().unwrap();
    }
}
