//! A bare machine: a disk of its own, UEFI, GRUB, an IOMMU, and two network cards of one kind, one of which Croft may give away.
//!
//! Nothing is handed to its kernel from outside: what it boots with is what its own disk says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Provided;
use super::network::Place;
use super::seed;
use crate::run::{Ended, Run, last_lines};

/// The card that vfio-pci shall have from the boot on, and its twin, which stays with its driver.
pub(super) const TAKEN: &str = "0000:02:00.0";
pub(super) const TWIN: &str = "0000:01:00.0";

/// From power on to the end of cloud-init, on emulated processors beside a build.
const BOOT: Duration = Duration::from_secs(600);

/// Debian's package ovmf.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// Ends with this value.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) place: Place,
    dir: PathBuf,
    key: PathBuf,
    qemu: Child,
}

impl Machine {
    /// Its first start; returns at once.
    pub(super) fn power_on(place: Place, provided: &Provided, work: &Path, key: &Path) -> Result<Machine> {
        let dir = work.join(place.name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let public = key.with_extension("pub");
        let public = fs::read_to_string(&public).with_context(|| format!("cannot read {}", public.display()))?;
        seed::write(&dir.join("seed.img"), place, &public)?;
        // The firmware writes into its own.
        fs::copy(VARIABLES, dir.join("vars.fd")).with_context(|| format!("cannot copy {VARIABLES}"))?;
        let emulator = provided.lab.join("emulator");
        Run::new(emulator.join("bin/qemu-img"))
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .args([&provided.disk, &dir.join("disk.qcow2")])
            .stdout()?;
        let log = dir.join(format!("{}-qemu.log", place.name));
        let log = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let qemu = Command::new(emulator.join("bin/qemu-system-x86_64"))
            .args(arguments(place, &emulator, &dir))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot copy a file handle")?)
            .stderr(log)
            .spawn()
            .context("cannot start the emulator")?;
        Ok(Machine { place, dir, key: key.to_owned(), qemu })
    }

    /// Until all that its boot starts is there.
    pub(super) fn await_up(&mut self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < BOOT {
            if let Some(status) = self.qemu.try_wait().context("the emulator went away")? {
                let log = last_lines(&self.dir.join(format!("{}-qemu.log", self.place.name)), 5);
                bail!("{}: the emulator ended by itself ({status}): {log}", self.place.name);
            }
            let up = "test -e /var/lib/cloud/instance/boot-finished && systemctl is-active -q multi-user.target";
            if self.ended(up)?.success {
                return Ok(());
            }
            thread::sleep(Duration::from_secs(1));
        }
        bail!("{} did not come up within {} s; its serial line:\n{}", self.place.name, BOOT.as_secs(), self.serial(25))
    }

    /// What this script of its shell prints, as root. Its failure is an error.
    pub(super) fn sh(&self, script: &str) -> Result<String> {
        let ended = self.ended(script)?;
        if !ended.success {
            bail!("on {}: `{script}` failed:\n{}{}", self.place.name, ended.stdout, ended.stderr);
        }
        Ok(ended.stdout.trim().to_owned())
    }

    /// The same, where a failure is an answer.
    pub(super) fn ended(&self, script: &str) -> Result<Ended> {
        self.ssh("ssh").arg(format!("root@{}", self.place.address)).arg(script).ended()
    }

    pub(super) fn copy(&self, files: &[PathBuf], to: &str) -> Result<()> {
        self.ssh("scp").arg("-q").args(files).arg(format!("root@{}:{to}", self.place.address)).stdout().map(drop)
    }

    /// The end of what it told on its serial line.
    pub(super) fn serial(&self, lines: usize) -> String {
        last_lines(&self.dir.join(format!("{}-serial.log", self.place.name)), lines)
    }

    fn ssh(&self, program: &str) -> Run {
        let control = format!("ControlPath={}", self.dir.join("ssh").display());
        let options = [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=20",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=8",
            // An emulated processor takes a second for each new connection.
            "ControlMaster=auto",
            "ControlPersist=60",
            &control,
        ];
        let run = Run::new(program).args(["-F", "none", "-i"]).arg(&self.key);
        options.iter().fold(run, |run, option| run.args(["-o", option]))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn arguments(place: Place, emulator: &Path, dir: &Path) -> Vec<String> {
    let at = |name: &str| dir.join(name).display().to_string();
    let share = |name: &str| emulator.join("share").join(name).display().to_string();
    let (tap, mac) = (place.tap(), place.mac);
    let mut words: Vec<String> = vec!["-nodefaults".to_owned()];
    let mut pair = |option: &str, value: String| words.extend([option.to_owned(), value]);
    // Split, or the IOMMU cannot remap interrupts. Processors with AMD's virtualisation, so guests run under a real /dev/kvm.
    pair("-machine", "q35,kernel-irqchip=split".to_owned());
    pair("-cpu", "max".to_owned());
    pair("-accel", "tcg,thread=multi".to_owned());
    pair("-smp", "2".to_owned());
    pair("-m", format!("{}M", place.memory_mib));
    pair("-display", "none".to_owned());
    pair("-L", share("qemu"));
    pair("-L", share("seabios"));
    pair("-serial", format!("file:{}", at(&format!("{}-serial.log", place.name))));
    pair("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE}"));
    pair("-drive", format!("if=pflash,unit=1,format=raw,file={}", at("vars.fd")));
    pair("-device", "intel-iommu,intremap=on,eim=on".to_owned());
    pair("-device", "virtio-rng-pci".to_owned());
    pair("-drive", format!("file={},if=none,id=root,format=qcow2,cache=unsafe,discard=unmap", at("disk.qcow2")));
    pair("-device", "virtio-blk-pci,drive=root,bootindex=1".to_owned());
    pair("-drive", format!("file={},if=none,id=seed,format=raw,readonly=on", at("seed.img")));
    pair("-device", "virtio-blk-pci,drive=seed".to_owned());
    pair("-netdev", format!("tap,id=lan,ifname={tap},script=no,downscript=no"));
    pair("-device", format!("virtio-net-pci,netdev=lan,mac={mac},romfile="));
    for port in 1..=2 {
        // Addresses of their own, so that buses are numbered in this order.
        pair("-device", format!("pcie-root-port,id=rp{port},chassis={port},slot={port},addr={:#x}", 0x10 + port));
        pair("-netdev", format!("user,id=card{port},restrict=on"));
        pair("-device", format!("e1000e,bus=rp{port},netdev=card{port},romfile="));
    }
    words
}
