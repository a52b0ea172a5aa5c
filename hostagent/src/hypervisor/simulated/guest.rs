//! What runs inside a simulated domain: it has addresses, echoes what is typed at its console, and listens on two ports.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use croft_proto::v1;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use uuid::Uuid;

use super::rules::failed;
use super::state::{Domain, PowerState};
use crate::hypervisor::libvirt::reasons::GUEST_UNREACHABLE;
use crate::hypervisor::{Duplex, Error, Guest};
use crate::reasons;

const BUFFER: usize = 64 * 1024;
const ECHO: u16 = 7;
const SSH: u16 = 22;
/// Begins the line that a guest writes to its console at each boot.
const BOOT: &str = "simulated guest boots: ";

pub(super) fn says(domain: &Domain) -> Guest {
    if domain.power != PowerState::Running {
        return Guest::default();
    }
    let source = if domain.silent { "dhcp-lease" } else { "guest-agent" };
    let address = |mac: &String| v1::Address { ip: ip(mac), mac: mac.clone(), source: source.to_owned(), leased: true };
    Guest { addresses: domain.macs.iter().map(address).collect(), agent: !domain.silent }
}

/// The same for the same MAC, in the range that tenants' NAT networks take theirs from.
fn ip(mac: &str) -> String {
    let digest = Sha256::digest(mac.as_bytes());
    format!("10.{}.{}.{}", 200 + digest[0] % 4, digest[1], 2 + digest[2] % 250)
}

/// One holder at a time for each domain, and what was written, kept.
#[derive(Debug)]
pub(super) struct Consoles {
    directory: PathBuf,
    held: Arc<Mutex<HashSet<Uuid>>>,
}

impl Consoles {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, held: Arc::default() }
    }

    /// The guest writes its first line.
    pub(super) fn boots(&self, domain: &Domain) -> Result<(), Error> {
        append(&self.path(domain.uid), format!("{BOOT}{}\r\n", domain.hostname).as_bytes())
            .map_err(|error| failed(reasons::HYPERVISOR_ERROR, error.to_string()))
    }

    pub(super) fn count_boots(&self, uid: Uuid) -> usize {
        let text = std::fs::read_to_string(self.path(uid)).unwrap_or_default();
        text.lines().filter(|line| line.starts_with(BOOT)).count()
    }

    pub(super) fn open(&self, uid: Uuid) -> Result<Box<dyn Duplex>, Error> {
        let lock = |held: &Mutex<HashSet<Uuid>>| held.lock().unwrap_or_else(PoisonError::into_inner).insert(uid);
        if !lock(&self.held) {
            return Err(Error::Busy(format!("the console of {uid} is open elsewhere")));
        }
        let (here, guest) = tokio::io::duplex(BUFFER);
        let (held, log) = (Arc::clone(&self.held), self.path(uid));
        tokio::spawn(async move {
            // The holder went away, or the disk is full: either way the console is free again.
            let _ = echo(guest, |bytes| append(&log, bytes)).await;
            held.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        });
        Ok(Box::new(here))
    }

    pub(super) fn log(&self, uid: Uuid) -> Vec<PathBuf> {
        Some(self.path(uid)).filter(|path| path.exists()).into_iter().collect()
    }

    fn path(&self, uid: Uuid) -> PathBuf {
        self.directory.join(format!("{uid}.log"))
    }
}

pub(super) fn connect(port: u16) -> Result<Box<dyn Duplex>, Error> {
    let greeting: &[u8] = match port {
        ECHO => b"",
        SSH => b"SSH-2.0-croft_simulated\r\n",
        _ => return Err(failed(GUEST_UNREACHABLE, format!("port {port}: connection refused"))),
    };
    let (here, mut guest) = tokio::io::duplex(BUFFER);
    tokio::spawn(async move {
        guest.write_all(greeting).await?;
        echo(guest, |_| Ok(())).await
    });
    Ok(Box::new(here))
}

async fn echo(mut guest: DuplexStream, seen: impl Fn(&[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        let count = guest.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        seen(&buffer[..count])?;
        guest.write_all(&buffer[..count]).await?;
    }
}

fn append(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(bytes)
}
