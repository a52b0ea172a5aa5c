//! Reading files whose readers the kernel may hold back for ever, without being held back.
//!
//! Some attributes are shown under the device's lock (`driver_override`, up to Linux 6.19), and whoever writes to that device
//! may have the lock for as long as a guest keeps it open. A thread that waits there cannot be killed, and neither can its
//! process. So a child reads them: one that does not answer in time is given up, and nobody else is sent after it as long as
//! it waits.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Reads of these files take microseconds, where nobody holds them back.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Answers each path with one line, in order. Only builtins: nothing is started that could be held back in its place.
const READER: &str = r#"for f do l=
if [ ! -e "$f" ]; then echo -
elif [ -d "$f" ] || [ ! -r "$f" ]; then echo '!'
else read -r l <"$f"; printf '=%s\n' "$l"
fi
done"#;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The first line; empty where there is none.
    Line(String),
    Absent,
    Unreadable,
    /// The kernel let the reader wait: somebody has the device's lock.
    HeldBack,
}

/// Children that still wait, and for what.
static GIVEN_UP: Mutex<Vec<(PathBuf, Child)>> = Mutex::new(Vec::new());

/// The first line of each file. An error is one of the reader itself: no file was held back, and none is known.
pub(crate) fn first_lines(paths: &[PathBuf]) -> io::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    while answers.len() < paths.len() {
        let rest = &paths[answers.len()..];
        if still_waited_for(&rest[0]) {
            answers.push(Answer::HeldBack);
            continue;
        }
        // Never a file that somebody waits for already, and never more than one command line holds.
        let length = rest.iter().take(500).take_while(|path| !still_waited_for(path)).count();
        read(&rest[..length], &mut answers)?;
    }
    Ok(answers)
}

fn still_waited_for(path: &PathBuf) -> bool {
    let mut given_up = GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner);
    given_up.retain_mut(|(_, child)| matches!(child.try_wait(), Ok(None)));
    given_up.iter().any(|(waits_for, _)| waits_for == path)
}

/// Adds answers for the first of `paths`: all, or as many as until one was held back, that one included.
fn read(paths: &[PathBuf], answers: &mut Vec<Answer>) -> io::Result<()> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", READER, "sh"])
        .args(paths)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut left = paths.iter();
    let heard = listen(&mut child, &mut left, answers);
    // Killed it goes as soon as the kernel lets it; then it is to be asked for, or it stays a zombie.
    child.kill()?;
    let (waits_for, heard) = match (heard, left.next()) {
        (Ok(Heard::Nothing), Some(path)) => {
            answers.push(Answer::HeldBack);
            (path.clone(), Ok(()))
        }
        (Ok(Heard::End), Some(path)) => {
            let error = io::Error::other(format!("the reader ended before {}", path.display()));
            (PathBuf::new(), Err(error))
        }
        (heard, _) => (PathBuf::new(), heard.map(|_| ())),
    };
    GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner).push((waits_for, child));
    heard
}

enum Heard {
    /// It closed its output.
    End,
    /// It was silent for too long.
    Nothing,
}

fn listen<'p>(
    child: &mut Child,
    left: &mut impl Iterator<Item = &'p PathBuf>,
    answers: &mut Vec<Answer>,
) -> io::Result<Heard> {
    let Some(mut output) = child.stdout.take() else { return Err(io::Error::other("the reader has no output")) };
    let mut line = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let length = match ready(&output)? {
            true => output.read(&mut chunk)?,
            false => return Ok(Heard::Nothing),
        };
        for byte in &chunk[..length] {
            if *byte != b'\n' {
                line.push(*byte);
            } else if left.next().is_some() {
                answers.push(parse(&line)?);
                line.clear();
            }
        }
        if length == 0 {
            return Ok(Heard::End);
        }
    }
}

fn ready(output: &impl std::os::fd::AsFd) -> io::Result<bool> {
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: PATIENCE.subsec_nanos().into() };
    loop {
        match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&patience)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn parse(line: &[u8]) -> io::Result<Answer> {
    match line {
        b"-" => Ok(Answer::Absent),
        b"!" => Ok(Answer::Unreadable),
        [b'=', text @ ..] => Ok(Answer::Line(String::from_utf8_lossy(text).into_owned())),
        odd => Err(io::Error::other(format!("the reader says {:?}", String::from_utf8_lossy(odd)))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_file_has_its_answer() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::write(path("a b"), "vfio-pci\n").unwrap();
        fs::write(path("unended"), "(null)").unwrap();
        fs::write(path("empty"), "").unwrap();
        fs::create_dir(path("directory")).unwrap();
        let paths = ["a b", "none", "unended", "directory", "empty", "a b"].map(path);
        let line = |text: &str| Answer::Line(text.to_owned());
        assert_eq!(
            first_lines(&paths).unwrap(),
            [line("vfio-pci"), Answer::Absent, line("(null)"), Answer::Unreadable, line(""), line("vfio-pci")]
        );
        assert_eq!(first_lines(&[]).unwrap(), []);
    }

    /// A FIFO without a writer holds its reader back as a lock does.
    #[test]
    fn one_that_is_held_back_does_not_hide_the_others() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let root = tempfile::tempdir().unwrap();
        let [first, fifo, last] = ["first", "fifo", "last"].map(|name| root.path().join(name));
        fs::write(&first, "1\n").unwrap();
        fs::write(&last, "2\n").unwrap();
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let paths = [first, fifo, last];
        let expected = [Answer::Line("1".into()), Answer::HeldBack, Answer::Line("2".into())];
        assert_eq!(first_lines(&paths).unwrap(), expected);
    }
}
