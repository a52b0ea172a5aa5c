//! What the agent asks of the machine itself, whatever the hypervisor: which boot this is, and whether it is ending.

use std::path::Path;
use std::time::Duration;

use super::Error;

/// An init that is busy restarting answers late; a start or a note of an end waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

pub(super) async fn boot_id() -> Result<String, Error> {
    match tokio::fs::read_to_string(BOOT_ID).await {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(Error::Unavailable(format!("{BOOT_ID} can not be read: {error}"))),
    }
}

/// Asks systemd, where it is PID 1. Elsewhere nobody can say: a guest that ends while such a machine goes down is known
/// by the boot id once the machine is back.
pub(super) async fn is_stopping() -> bool {
    if !Path::new("/run/systemd/system").exists() {
        return false;
    }
    let mut asked = tokio::process::Command::new("systemctl");
    asked.arg("is-system-running").stdin(std::process::Stdio::null()).kill_on_drop(true);
    // It exits non-zero for anything but `running`; the word is what counts. One that hangs says nothing.
    let answer = tokio::time::timeout(PATIENCE, asked.output()).await;
    matches!(answer, Ok(Ok(answer)) if answer.stdout.trim_ascii() == b"stopping")
}
