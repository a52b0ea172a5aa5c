//! Which driver each function is reserved for: `driver_override`, whose reader the kernel may hold back.

use std::io;

use crate::apart::{self, Answer};
use crate::bus::Inventory;
use crate::error::{FsError, ProbeError};
use crate::hostfs::HostFs;
use crate::pci::PciFunction;

pub(super) fn fill(fs: &HostFs, inventory: &mut Inventory<PciFunction>) {
    let file =
        |function: &PciFunction| fs.root().join(format!("sys/bus/pci/devices/{}/driver_override", function.address));
    let paths: Vec<_> = inventory.devices.iter().map(file).collect();
    let answers = apart::first_lines(&paths);
    for (at, (function, path)) in inventory.devices.iter_mut().zip(paths).enumerate() {
        let failed = |source| FsError::Io { action: "read", path, source };
        let failure = match answers.as_ref().map(|answers| &answers[at]) {
            Ok(Answer::Line(word)) => {
                function.driver_override = parse(word);
                continue;
            }
            // Kernels before 3.16 have no such file, and a function that left meanwhile has none.
            Ok(Answer::Absent) => continue,
            Ok(Answer::Unreadable) => failed(io::Error::other("not a file that can be read")),
            Ok(Answer::HeldBack) => failed(io::Error::new(
                io::ErrorKind::TimedOut,
                "the device is locked: a write to one of its files has not returned",
            )),
            Err(error) => failed(io::Error::new(error.kind(), error.to_string())),
        };
        let device = format!("pci {}", function.address);
        inventory.errors.push(ProbeError { device, what: "driver override".into(), source: failure.into() });
    }
}

/// The kernel prints its null pointer as `(null)`; some builds print nothing.
fn parse(word: &str) -> Option<String> {
    let word = word.trim();
    (!word.is_empty() && word != "(null)").then(|| word.to_owned())
}
