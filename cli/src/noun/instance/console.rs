//! `croft instance console`: the guest's serial console on this terminal, or its log.
//!
//! ```text
//!  stdin ──thread──► input ──► call ──► plane ──► host ──► guest
//!                      └ Ctrl-] ends        ◄── what the guest writes ──
//! ```
//! A connection that breaks is made again while the user waits; a pipe that ends leaves the output running, so that
//! `</dev/null` follows a console.

use std::io::Read as _;

use clap::Args;
use croft_proto::v1::{self, console_request::Kind};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::output::{self, note};
use crate::plane::Plane;
use crate::retry::{self, Backoff};
use crate::size;
use crate::terminal::RawMode;

/// Ctrl-], as telnet and virsh have it.
const ESCAPE: u8 = 0x1d;
const QUEUE: usize = 32;

#[derive(Debug, Args)]
#[command(after_help = "Ctrl-] leaves the console.\n\nExamples:\n  croft instance console web\n  \
    croft instance console web --log --tail 4KiB\n  printf 'root\\n' | timeout 10 croft instance console web")]
pub struct Console {
    instance: String,
    /// Print what the guest wrote so far, also after it stopped
    #[arg(long)]
    log: bool,
    /// Only the end of the log
    #[arg(long, value_name = "BYTES", requires = "log", value_parser = size::bytes)]
    tail: Option<i64>,
}

pub async fn run(app: &App, console: Console) -> Result<()> {
    let name = super::name(app, &console.instance)?;
    if console.log { print_log(app, name, console.tail.unwrap_or_default()).await } else { talk(app, name).await }
}

async fn print_log(app: &App, name: String, tail_bytes: i64) -> Result<()> {
    let plane = app.plane()?;
    let request = v1::ReadConsoleLogRequest { name, tail_bytes };
    let mut log = plane.call(request, async |plane, r| plane.instances().read_console_log(r).await).await?;
    while let Some(part) = log.message().await.map_err(|status| plane.explain(status))? {
        output::bytes(&part.data)?;
    }
    Ok(())
}

/// What the user did.
enum Input {
    Data(Vec<u8>),
    Leave,
}

/// How a connection to the console ended.
enum End {
    Left,
    /// The guest's console is gone: it stopped.
    Closed,
    Broken(Box<Status>),
}

async fn talk(app: &App, name: String) -> Result<()> {
    let plane = app.plane()?;
    let mut ends = Ends::new()?;
    let (mut up, answers) = retry::while_away(async || open(plane, &name).await).await.map_err(|s| plane.explain(s))?;
    let mut answers = Some(answers);

    let raw = RawMode::enter().map_err(|error| Failure::local(format!("cannot set up the terminal: {error}")))?;
    // The terminal is raw: a line feed alone would not go back to the left.
    let say = |text: &str| if raw.is_some() { eprint!("\r\n[{text}]\r\n") } else { note(&format!("[{text}]")) };
    if raw.is_some() {
        say(&format!("connected to {name}; Ctrl-] leaves"));
    }
    let mut input = read_stdin(raw.is_some());
    let mut backoff = Backoff::default();
    loop {
        let end = match answers.take() {
            Some(answers) => converse(&up, answers, &mut input, &mut ends, &mut backoff).await?,
            None => {
                tokio::select! {
                    opened = open(plane, &name) => match opened {
                        Ok((next, stream)) => {
                            (up, answers) = (next, Some(stream));
                            continue;
                        }
                        Err(status) => End::Broken(Box::new(status)),
                    },
                    () = left(&mut input, &mut ends) => End::Left,
                }
            }
        };
        match end {
            End::Left => {
                say("left");
                return Ok(());
            }
            End::Closed => {
                say("the console closed");
                return Ok(());
            }
            End::Broken(status) if raw.is_some() && retry::is_away(&status) => {
                if backoff.is_fresh() {
                    say("connection lost; connecting again, Ctrl-] leaves");
                }
                tokio::select! {
                    () = backoff.wait() => {}
                    () = left(&mut input, &mut ends) => return Ok(()),
                }
            }
            End::Broken(status) => return Err(plane.explain(*status)),
        }
    }
}

