//! Keeps what guests write to their serial consoles within bounds: a size for each instance, and an age once the
//! instance is gone.
//!
//! ```text
//! console/<uid>.log      what is written now
//! console/<uid>.log.N    older; the higher N, the older
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Wall;

const BLOCK: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one instance, all its files together.
    pub bytes: u64,
    /// After the last byte was written, for an instance that is gone.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 8 << 20, age: Duration::from_secs(30 * 24 * 3600) }
    }
}

/// One round; blocks. `present`: instances whose logs do not age.
pub fn sweep(directory: &Path, limits: Limits, present: &HashSet<Uuid>, now: Wall) -> io::Result<()> {
    for (uid, mut files) in logs(directory)? {
        // Oldest first; the current file, which has no number, comes last.
        files.sort_by_key(|log| std::cmp::Reverse(log.number));
        let newest = files.iter().map(|log| log.written).max();
        if !present.contains(&uid) && newest.is_some_and(|newest| now.since(newest) > limits.age) {
            for log in &files {
                remove(&log.path)?;
            }
            continue;
        }
        let mut total: u64 = files.iter().map(|log| log.bytes).sum();
        for log in &files {
            if total <= limits.bytes {
                break;
            }
            total -= log.bytes;
            match log.number {
                Some(_) => remove(&log.path)?,
                None => total += keep_tail(&log.path, limits.bytes / 2)?,
            }
        }
    }
    Ok(())
}

struct Log {
    path: PathBuf,
    number: Option<u32>,
    bytes: u64,
    written: Wall,
}

fn logs(directory: &Path) -> io::Result<BTreeMap<Uuid, Vec<Log>>> {
    let mut logs = BTreeMap::<Uuid, Vec<Log>>::new();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(logs),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some((uid, number)) = name.to_str().and_then(parse) else { continue };
        // Rotated away between the listing and now, or not a file: no concern of this round.
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_file() {
            continue;
        }
        let written = metadata
            .modified()
            .ok()
            .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
            .and_then(|since| i64::try_from(since.as_micros()).ok())
            .map_or(Wall(0), Wall);
        logs.entry(uid).or_default().push(Log { path: entry.path(), number, bytes: metadata.len(), written });
    }
    Ok(logs)
}

/// `<uid>.log` or `<uid>.log.<number>`; everything else is not ours to remove.
fn parse(name: &str) -> Option<(Uuid, Option<u32>)> {
    let (stem, rest) = name.split_once(".log")?;
    let uid = Uuid::try_parse(stem).ok()?;
    match rest {
        "" => Some((uid, None)),
        rest => Some((uid, Some(rest.strip_prefix('.')?.parse().ok()?))),
    }
}

/// Leaves the last `bytes` of a file that somebody else is appending to, who goes on at the new end. What is written in
/// the last moment may be cut. Returns how much stays.
fn keep_tail(path: &Path, bytes: u64) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut block = vec![0; BLOCK];
    let mut from = file.metadata()?.len().saturating_sub(bytes);
    // The first line is cut somewhere in the middle.
    let begun = file.read_at(&mut block, from)?;
    from += block[..begun].iter().position(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
    let mut to = 0;
    // Moved in place: the limit may be larger than the memory that an agent should take. A writer is not chased for ever.
    while to < bytes.saturating_mul(2) {
        let count = file.read_at(&mut block, from)?;
        if count == 0 {
            break;
        }
        file.write_all_at(&block[..count], to)?;
        (from, to) = (from + count as u64, to + count as u64);
    }
    file.set_len(to)?;
    Ok(to)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(directory: &Path, name: &str) -> Option<u64> {
        fs::metadata(directory.join(name)).ok().map(|metadata| metadata.len())
    }

    #[test]
    fn the_oldest_go_first_and_the_current_one_keeps_its_end() {
        let dir = tempfile::tempdir().expect("tempdir");
        let uid = Uuid::now_v7();
        let write = |name: String, text: &[u8]| fs::write(dir.path().join(name), text).expect("write");
        write(format!("{uid}.log"), &b"line\n".repeat(100));
        write(format!("{uid}.log.0"), &[b'x'; 300]);
        write(format!("{uid}.log.1"), &[b'x'; 300]);
        write("unrelated.log".to_owned(), &[b'x'; 5000]);
        let present = HashSet::from([uid]);

        let limits = Limits { bytes: 800, ..Limits::default() };
        sweep(dir.path(), limits, &present, Wall(0)).expect("sweep");
        assert_eq!(bytes(dir.path(), &format!("{uid}.log.1")), None);
        assert_eq!(bytes(dir.path(), &format!("{uid}.log.0")), Some(300));
        assert_eq!(bytes(dir.path(), &format!("{uid}.log")), Some(500));

        sweep(dir.path(), Limits { bytes: 104, ..limits }, &present, Wall(0)).expect("sweep");
        assert_eq!(bytes(dir.path(), &format!("{uid}.log.0")), None);
        let tail = fs::read(dir.path().join(format!("{uid}.log"))).expect("read");
        assert_eq!(tail, b"line\n".repeat(10), "the last half of the limit, from the start of a line");
        assert_eq!(bytes(dir.path(), "unrelated.log"), Some(5000));
    }

    #[test]
    fn the_end_of_a_log_of_many_blocks_is_kept_whole() {
        let dir = tempfile::tempdir().expect("tempdir");
        let uid = Uuid::now_v7();
        let path = dir.path().join(format!("{uid}.log"));
        let line = |number: usize| format!("line {number:08}\n");
        fs::write(&path, (0..500_000).map(line).collect::<String>()).expect("write");
        let limits = Limits { bytes: 5 << 20, ..Limits::default() };
        sweep(dir.path(), limits, &HashSet::from([uid]), Wall(0)).expect("sweep");
        let kept = fs::read_to_string(&path).expect("read");
        let first = 500_000 - kept.len() / line(0).len();
        assert!(kept.len() > 2 << 20 && kept.len() <= 5 << 19, "{}", kept.len());
        assert_eq!(kept, (first..500_000).map(line).collect::<String>());
    }

    #[test]
    fn logs_age_only_when_the_instance_is_gone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (gone, present) = (Uuid::now_v7(), Uuid::now_v7());
        for uid in [gone, present] {
            fs::write(dir.path().join(format!("{uid}.log")), b"text").expect("write");
        }
        let sweep_at = |now| sweep(dir.path(), Limits::default(), &HashSet::from([present]), now).expect("sweep");
        let now = crate::clock::Clock::system().wall();
        sweep_at(now);
        assert_eq!(bytes(dir.path(), &format!("{gone}.log")), Some(4));
        sweep_at(Wall(now.0 + 31 * 24 * 3600 * 1_000_000));
        assert_eq!(bytes(dir.path(), &format!("{gone}.log")), None);
        assert_eq!(bytes(dir.path(), &format!("{present}.log")), Some(4));
    }
}
