//! The NoCloud seed: a small FAT file system labelled CIDATA with the texts that cloud-init reads at first boot, and files beside
//! them.
//!
//! Made in memory, without any tool, and the same texts give the same bytes, so that repeating it changes nothing. It may
//! hold secrets: mode 0600 (libvirt gives it to the emulator's user when the domain starts).
//!
//! A secret must be able to leave it while the guest runs ([`replace`]). The emulator holds the file open, so the new bytes go into
//! that very file: a new file in its place would leave the old one in the guest's sight. Its length is what the guest believes
//! the disk to have, so every seed has room to spare, and its files come and go without a change of length.

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use fatfs::{Dir, FileSystem, FormatVolumeOptions, FsOptions};

use super::{Error, durable};
use crate::hypervisor::Seed;
use crate::reasons::{SEED_INVALID, SEED_TOO_LARGE};

const LABEL: [u8; 11] = *b"CIDATA     ";
/// The same for every seed: a volume is found by its label.
const VOLUME_ID: u32 = 0xC40F_7D00;
/// Room for the tables; the smallest FAT that every reader accepts.
const SMALLEST: usize = 1 << 20;
/// Far above what the plane takes.
const LARGEST_TEXT: usize = 1 << 20;
/// Kept for files that come later.
const ROOM_FOR_FILES: usize = 256 << 10;
/// Longer ones are no seeds of ours.
const LONGEST: usize = 8 << 20;
const FILES_MAX: usize = 16;
const NAME_MAX: usize = 64;
/// The seed's own texts.
const TEXTS: [&str; 3] = ["meta-data", "user-data", "network-config"];
/// What is compared and written at a time.
const BLOCK: usize = 4096;

/// Writes the seed of one instance, unless it is there already as it should be. The domain does not run.
pub fn ensure(path: &Path, seed: &Seed) -> Result<(), Error> {
    let bytes = image(seed)?;
    // After a start the file belongs to the emulator's user; root can still read it.
    if std::fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    durable::write(path, &bytes, 0o600)
}

/// Writes another seed over the one that is there, in the same file and of the same length, under a guest that may run. A crash
/// midway leaves some of both; the next call finds what differs, and ends with nothing of the old one.
pub fn replace(path: &Path, seed: &Seed) -> Result<(), Error> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| Error::io("open", path, &e))?;
    let present = read(&file).map_err(|e| Error::io("read", path, &e))?;
    let wanted = lay_out(seed, present.len())?;
    overwrite(&file, &present, &wanted).map_err(|e| Error::io("write", path, &e))
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LONGEST {
        return Err(io::Error::other(format!("it is longer than {LONGEST} bytes: no seed of Croft's")));
    }
    Ok(bytes)
}

fn overwrite(file: &File, present: &[u8], wanted: &[u8]) -> io::Result<()> {
    let mut at = 0;
    for (old, new) in present.chunks(BLOCK).zip(wanted.chunks(BLOCK)) {
        if old != new {
            file.write_all_at(new, at)?;
        }
        at += new.len() as u64;
    }
    // Also when nothing differs: whoever wrote it may have been killed before this.
    file.sync_all()
}

/// The bytes of the file system.
pub fn image(seed: &Seed) -> Result<Vec<u8>, Error> {
    let (texts, files) = sizes(seed);
    lay_out(seed, (SMALLEST + texts + files.max(ROOM_FOR_FILES)).next_multiple_of(SMALLEST))
}

/// The same in so many bytes.
fn lay_out(seed: &Seed, length: usize) -> Result<Vec<u8>, Error> {
    check(seed)?;
    let (texts, files) = sizes(seed);
    if SMALLEST + texts + files > length {
        let message = format!(
            "the new seed holds {} bytes, more than fit on the volume of {length} bytes that the guest has: stop and start \
             the instance",
            texts + files
        );
        return Err(Error::refused(SEED_TOO_LARGE, message));
    }
    let mut all = vec![(TEXTS[0], &seed.meta_data), (TEXTS[1], &seed.user_data)];
    all.extend(seed.network_config.as_ref().map(|text| (TEXTS[2], text)));
    all.extend(seed.files.iter().map(|(name, text)| (name.as_str(), text)));
    let mut disk = Cursor::new(vec![0u8; length]);
    fill(&mut disk, &all).map_err(|e| Error::refused(SEED_INVALID, format!("cannot lay out the seed: {e}")))?;
    Ok(disk.into_inner())
}

/// Bytes of the seed's own texts, and of its files.
fn sizes(seed: &Seed) -> (usize, usize) {
    let network = seed.network_config.as_ref().map_or(0, String::len);
    (seed.meta_data.len() + seed.user_data.len() + network, seed.files.values().map(String::len).sum())
}

fn check(seed: &Seed) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::refused(SEED_INVALID, message));
    let (texts, files) = sizes(seed);
    if texts + files > LARGEST_TEXT {
        return refuse(format!("the seed holds {} bytes, at most {LARGEST_TEXT} are taken", texts + files));
    }
    if seed.files.len() > FILES_MAX {
        return refuse(format!("the seed has {} files, at most {FILES_MAX} are taken", seed.files.len()));
    }
    match seed.files.keys().find(|name| !is_plain(name) || TEXTS.contains(&name.as_str())) {
        Some(name) => refuse(format!(
            "the seed has a file {name:?}: names are 1 to {NAME_MAX} of [a-z0-9.-], begin and end with [a-z0-9], and none is one \
             of the seed's own texts"
        )),
        None => Ok(()),
    }
}

/// Neither a path, nor two names that a FAT takes for one.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (name.bytes().next(), name.bytes().last()) else { return false };
    name.len() <= NAME_MAX
        && plain(first)
        && plain(last)
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'-'))
}

fn fill(disk: &mut Cursor<Vec<u8>>, files: &[(&str, &String)]) -> io::Result<()> {
    fatfs::format_volume(&mut *disk, FormatVolumeOptions::new().volume_label(LABEL).volume_id(VOLUME_ID))?;
    disk.set_position(0);
    // Without the chrono feature every timestamp is 1980-01-01: deterministic.
    let volume = FileSystem::new(disk, FsOptions::new().update_accessed_date(false))?;
    {
        let root: Dir<'_, _> = volume.root_dir();
        for (name, text) in files {
            let mut file = root.create_file(name)?;
            file.write_all(text.as_bytes())?;
            file.flush()?;
        }
    }
    volume.unmount()
}

#[cfg(test)]
#[path = "seed_tests.rs"]
mod tests;
