//! The serial console: live, one holder at a time, and what virtlogd kept of it.
//!
//! The emulator listens on a socket in the instance's directory and takes one client; a second one would hang unheard, so
//! it is refused here. virtlogd writes the log whether or not anybody watches, and rolls it at its own size limit.
//!
//! A client that does not read would stop the guest's serial port after some hundred bytes, and its log with it. So the
//! socket is read here whatever the holder does, and a holder who is slow misses the middle, not the guest its console.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::paths::Paths;
use super::reasons::CONSOLE_UNAVAILABLE;
use crate::hypervisor::Error;

const DEADLINE: Duration = Duration::from_secs(5);
/// virtlogd is asked for three by default; an operator may ask for more.
const MOST_PIECES: u32 = 100;
/// Of what the guest wrote and the holder has not read yet.
const BEHIND: usize = 256 << 10;
const LEFT_OUT: &[u8] = b"\r\n[some output was left out here; the console log has it]\r\n";

/// Who holds a console.
#[derive(Debug, Clone, Default)]
pub struct Consoles(Arc<Mutex<HashSet<Uuid>>>);

impl Consoles {
    pub async fn open(&self, paths: &Paths, uid: Uuid) -> Result<Console, Error> {
        // Taken before connecting: two callers at the same moment must not both get through.
        let hold = self.hold(uid)?;
        let socket = paths.serial(uid);
        let unavailable = |what: String| Error::Failed {
            reason: CONSOLE_UNAVAILABLE,
            message: format!(
                "the console of instance {uid} does not answer ({what}); it is there while the guest runs"
            ),
        };
        let stream = tokio::time::timeout(DEADLINE, UnixStream::connect(&socket))
            .await
            .map_err(|_| unavailable(format!("nothing in {} s", DEADLINE.as_secs())))?
            .map_err(|e| unavailable(e.to_string()))?;
        Ok(Console::new(stream, hold))
    }

    fn hold(&self, uid: Uuid) -> Result<Hold, Error> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid) {
            return Ok(Hold { consoles: self.clone(), uid });
        }
        Err(Error::Busy(format!("the console of instance {uid} is held by somebody else; ask them to leave")))
    }
}

#[derive(Debug)]
struct Hold {
    consoles: Consoles,
    uid: Uuid,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.consoles.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.uid);
    }
}

/// A held console; dropping it lets the next one in.
#[derive(Debug)]
pub struct Console {
    to_guest: OwnedWriteHalf,
    heard: Arc<Mutex<Heard>>,
    reader: AbortHandle,
    _hold: Hold,
}

/// What the guest wrote, as far as the holder has not read it.
#[derive(Debug, Default)]
struct Heard {
    bytes: VecDeque<u8>,
    /// Something before `bytes` is missing, and the holder was not told.
    gap: bool,
    ended: bool,
    waiting: Option<Waker>,
}

impl Heard {
    fn take_in(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        if self.bytes.len() > BEHIND {
            self.bytes.drain(..self.bytes.len() - BEHIND);
            self.gap = true;
        }
        self.wake();
    }

    fn end(&mut self) {
        self.ended = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Some of it. Nothing at all means that the guest has ended.
    fn give(&mut self, buf: &mut ReadBuf<'_>, cx: &Context<'_>) -> Poll<()> {
        if std::mem::take(&mut self.gap) {
            LEFT_OUT.iter().rev().for_each(|byte| self.bytes.push_front(*byte));
        }
        if self.bytes.is_empty() && !self.ended {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (front, _) = self.bytes.as_slices();
        let count = front.len().min(buf.remaining());
        buf.put_slice(&front[..count]);
        self.bytes.drain(..count);
        Poll::Ready(())
    }
}

impl Console {
    fn new(stream: UnixStream, hold: Hold) -> Self {
        let heard = Arc::default();
        let (from_guest, to_guest) = stream.into_split();
        let reader = tokio::spawn(keep_reading(from_guest, Arc::clone(&heard))).abort_handle();
        Self { to_guest, heard, reader, _hold: hold }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn keep_reading(mut from_guest: OwnedReadHalf, heard: Arc<Mutex<Heard>>) {
    let mut block = [0; 4096];
    loop {
        // An error is an end like any other: the guest went away.
        let count = from_guest.read(&mut block).await.unwrap_or(0);
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        if count == 0 {
            return heard.end();
        }
        heard.take_in(&block[..count]);
    }
}

impl AsyncRead for Console {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).give(buf, cx).map(Ok)
    }
}

impl AsyncWrite for Console {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.to_guest).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to_guest).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to_guest).poll_shutdown(cx)
    }
}

/// The pieces of the log, oldest first.
pub fn log(paths: &Paths, uid: Uuid) -> Vec<PathBuf> {
    let current = paths.console(uid);
    let piece = |n: u32| {
        let mut name = current.clone().into_os_string();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    let mut pieces: Vec<PathBuf> = (0..MOST_PIECES).map(piece).take_while(|path| path.is_file()).collect();
    pieces.reverse();
    pieces.extend(current.is_file().then_some(current));
    pieces
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path()).unwrap();
        let uid = Uuid::from_u128(1);
        std::fs::create_dir_all(paths.instance(uid)).unwrap();
        let consoles = Consoles::default();
        let absent = consoles.open(&paths, uid).await.unwrap_err();
        assert!(matches!(absent, Error::Failed { reason: "ConsoleUnavailable", .. }), "{absent}");

        let listener = UnixListener::bind(paths.serial(uid)).unwrap();
        let mut console = consoles.open(&paths, uid).await.unwrap();
        let (mut guest, _) = listener.accept().await.unwrap();
        assert!(matches!(consoles.open(&paths, uid).await, Err(Error::Busy(_))));
        console.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        guest.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        drop(console);
        assert!(consoles.open(&paths, uid).await.is_ok());
    }

    #[tokio::test]
    async fn a_holder_who_does_not_read_stops_no_guest() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path()).unwrap();
        let uid = Uuid::from_u128(1);
        std::fs::create_dir_all(paths.instance(uid)).unwrap();
        let listener = UnixListener::bind(paths.serial(uid)).unwrap();
        let mut console = Consoles::default().open(&paths, uid).await.unwrap();
        let (mut guest, _) = listener.accept().await.unwrap();
        let lines = async {
            for number in 0..100_000 {
                guest.write_all(format!("line {number}\n").as_bytes()).await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), lines).await.expect("the guest hangs at its console");
        drop(guest);
        let mut said = String::new();
        console.read_to_string(&mut said).await.unwrap();
        assert!(said.len() < 2 * BEHIND && said.ends_with("line 99999\n"), "{}", said.len());
        assert!(said.contains("left out"));
    }

    #[test]
    fn the_log_is_told_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path()).unwrap();
        let uid = Uuid::from_u128(1);
        assert!(log(&paths, uid).is_empty());
        std::fs::create_dir_all(paths.console_dir()).unwrap();
        for name in ["", ".0", ".1"] {
            std::fs::write(format!("{}{name}", paths.console(uid).display()), name).unwrap();
        }
        let told: Vec<String> = log(&paths, uid).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        assert_eq!(told, [".1", ".0", ""]);
    }
}
