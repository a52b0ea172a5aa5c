//! libvirt's errors, in our words.
//!
//! libvirt tells what went wrong mostly in prose, so some reasons are found by phrases of libvirt 9 to 11 and QEMU; a
//! phrase that is not found costs the exact reason and nothing else, because the whole text is always passed on.

use std::path::Path;

use virt::error::{Error as VirtError, ErrorNumber};

use super::reasons::{DEFINE_FAILED, FIRMWARE_MISSING, NO_HUGE_PAGES, START_FAILED};
use crate::hypervisor::Error;
use crate::media::reasons::DISK_FULL;
use crate::reasons::{DISK_MISSING, INSUFFICIENT_MEMORY, NETWORK_UNKNOWN};

/// Lines of the emulator's log that are worth repeating.
const LOG_LINES: usize = 3;

/// An error of the call that was meant to do `what`.
pub fn failed(reason: &'static str, what: &str) -> impl Fn(VirtError) -> Error {
    let what = what.to_owned();
    move |error| Error::Failed { reason, message: format!("{what}: {}{}", error.message(), advice(error.message())) }
}

/// Where libvirt's own words do not say what to do.
fn advice(message: &str) -> &'static str {
    // libvirt makes its chains once, when it starts.
    match message.contains("LIBVIRT_") && message.contains("No chain/target/match") {
        true => "; somebody flushed the host's firewall: restart libvirtd, which builds its rules again (guests go on)",
        false => "",
    }
}

pub fn is(error: &VirtError, number: ErrorNumber) -> bool {
    error.code().is_known_and(|code| code == number)
}

/// Why a definition was not taken.
pub fn define(error: &VirtError) -> Error {
    let message = format!("libvirt refuses the definition: {}", error.message());
    match known(error.message()) {
        Some(reason) => Error::Refused { reason, message },
        None => Error::Failed { reason: DEFINE_FAILED, message },
    }
}

/// Why a domain did not start; `log` is the emulator's.
pub fn start(error: &VirtError, log: &Path) -> Error {
    let tail = std::fs::read(log).map(|bytes| last_words(&String::from_utf8_lossy(&bytes))).unwrap_or_default();
    let mut message = error.message().to_owned();
    // libvirt repeats the emulator's words when it died early, not when it died later.
    for line in tail.lines().filter(|line| !error.message().contains(*line)) {
        message = format!("{message}; {line}");
    }
    match known(&message) {
        // These come and go, or come back: worth another try.
        Some(reason @ (NO_HUGE_PAGES | INSUFFICIENT_MEMORY | DISK_MISSING)) => Error::Failed { reason, message },
        Some(reason) => Error::Refused { reason, message },
        None => Error::Failed { reason: START_FAILED, message },
    }
}

fn known(message: &str) -> Option<&'static str> {
    const PHRASES: &[(&str, &str)] = &[
        ("hugetlbfs", NO_HUGE_PAGES),
        ("huge page", NO_HUGE_PAGES),
        ("hugepages", NO_HUGE_PAGES),
        // What QEMU says when a pool of huge pages is empty: only such memory has a backing store.
        ("unable to map backing store for guest RAM", NO_HUGE_PAGES),
        ("os_mem_prealloc", NO_HUGE_PAGES),
        ("Insufficient free host memory pages", NO_HUGE_PAGES),
        ("cannot set up guest memory", INSUFFICIENT_MEMORY),
        ("Cannot allocate memory", INSUFFICIENT_MEMORY),
        ("No space left on device", DISK_FULL),
        ("Unable to find any firmware", FIRMWARE_MISSING),
        ("Unable to find 'efi' firmware", FIRMWARE_MISSING),
        ("Failed to open file '/usr/share/OVMF", FIRMWARE_MISSING),
        ("Cannot get interface MTU", NETWORK_UNKNOWN),
        ("Unable to add bridge", NETWORK_UNKNOWN),
    ];
    let inaccessible = message.contains("is not accessible: ") || message.contains("Cannot access ");
    if inaccessible && message.contains("No such file or directory") {
        return Some(DISK_MISSING);
    }
    PHRASES.iter().find(|(phrase, _)| message.contains(phrase)).map(|(_, reason)| *reason)
}

/// The last lines that the emulator itself wrote in its last run: not its command line, not libvirt's remarks.
fn last_words(log: &str) -> String {
    let run = log.rsplit("starting up libvirt version").next().unwrap_or_default();
    let words = run.lines().filter(|line| line.contains("qemu-system") && !line.ends_with('\\') && line.contains(": "));
    let mut last: Vec<&str> = words.filter(|line| !line.contains("terminating on signal")).collect();
    last.drain(..last.len().saturating_sub(LOG_LINES));
    last.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-11-23 03:31:55.354+0000: starting up libvirt version: 9.0.0, qemu version: 7.2.22\n\
/usr/bin/qemu-system-x86_64 \\\n-name guest=old \\\n-msg timestamp=on\n\
2026-11-23T03:31:56Z qemu-system-x86_64: of another run\n\
2026-11-23 03:32:55.354+0000: starting up libvirt version: 9.0.0, qemu version: 7.2.22\n\
LC_ALL=C \\\n/usr/bin/qemu-system-x86_64 \\\n-name guest=croft \\\n-msg timestamp=on\n\
2026-11-23T03:32:56.1Z qemu-system-x86_64: unable to map backing store for guest RAM: Cannot allocate memory\n\
2026-11-23 03:32:56.599+0000: shutting down, reason=failed\n";

    #[test]
    fn the_emulators_last_words_are_its_own_and_of_the_last_run() {
        let words = last_words(LOG);
        assert!(words.ends_with("Cannot allocate memory") && words.lines().count() == 1, "{words}");
        assert_eq!(last_words(""), "");
    }

    #[test]
    fn a_flushed_firewall_is_explained() {
        let said = "Failed to apply firewall rules iptables --insert LIBVIRT_INP: iptables: No chain/target/match by that name.";
        assert!(advice(said).contains("restart libvirtd"));
        assert_eq!(advice("something else"), "");
    }

    #[test]
    fn phrases_become_reasons_and_the_more_exact_one_wins() {
        assert_eq!(known(LOG), Some("NoHugePages"));
        assert_eq!(known("Cannot allocate memory"), Some("InsufficientMemory"));
        assert_eq!(known("operation failed: Unable to find any firmware to satisfy 'efi'"), Some("FirmwareMissing"));
        assert_eq!(known("Path '/x/disk.qcow2' is not accessible: No such file or directory"), Some("DiskMissing"));
        assert_eq!(known("Cannot access storage file '/x' (as uid:64055, gid:64055): Permission denied"), None);
        assert_eq!(known("something else"), None);
    }
}
