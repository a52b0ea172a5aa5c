//! What a program says of its version, in time or not at all.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// They print a line and end. One that hangs (a program on a file system whose server is gone) must not take us along.
const DEADLINE: Duration = Duration::from_secs(5);

/// More than anything that is asked for is long.
const LONGEST: u64 = 1 << 20;

/// The first line that `path --version` prints. It is told its name without directories: many begin with that.
pub(super) fn version(path: &str) -> Result<String, String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    first_line(Command::new(path).arg0(name).arg("--version"))
}

pub(super) fn first_line(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let text = output(command)?;
    match text.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => Ok(line.chars().filter(|c| !c.is_control()).take(200).collect()),
        None => Err(format!("{name} says nothing")),
    }
}

/// All that it prints.
pub(super) fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|error| format!("{name} cannot be run: {error}"))?;
    let output = child.stdout.take();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = output.map(|output| output.take(LONGEST).read_to_end(&mut text));
        let _ = sender.send((read, text));
    });
    let heard = receiver.recv_timeout(DEADLINE);
    // Ended by now, or it will not: one that sleeps in the kernel is left to it.
    let _ = child.kill();
    match heard {
        Ok((Some(Ok(_)), text)) => {
            let _ = child.wait();
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        Ok(_) => Err(format!("what {name} says cannot be read")),
        Err(_) => Err(format!("{name} did not answer in {} s", DEADLINE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<String, String> {
        first_line(Command::new("/bin/sh").args(["-c", script]))
    }

    #[test]
    fn the_first_line_with_anything_on_it_counts() {
        assert_eq!(shell("echo; echo ' one 1.2 '; echo two").unwrap(), "one 1.2");
        assert!(shell("exit 1").unwrap_err().contains("says nothing"));
        assert!(version("/nonexistent/libvirtd").unwrap_err().contains("/nonexistent/libvirtd"));
    }

    #[test]
    fn a_program_that_hangs_is_given_up() {
        assert!(shell("exec sleep 600").unwrap_err().contains("did not answer"));
    }
}
