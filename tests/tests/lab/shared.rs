//! The one lab host of all tests here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use croft_tests::lab_host::{self, LabHost};
use croft_tests::process;

static LAB: Mutex<Option<LabHost>> = Mutex::new(None);

/// Whose turn it is with the lab host.
pub struct Turn(MutexGuard<'static, Option<LabHost>>);

/// The lab host, booted by the first who asks. `None`: this is not a lab, and the caller's test did not run.
pub fn lab() -> Option<Turn> {
    let Some(image) = lab_host::image() else {
        println!("not run: needs an emulated host (`cargo xtask lab`, or the lab lane of `cargo xtask test`)");
        return None;
    };
    // A test that failed has left the host in some state; the next one says by its own checks whether that matters to it.
    let mut turn = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    if turn.is_none() {
        *turn = Some(boot(&image));
    }
    Some(Turn(turn))
}

/// Where everything of this run is.
pub fn work() -> PathBuf {
    PathBuf::from(std::env::var_os("CROFT_LAB_WORK").expect("inside tests/lab/in-namespace.sh"))
}

impl std::ops::Deref for Turn {
    type Target = LabHost;

    fn deref(&self) -> &LabHost {
        self.0.as_ref().expect("booted")
    }
}

impl std::ops::DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut LabHost {
        self.0.as_mut().expect("booted")
    }
}

fn boot(image: &Path) -> LabHost {
    let dir = work().join("host");
    let share = dir.join("share");
    std::fs::create_dir_all(&share).expect("the share");
    let inside = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/inside");
    let scripts = std::fs::read_dir(&inside).expect("tests/lab/inside").map(|entry| entry.expect("an entry").path());
    let guest = ["vmlinuz", "initrd"].map(|name| image.join("guest").join(name));
    // The agent runs as operators run it: hardening that hinders it is found here.
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/hostagent/croft-hostagent.service");
    for file in scripts.chain(guest).chain([unit]) {
        std::fs::copy(&file, share.join(file.file_name().expect("a name"))).expect("copied into the share");
    }
    for program in ["croft-hostagent", "examples/inventory", "examples/wish"] {
        let program = process::binary(program);
        let to = share.join(program.file_name().expect("a name"));
        // Without what only a debugger reads: it is a hundred megabytes, over an emulated bus.
        let stripped = Command::new("strip").arg("-o").arg(&to).arg(&program).status().expect("strip, of binutils");
        assert!(stripped.success(), "strip: {stripped}");
    }
    let began = Instant::now();
    let lab = LabHost::boot(image, &dir);
    println!("lab: the host was up after {} s; {} boots were tried again", began.elapsed().as_secs(), lab.retries);
    lab
}
