//! The executor of production: a process of its own for every piece of work.
//!
//! A write to sysfs may sleep in the kernel for ever, and a thread that sleeps so makes its whole process unkillable. So
//! the agent never writes itself. Its helper has a process group and, where the agent may make one, a cgroup; at the
//! deadline all of it is killed, and what does not die is left behind with its pid remembered.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::access::Site;
use super::cgroup::Cgroup;
use super::error::StepError;
use super::executor::{Account, Carried, Ending, Executor};
use super::work::{Request, Work};

/// How long a killed process may take to be gone. What sleeps in the kernel in a way that can be killed takes none.
const DYING: Duration = Duration::from_secs(2);

/// More than any answer is long.
const LONGEST: usize = 1 << 20;

#[derive(Debug)]
pub struct ChildProcess {
    program: PathBuf,
    arguments: Vec<OsString>,
    site: Site,
    cgroups: Option<PathBuf>,
    kill: fn(Pid) -> rustix::io::Result<()>,
    left_behind: Mutex<Vec<Survivor>>,
}

impl ChildProcess {
    /// `program` with `arguments` calls [`super::helper_main`]. The agent names itself (`/proc/self/exe`), and its process id
    /// among the arguments.
    pub fn new(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        site: Site,
    ) -> ChildProcess {
        ChildProcess {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            site,
            cgroups: None,
            kill: |group| kill_process_group(group, Signal::KILL),
            left_behind: Mutex::default(),
        }
    }

    /// A cgroup (v2) below which every helper gets one of its own, so that not even what leaves its process group escapes.
    #[must_use]
    pub fn with_cgroups(self, directory: impl Into<PathBuf>) -> ChildProcess {
        ChildProcess { cgroups: Some(directory.into()), ..self }
    }

    /// Kills in another way. For tests: a signal that does nothing is what one is to a process asleep in the kernel.
    #[must_use]
    pub fn with_kill(self, kill: fn(Pid) -> rustix::io::Result<()>) -> ChildProcess {
        ChildProcess { kill, ..self }
    }

    /// The processes that did not die when they were killed, and have not since.
    pub fn left_behind(&self) -> Vec<u32> {
        let mut survivors = self.survivors();
        survivors.retain_mut(|survivor| {
            let gone = !survivor.helper.members().contains(&survivor.pid);
            // Its parent is this process: it stays a zombie until it is asked for.
            !(gone && survivor.helper.child.try_wait().is_ok())
        });
        survivors.iter().map(|survivor| survivor.pid).collect()
    }

    fn survivors(&self) -> std::sync::MutexGuard<'_, Vec<Survivor>> {
        self.left_behind.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn start(&self, work: &Work) -> io::Result<Helper> {
        let request = serde_json::to_vec(&Request { site: self.site.clone(), work: work.clone() })?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let output = child.stdout.take().map(|output| File::from(std::os::fd::OwnedFd::from(output)));
        let cgroup = self.cgroups.as_ref().and_then(|parent| Cgroup::enter(parent, child.id()).ok());
        let mut helper = Helper { child, output, cgroup };
        // It does nothing before it has read to the end, so it is in its cgroup by the time it does.
        let sent = helper.child.stdin.take().map(|mut input| input.write_all(&request));
        match sent {
            Some(Ok(())) => Ok(helper),
            // It read nothing, so it did nothing.
            Some(Err(error)) => {
                let _ = helper.end(self.kill, Duration::ZERO);
                Err(error)
            }
            None => Ok(helper),
        }
    }
}

impl Executor for ChildProcess {
    fn carry_out(&self, work: &Work, deadline: Duration) -> Carried {
        let mut account = Account::default();
        let mut helper = match self.start(work) {
            Ok(helper) => helper,
            Err(error) => {
                let error = StepError::from(error).context(format!("cannot start {}", self.program.display()));
                return account.close(|| Ending::Failed(error));
            }
        };
        let heard = helper.listen(&mut account, Instant::now() + deadline);
        let leave_it = if let Heard::End = heard { DYING } else { Duration::ZERO };
        match helper.end(self.kill, leave_it) {
            // Whatever it answered: what it holds is held until it is gone.
            End::Survived { pid } => {
                self.survivors().push(Survivor { helper, pid });
                Carried { ending: Ending::Stuck { pid }, ..account.close(|| Ending::Overran) }
            }
            End::Gone { status } => account.close(|| match heard {
                Heard::Deadline => Ending::Overran,
                Heard::End => {
                    Ending::Failed(StepError::new(format!("the device helper ended without a word: {status}")))
                }
                Heard::Nonsense(words) => {
                    Ending::Failed(StepError::new(format!("the device helper can not be understood: {words}")))
                }
            }),
        }
    }
}

#[derive(Debug)]
struct Survivor {
    helper: Helper,
    pid: u32,
}

#[derive(Debug)]
struct Helper {
    child: Child,
    output: Option<File>,
    cgroup: Option<Cgroup>,
}

enum Heard {
    /// It closed its output.
    End,
    Deadline,
    Nonsense(String),
}

enum End {
    Gone { status: String },
    Survived { pid: u32 },
}

impl Helper {
    /// The living ones of its process group, and those that left it and are in its cgroup still.
    fn members(&self) -> Vec<u32> {
        let mut members = members(self.child.id());
        members.extend(self.cgroup.iter().flat_map(Cgroup::members));
        members
    }

    fn listen(&mut self, account: &mut Account, deadline: Instant) -> Heard {
        let Some(mut output) = self.output.take() else { return Heard::End };
        let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Heard::Deadline,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Heard::Nonsense(errno.to_string()),
            }
            match output.read(&mut chunk) {
                Ok(0) if text.is_empty() => return Heard::End,
                Ok(0) => return Heard::Nonsense(String::from_utf8_lossy(&text).into_owned()),
                Ok(count) => text.extend_from_slice(&chunk[..count]),
                Err(error) => return Heard::Nonsense(error.to_string()),
            }
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(line) => account.hear(line),
                    Err(error) => return Heard::Nonsense(error.to_string()),
                }
            }
            if text.len() > LONGEST {
                return Heard::Nonsense(format!("a line of more than {LONGEST} bytes"));
            }
        }
    }

    /// Sees to it that it and all that it started are gone, which they may be by themselves within `leave_it`.
    fn end(&mut self, kill: fn(Pid) -> rustix::io::Result<()>, leave_it: Duration) -> End {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else {
            return End::Survived { pid: self.child.id() };
        };
        if !self.gone_within(leave_it) {
            // ESRCH means that they went in this moment.
            let _ = kill(pid);
            if let Some(cgroup) = &self.cgroup {
                cgroup.kill();
            }
            if !self.gone_within(DYING) {
                let pid = self.members().first().copied().unwrap_or(self.child.id());
                return End::Survived { pid };
            }
        }
        // Only now: while it is a zombie its number is nobody else's, neither as a process nor as a group.
        match self.child.wait() {
            Ok(status) => End::Gone { status: status.to_string() },
            Err(error) => End::Gone { status: error.to_string() },
        }
    }

    fn gone_within(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut pause = Duration::from_micros(500);
        loop {
            if self.members().is_empty() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// The living processes of a process group. A helper's tools belong to it, and may live longer than the helper.
fn members(group: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![group] };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        // pid (command) state parent group …: the command may contain anything, a bracket too.
        let mut fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
        let (state, its_group) = (fields.next(), fields.nth(1).and_then(|group| group.parse().ok()));
        its_group == Some(group) && !matches!(state, Some("Z" | "X"))
    })
    .collect()
}
