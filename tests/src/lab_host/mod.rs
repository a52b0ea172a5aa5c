//! A GPU host in one QEMU process: a real kernel with an IOMMU, SR-IOV, VFIO, mediated devices, USB and nested KVM.
//!
//! ```text
//!  the test's network namespace:  control plane ◄── 10.0.2.2 ── [ lab host: systemd, libvirtd, agent ── guests ]
//!                                 test ── ssh, QMP ───────────►
//! ```
//! Everything in it is emulated and slow, so nothing here waits for a fixed time, and every deadline is one that a slow
//! machine meets. A boot that does not end is tried once more, and that is told: a second failure fails the test.

mod device;
pub mod machine;
mod qmp;
mod ssh;
mod witness;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use device::{Granted, Wished};
pub use ssh::Said;
use ssh::Ssh;
pub use witness::Witness;

use crate::process;

/// From power on to a login, on two emulated processors beside a build.
const BOOT: Duration = Duration::from_secs(400);
const TRIES: usize = 2;

/// Which boot it is, once all that a boot starts is there.
const ASK_BOOT: &str = "systemctl is-active -q multi-user.target && mountpoint -q /mnt/lab && \
                        cat /proc/sys/kernel/random/boot_id";

#[derive(Debug)]
pub struct LabHost {
    image: PathBuf,
    dir: PathBuf,
    port: u16,
    ssh: Ssh,
    qemu: Child,
    boot_id: String,
    plugs: AtomicUsize,
    /// Boots that did not end and were tried again.
    pub retries: usize,
}

/// What `cargo xtask lab` made; `None`: nobody did, and the test says that it did not run.
pub fn image() -> Option<PathBuf> {
    std::env::var_os("CROFT_LAB_IMAGE").map(PathBuf::from)
}

impl LabHost {
    /// A new machine with an empty disk of its own. `dir/share` is what it sees, read-only, at /mnt/lab.
    pub fn boot(image: &Path, dir: &Path) -> Self {
        std::fs::create_dir_all(dir.join("share")).expect("the lab's directory");
        let mut overlay = Command::new(image.join("emulator/bin/qemu-img"));
        overlay.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
        made(overlay.args([&image.join("root.img"), &dir.join("root.qcow2")]));
        made(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(dir.join("stick.img")).arg("16M"));
        let port = process::free_port();
        let ssh = Ssh::new(dir, port);
        let qemu = start(image, dir, port, &ssh);
        let (image, dir) = (image.to_owned(), dir.to_owned());
        let mut lab =
            Self { image, dir, port, ssh, qemu, boot_id: String::new(), plugs: AtomicUsize::new(0), retries: 0 };
        lab.come_up();
        lab
    }

    /// Runs a script of bash as root, and returns what it printed. Its failure is one of the test.
    pub fn sh(&self, script: &str) -> String {
        let said = self.run(script);
        assert!(said.success, "in the lab host: {script}\n{}{}\n{}", said.stdout, said.stderr, self.serial_end());
        said.stdout.trim_end().to_owned()
    }

    /// The same of a script that may fail.
    pub fn run(&self, script: &str) -> Said {
        // A connection may be lost, and the machine may start anew by itself: scripts here may be repeated.
        let began = Instant::now();
        while began.elapsed() < BOOT {
            if let Some(said) = self.ssh.attempt(script) {
                return said;
            }
            self.ssh.forget();
            thread::sleep(Duration::from_secs(1));
        }
        panic!("the lab host does not answer: {script}\n{}", self.serial_end())
    }

    /// Asks until the script succeeds, and returns what it printed.
    pub fn until(&self, deadline: Duration, what: &str, script: &str) -> String {
        let began = Instant::now();
        loop {
            let said = self.run(script);
            if said.success {
                return said.stdout.trim_end().to_owned();
            }
            assert!(began.elapsed() < deadline, "{what}: not within {deadline:?}: {}{}", said.stdout, said.stderr);
            thread::sleep(Duration::from_millis(300));
        }
    }

    /// Shuts down and starts again, in order.
    pub fn reboot(&mut self) {
        // The connection goes before the answer comes.
        let _ = self.ssh.attempt("systemctl reboot");
        self.ssh.forget();
        self.come_up();
    }

    /// Power off and on again, with no word to anybody inside.
    pub fn power_cut(&mut self) {
        self.power_off();
        self.qemu = start(&self.image, &self.dir, self.port, &self.ssh);
        self.come_up();
    }

