//! The serial console: live, one holder at a time, and what virtlogd kept of it.
//!
//! The emulator listens on a socket in the instance's directory and takes one client; a second one would hang unheard, so
//! it is refused here. virtlogd writes the log whether or not anybody watches, and rolls it at its own size limit.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use uuid::Uuid;

use super::paths::Paths;
use super::reasons::CONSOLE_UNAVAILABLE;
use crate::hypervisor::Error;

const DEADLINE: Duration = Duration::from_secs(5);
/// virtlogd is asked for three by default; an operator may ask for more.
const MOST_PIECES: u32 = 100;

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
        Ok(Console { stream, _hold: hold })
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
    stream: UnixStream,
    _hold: Hold,
}

impl AsyncRead for Console {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Console {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