type Answers = Streaming<v1::ConsoleResponse>;

async fn open(plane: &Plane, name: &str) -> Result<(mpsc::Sender<v1::ConsoleRequest>, Answers), Status> {
    let (send, receive) = mpsc::channel(QUEUE);
    // The queue has room: nothing is in it.
    let _ = send.send(v1::ConsoleRequest { kind: Some(Kind::Instance(name.to_owned())) }).await;
    let answers = plane.instances().console(ReceiverStream::new(receive)).await?.into_inner();
    Ok((send, answers))
}

async fn converse(
    up: &mpsc::Sender<v1::ConsoleRequest>,
    mut answers: Answers,
    input: &mut mpsc::Receiver<Input>,
    ends: &mut Ends,
    backoff: &mut Backoff,
) -> Result<End> {
    let mut typing = true;
    loop {
        tokio::select! {
            answer = answers.message() => match answer {
                Ok(Some(answer)) => {
                    backoff.reset();
                    output::bytes(&answer.data)?;
                }
                Ok(None) => return Ok(End::Closed),
                Err(status) => return Ok(End::Broken(Box::new(status))),
            },
            typed = input.recv(), if typing => match typed {
                // A call that is over shows in `answers`.
                Some(Input::Data(data)) => {
                    let _ = up.send(v1::ConsoleRequest { kind: Some(Kind::Data(data)) }).await;
                }
                Some(Input::Leave) => return Ok(End::Left),
                None => typing = false,
            },
            () = ends.any() => return Ok(End::Left),
        }
    }
}

/// The user has enough, while there is no console to talk to. What is typed meanwhile is lost, as on a dead line.
async fn left(input: &mut mpsc::Receiver<Input>, ends: &mut Ends) {
    let leave = async {
        loop {
            match input.recv().await {
                Some(Input::Leave) => return,
                Some(Input::Data(_)) => {}
                None => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        () = leave => {}
        () = ends.any() => {}
    }
}

/// A thread, because a read of a terminal cannot be cancelled. It ends with the process.
fn read_stdin(interactive: bool) -> mpsc::Receiver<Input> {
    let (send, receive) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut stdin = std::io::stdin().lock();
        while let Ok(read @ 1..) = stdin.read(&mut buffer) {
            let (data, leave) = split(&buffer[..read], interactive);
            if !data.is_empty() && send.blocking_send(Input::Data(data.to_vec())).is_err() {
                return;
            }
            if leave {
                let _ = send.blocking_send(Input::Leave);
                return;
            }
        }
    });
    receive
}

/// What comes before the escape, and whether there was one. In a pipe every byte is the guest's.
fn split(typed: &[u8], interactive: bool) -> (&[u8], bool) {
    match typed.iter().position(|byte| *byte == ESCAPE) {
        Some(at) if interactive => (&typed[..at], true),
        _ => (typed, false),
    }
}

/// Signals that end the process: caught, so that the terminal is given back first.
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> Result<Self> {
        let catch = |kind| signal(kind).map_err(|error| Failure::local(format!("cannot catch signals: {error}")));
        Ok(Self([catch(SignalKind::terminate())?, catch(SignalKind::hangup())?, catch(SignalKind::interrupt())?]))
    }

    async fn any(&mut self) {
        let [terminate, hangup, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_escape_is_the_users_and_never_the_guests() {
        assert_eq!(split(b"ls\x1dmore", true), (b"ls".as_slice(), true));
        assert_eq!(split(b"\x1d", true), (b"".as_slice(), true));
        assert_eq!(split(b"ls\n", true), (b"ls\n".as_slice(), false));
        assert_eq!(split(b"ls\x1dmore", false), (b"ls\x1dmore".as_slice(), false));
    }
}
