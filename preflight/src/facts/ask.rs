//! What no file tells: who we are, whether KVM works, what programs and resolvers say, how much is free.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use croft_gpu::{HostFs, IfPresent as _};

use super::clock::Clock;
use super::place::{self, Disk};
use super::program;
use crate::kvm;

/// Whose version is asked for, where they are installed.
const PROGRAMS: [&str; 4] = ["libvirtd", "virtqemud", "qemu-system-x86_64", "nv-fabricmanager"];

const DEADLINE: Duration = Duration::from_secs(5);

/// What the caller wants to know beside the machine itself.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// `HOST:PORT`, to be resolved and dialled.
    pub server: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub user: User,
    pub hostname: String,
    /// `None`: the kernel has no KVM at present. Otherwise whether a vCPU ran.
    pub kvm: Option<Result<(), String>>,
    /// By name, of those that are installed: the first line of `--version`.
    pub programs: BTreeMap<&'static str, Result<String, String>>,
    /// NVIDIA's module for the running kernel; `None`: none is installed, or nobody can tell.
    pub nvidia_module: Option<NvidiaModule>,
    pub clock: Clock,
    /// What the host's own name resolves to.
    pub own_addresses: Result<Vec<IpAddr>, String>,
    pub plane: Option<Plane>,
    pub disks: Vec<Disk>,
    pub largest_initrd_mib: u64,
}

/// As `modinfo` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvidiaModule {
    /// Whose signature it has; `None`: it has none.
    pub signer: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    Root,
    Other,
}

/// A control plane that was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plane {
    pub server: String,
    pub addresses: Result<Vec<SocketAddr>, String>,
    /// A TCP connection to one of them; nothing is said over it.
    pub reached: Result<SocketAddr, String>,
}

impl Asked {
    pub(super) fn here(fs: &HostFs, question: &Question) -> Asked {
        let root = rustix::process::geteuid().is_root();
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let own = resolve(format!("{hostname}:0"));
        let installed = |name| super::program(fs, name).ok().flatten().map(|path| (name, program::version(&path)));
        Asked {
            user: if root { User::Root } else { User::Other },
            kvm: ask_kvm(fs),
            programs: PROGRAMS.into_iter().filter_map(installed).collect(),
            nvidia_module: NvidiaModule::ask(),
            clock: Clock::ask(),
            own_addresses: own.map(|all| all.iter().map(SocketAddr::ip).collect()),
            plane: question.server.as_deref().map(Plane::ask),
            disks: ["/var/lib/croft", "/boot"].into_iter().filter_map(|path| Disk::ask(fs, path)).collect(),
            largest_initrd_mib: place::largest_initrd_mib(),
            hostname,
        }
    }
}

impl NvidiaModule {
    fn ask() -> Option<NvidiaModule> {
        let told = program::output(Command::new("modinfo").arg("nvidia")).ok()?;
        NvidiaModule::parse(&told)
    }

    fn parse(told: &str) -> Option<NvidiaModule> {
        let value = |key: &str| told.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
        value("filename")?;
        Some(NvidiaModule { signer: value("signer").filter(|signer| !signer.is_empty()).map(str::to_owned) })
    }
}

/// Where the kernel does not list it, `/dev/kvm` is a name that loads a module when it is opened: then it is left alone.
fn ask_kvm(fs: &HostFs) -> Option<Result<(), String>> {
    let listed = fs.read("/proc/misc").if_present().ok().flatten().unwrap_or_default();
    let has_kvm = listed.lines().any(|line| line.split_whitespace().nth(1) == Some("kvm"));
    has_kvm.then(kvm::run_vcpu)
}

impl Plane {
    fn ask(server: &str) -> Plane {
        let addresses = resolve(server.to_owned());
        let reached = match &addresses {
            Ok(addresses) => reach(addresses),
            Err(why) => Err(why.clone()),
        };
        Plane { server: server.to_owned(), addresses, reached }
    }
}

/// The first that answers; else what the last one said.
fn reach(addresses: &[SocketAddr]) -> Result<SocketAddr, String> {
    let mut last = Err("it has no address".to_owned());
    for address in addresses {
        last = match TcpStream::connect_timeout(address, DEADLINE) {
            Ok(_) => return Ok(*address),
            Err(error) => Err(format!("{address}: {error}")),
        };
    }
    last
}

/// On a thread of its own: a resolver may take minutes to give up.
fn resolve(name: String) -> Result<Vec<SocketAddr>, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(name.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    });
    match receiver.recv_timeout(DEADLINE) {
        Ok(Ok(addresses)) if addresses.is_empty() => Err("it has no address".to_owned()),
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no resolver answered in {} s", DEADLINE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_signed_or_not_or_not_there() {
        let unsigned = "filename:       /lib/modules/6.1.0/updates/dkms/nvidia.ko\nversion:  580.159.04\n";
        assert_eq!(NvidiaModule::parse(unsigned), Some(NvidiaModule { signer: None }));
        let signed = format!("{unsigned}sig_id: PKCS#7\nsigner:         DKMS module signing key\n");
        let signer = NvidiaModule::parse(&signed).unwrap().signer;
        assert_eq!(signer.as_deref(), Some("DKMS module signing key"));
        assert_eq!(NvidiaModule::parse(""), None);
    }

    #[test]
    fn a_plane_that_cannot_be_reached_says_why() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let plane = Plane::ask(&closed.to_string());
        assert_eq!(plane.addresses, Ok(vec![closed]));
        assert!(plane.reached.unwrap_err().contains(&closed.to_string()));
        let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let plane = Plane::ask(&open.local_addr().unwrap().to_string());
        assert_eq!(plane.reached, Ok(open.local_addr().unwrap()));
        assert!(Plane::ask("no port").reached.is_err());
    }
}
