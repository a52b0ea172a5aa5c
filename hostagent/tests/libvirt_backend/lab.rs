//! What every test stands on: a state directory, the tiny guest as an image, and ways to look from outside.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use croft_hostagent::hypervisor::libvirt::{Args, Libvirt, LibvirtConfig};
use croft_hostagent::hypervisor::{Duplex, Guest, Hypervisor, Power, Seed};
use croft_proto::agent::v1::desired_image::Boot;
use croft_proto::agent::v1::desired_interface::{Network, TenantNat};
use croft_proto::agent::v1::{DesiredDisk, DesiredImage, DesiredInstance, DesiredInterface};
use croft_proto::v1::{ImageFile, KernelImage};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::shell::Shell;

/// Under emulation, on a machine that does other things as well. Only a test that fails waits for so long.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Everything but the network: tests that do not need one boot a little faster.
pub const NO_TENANT: Option<&str> = None;

pub struct Lab {
    pub libvirt: Arc<Libvirt>,
    pub dir: PathBuf,
    files: Vec<ImageFile>,
    /// One libvirtd for all tests of the process, so one test at a time.
    _alone: MutexGuard<'static, ()>,
}

impl Lab {
    /// `None`, with a word, where the lane does not run.
    pub async fn new() -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::const_new(());
        if std::env::var_os("CROFT_LIBVIRT_TEST").is_none() {
            eprintln!("skipped: the libvirt lane runs inside tests/with-libvirtd.sh");
            return None;
        }
        let alone = ALONE.lock().await;
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("croft_hostagent=debug").try_init();
        let base = std::env::var("CROFT_LAB_DIR").expect("CROFT_LAB_DIR");
        let dir = PathBuf::from(base).join(&Uuid::now_v7().simple().to_string()[24..]);
        let images = dir.join("src");
        std::fs::create_dir_all(&images).unwrap();
        let files = ["vmlinuz", "initrd"].map(|name| {
            let path = images.join(name);
            std::fs::copy(tiny_guest().join(name), &path).unwrap();
            image_file(&path)
        });
        let libvirt = open(&dir);
        Some(Self { libvirt, dir, files: files.into(), _alone: alone })
    }

    pub fn image_dir(&self) -> PathBuf {
        self.dir.join("src")
    }

    /// The tiny guest, booted directly.
    pub fn image(&self) -> DesiredImage {
        let kernel = KernelImage {
            kernel: Some(self.files[0].clone()),
            initrd: Some(self.files[1].clone()),
            root: None,
            cmdline: "console=ttyS0 quiet".into(),
        };
        DesiredImage {
            uid: Uuid::from_u128(0xaa).to_string(),
            name: "images/tiny".into(),
            platform: true,
            boot: Some(Boot::Kernel(kernel)),
            ..Default::default()
        }
    }

    /// A small instance; in this tenant's network if one is named.
    pub fn instance(&self, name: &str, tenant: Option<&str>) -> DesiredInstance {
        let uid = Uuid::now_v7();
        let [.., a, b, c] = uid.into_bytes();
        let interface = tenant.map(|tenant| DesiredInterface {
            mac: format!("02:00:00:{a:02x}:{b:02x}:{c:02x}"),
            network: Some(Network::TenantNat(TenantNat { tenant_uid: tenant.into() })),
        });
        DesiredInstance {
            uid: uid.to_string(),
            tenant: "acme".into(),
            name: name.into(),
            generation: 1,
            vcpus: 1,
            memory_mib: 192,
            image: Some(self.image()),
            disks: vec![DesiredDisk { uid: Uuid::now_v7().to_string(), size_gib: 1 }],
            interfaces: interface.into_iter().collect(),
            ..Default::default()
        }
    }

    pub async fn define(&self, desired: &DesiredInstance) -> Uuid {
        self.libvirt.ensure_image(desired.image.as_ref().unwrap(), &|_, _| {}).await.unwrap();
        self.libvirt.ensure_defined(desired, &seed(""), &[]).await.unwrap();
        uid(desired)
    }

    /// Defined, started, and its shell reached.
    pub async fn boot(&self, desired: &DesiredInstance) -> (Uuid, Shell) {
        let uid = self.define(desired).await;
        self.libvirt.start(uid).await.unwrap();
        (uid, self.shell(uid).await)
    }

    pub async fn shell(&self, uid: Uuid) -> Shell {
        self.until_said(uid, "tiny: shell").await;
        Shell::new(self.libvirt.console(uid).await.unwrap())
    }

    pub async fn power(&self, uid: Uuid) -> Option<Power> {
        let survey = self.libvirt.survey().await.unwrap();
        survey.ours.into_iter().find(|domain| domain.uid == uid).map(|domain| domain.power)
    }

    pub async fn until_power(&self, uid: Uuid, what: impl Fn(&Power) -> bool) -> Power {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A look that failed says nothing: a busy libvirtd may refuse to name the state of a guest that just changes.
            let seen = self.libvirt.survey().await.map(|survey| survey.ours.into_iter().find(|seen| seen.uid == uid));
            let seen = seen.map(|seen| seen.expect("the domain is gone").power);
            match seen {
                Ok(power) if what(&power) => return power,
                seen => assert!(Instant::now() < deadline, "still {seen:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub async fn until_agent(&self, uid: Uuid) -> Guest {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let guest = self.libvirt.guest(uid).await.unwrap();
            if guest.agent {
                return guest;
            }
            assert!(Instant::now() < deadline, "no agent: {guest:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// A server in the guest takes a moment to listen.
    pub async fn until_connected(&self, uid: Uuid, port: u16) -> Box<dyn Duplex> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.libvirt.connect(uid, port).await {
                Ok(stream) => return stream,
                Err(e) => assert!(Instant::now() < deadline, "{e}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub async fn said(&self, uid: Uuid) -> String {
        let pieces = self.libvirt.console_log(uid).await.unwrap();
        let read = |path: PathBuf| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        pieces.into_iter().map(read).collect()
    }

    /// Waits until the guest wrote `text` to its console.
    pub async fn until_said(&self, uid: Uuid, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.said(uid).await;
            if said.contains(text) {
                return said;
            }
            assert!(Instant::now() < deadline, "never said `{text}`: {said}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Ends and removes it, whatever became of it.
    pub async fn clear(&self, uids: &[Uuid]) {
        for uid in uids {
            self.libvirt.destroy(*uid).await.unwrap();
            self.libvirt.remove(*uid).await.unwrap();
        }
    }
}

pub fn open(dir: &Path) -> Arc<Libvirt> {
    Libvirt::open(config(dir)).unwrap()
}

pub fn config(dir: &Path) -> LibvirtConfig {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }
    use clap::Parser;
    let mut config =
        Cli::parse_from(["x", "--disk-reserve-gib=0", "--domain-type=qemu"]).args.into_config(dir.join("s"));
    config.image_dir = Some(dir.join("src"));
    config
}

pub fn seed(user_data: &str) -> Seed {
    Seed { meta_data: "instance-id: i\n".into(), user_data: user_data.into(), ..Seed::default() }
}

pub fn uid(desired: &DesiredInstance) -> Uuid {
    desired.uid.parse().unwrap()
}

pub fn image_file(path: &Path) -> ImageFile {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let sha256 = croft_hostagent::media::local::sha256(path).unwrap();
    ImageFile { uri: format!("file://{}", path.display()), sha256 }
}

/// Runs a command that must succeed; what it printed.
#[track_caller]
pub fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "`{command}`: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Made once per process by tests/tiny-guest.sh.
fn tiny_guest() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = PathBuf::from(std::env::var("CROFT_LAB_DIR").unwrap()).join("tiny");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tiny-guest.sh");
        run(&format!("{} {}", script.display(), dir.display()));
        dir
    })
}