    /// Has the machine started anew without being told to? An emulated processor within an emulated processor does that now
    /// and then; what runs on it has then survived one crash more than was asked for.
    pub fn started_by_itself(&mut self) -> bool {
        let boot_id = self.until(BOOT, "the machine is up", ASK_BOOT);
        let by_itself = boot_id != self.boot_id;
        self.boot_id = boot_id;
        by_itself
    }

    /// What happens to a machine's plugs: `device_add`, `device_del`, …
    pub fn hand(&self, command: &str, arguments: Value) -> Value {
        qmp::tell(&self.dir.join("qmp"), command, &arguments)
    }

    /// Returns when QEMU has forgotten it: until then it cannot be plugged in again.
    pub fn unplug_usb(&self, index: usize) {
        let id = format!("usb{index}");
        self.hand("device_del", json!({ "id": id }));
        let path = json!({ "path": "/machine/peripheral" });
        let began = Instant::now();
        while self.hand("qom-list", path.clone()).to_string().contains(&format!("\"{id}\"")) {
            assert!(began.elapsed() < BOOT, "{id} is still plugged in");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The same device as before, at another port if need be.
    pub fn plug_usb(&self, index: usize, port: usize) {
        // QEMU may still be at taking the last one apart, other end included: each has an end of its own.
        let end = format!("null{index}-{port}-{}", self.plugs.fetch_add(1, Ordering::Relaxed));
        self.hand("chardev-add", json!({ "id": end, "backend": { "type": "null", "data": {} } }));
        let serial = machine::USB_SERIALS[index];
        let device = json!({
            "driver": "usb-serial", "id": format!("usb{index}"), "bus": "xhci.0", "port": port.to_string(),
            "chardev": end, "serial": serial, "always-plugged": true,
        });
        self.hand("device_add", device);
    }

    /// What the machine told on its serial line last.
    pub fn serial_end(&self) -> String {
        serial_end(&self.dir)
    }

    pub fn witness(&self) -> Witness {
        Witness { ssh: self.ssh.clone(), dir: self.dir.clone() }
    }

    /// Interrupts that the emulated processors lost, and the machine ended by itself (docs/lab.md).
    pub fn lost_interrupts(&self) -> usize {
        let count = "journalctl -q -o cat -u 'lab-end-of-interrupt@*' | grep -c 'never served' || true";
        self.sh(count).trim().parse().expect("a number")
    }

    /// What the lab host sees at /mnt/lab.
    pub fn share(&self) -> PathBuf {
        self.dir.join("share")
    }

    fn come_up(&mut self) {
        for attempt in 1..=TRIES {
            if self.answers_within(BOOT) {
                return;
            }
            println!("the lab host did not come up within {BOOT:?} (try {attempt} of {TRIES}):\n{}", self.serial_end());
            if attempt < TRIES {
                self.retries += 1;
                self.power_off();
                self.qemu = start(&self.image, &self.dir, self.port, &self.ssh);
            }
        }
        panic!("the lab host did not come up in {TRIES} tries of {BOOT:?}\n{}", self.serial_end());
    }

    /// Another boot than the last one, with all that a boot starts.
    fn answers_within(&mut self, deadline: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < deadline {
            if let Ok(Some(status)) = self.qemu.try_wait() {
                let log = std::fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
                panic!("QEMU ended by itself: {status}\n{log}");
            }
            match self.ssh.attempt(ASK_BOOT) {
                Some(said) if said.success && said.stdout.trim() != self.boot_id => {
                    said.stdout.trim().clone_into(&mut self.boot_id);
                    return true;
                }
                Some(_) => {}
                None => self.ssh.forget(),
            }
            thread::sleep(Duration::from_millis(500));
        }
        false
    }

    fn power_off(&mut self) {
        self.ssh.forget();
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Drop for LabHost {
    fn drop(&mut self) {
        self.power_off();
    }
}

fn made(command: &mut Command) {
    let status = command.stdout(Stdio::null()).status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

fn serial_end(dir: &Path) -> String {
    let text = std::fs::read(dir.join("serial.log")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

fn start(image: &Path, dir: &Path, port: u16, ssh: &Ssh) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("qemu.log")).expect("log");
    // QEMU begins the file anew; what the boot before it said is looked at after a power cut.
    let _ = std::fs::rename(dir.join("serial.log"), dir.join("serial.before.log"));
    Command::new(image.join("emulator/bin/qemu-system-x86_64"))
        .args(machine::arguments(image, dir, port, &ssh.public_key()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("log"))
        .stderr(log)
        .spawn()
        .expect("QEMU")
}
