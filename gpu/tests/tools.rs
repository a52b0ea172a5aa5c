//! `sriov-manage` of a real host; a script stands for NVIDIA's.
#![expect(clippy::unwrap_used, reason = "a test stops where something is missing")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, PoisonError};

use croft_gpu::apply::{HostTools, StepError, Tools};

/// A script that is being written in one thread cannot be run while another thread starts a process (ETXTBSY).
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn run(script: &str, enable: bool) -> Result<(), StepError> {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let tool = directory.path().join("sriov-manage");
    fs::write(&tool, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    HostTools::at(tool).sriov_manage("0000:41:00.0".parse().unwrap(), enable)
}

#[test]
fn it_is_told_the_gpu_and_the_direction() {
    run(r#"[ "$*" = "-e 0000:41:00.0" ]"#, true).unwrap();
    run(r#"[ "$*" = "-d 0000:41:00.0" ]"#, false).unwrap();
}

#[test]
fn what_it_says_is_believed_over_how_it_ends() {
    for end in ["exit 0", "exit 1"] {
        let error = run(&format!("echo 'Cannot obtain unbindLock'; {end}"), true).unwrap_err();
        assert!(error.suggests_a_holder() && error.errno == Some(16), "{error}");
    }
    let error = run("echo Enabling VFs; echo 'no such GPU' >&2; exit 3", true).unwrap_err();
    assert!(error.message.contains("exit status: 3: Enabling VFs no such GPU"), "{error}");
    let gone = HostTools::at("/nonexistent/sriov-manage").sriov_manage("0000:41:00.0".parse().unwrap(), true);
    assert!(gone.unwrap_err().message.contains("/nonexistent/sriov-manage"));
}
