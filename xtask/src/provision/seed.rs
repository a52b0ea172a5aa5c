//! What a bare machine is told at its first start (cloud-init): who may log in, its address, where packages are, and what an
//! emulated machine needs to get by.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::network::{CONTROLLER, Place};
use super::repository;
use crate::run::Run;
use crate::workspace::root;

/// A line for each boot.
pub(super) const BOOTS: &str = "/var/log/boots";

/// Files of the lab's own host that every emulated one needs: lost interrupts (docs/lab.md) and patience.
const OF_THE_LAB: [&str; 3] = [
    "usr/local/sbin/lab-end-of-interrupt",
    "etc/systemd/system/lab-end-of-interrupt@.service",
    "etc/systemd/system.conf.d/lab.conf",
];

/// Writes the volume that cloud-init looks for.
pub(super) fn write(volume: &Path, place: Place, key: &str) -> Result<()> {
    let dir = volume.with_extension("d");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let meta = json!({ "instance-id": place.name, "local-hostname": place.name });
    let network = json!({ "version": 2, "ethernets": { "lan": {
        "match": { "macaddress": place.mac }, "addresses": [format!("{}/24", place.address)], "dhcp4": false,
    } } });
    let files = [
        ("meta-data", meta.to_string()),
        ("network-config", network.to_string()),
        ("user-data", format!("#cloud-config\n{}\n", user_data(key)?)),
    ];
    let mut copy = Run::new("mcopy").arg("-i").arg(volume);
    for (name, text) in files {
        let file = dir.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        copy = copy.arg(file);
    }
    Run::new("mkfs.vfat").args(["-n", "CIDATA", "-C"]).arg(volume).arg("1024").stdout()?;
    copy.arg("::").stdout().map(drop)
}

fn user_data(key: &str) -> Result<Value> {
    let mut files = vec![
        // All drivers there are would take an emulated processor ten minutes, each time.
        file("/etc/initramfs-tools/conf.d/lab", "MODULES=dep\n", "0644"),
        // The disk lives an hour: nothing is waited for to be written.
        file("/etc/dpkg/dpkg.cfg.d/lane", "force-unsafe-io\n", "0644"),
        file("/etc/modules-load.d/lab.conf", "kvm_amd\nmsr\n", "0644"),
        file(
            "/etc/apt/sources.list.d/lane.list",
            &format!("deb [trusted=yes] http://{CONTROLLER}/{} ./\n", repository::DEBIAN),
            "0644",
        ),
    ];
    for name in OF_THE_LAB {
        let path = root().join("tests/lab/host").join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        files.push(file(&format!("/{name}"), &text, if name.contains("/sbin/") { "0755" } else { "0644" }));
    }
    Ok(json!({
        "disable_root": false,
        "ssh_authorized_keys": [key.trim()],
        "write_files": files,
        // At every boot, unlike the rest.
        "bootcmd": [format!("cat /proc/sys/kernel/random/boot_id >>{BOOTS}")],
        "runcmd": [
            // The image's own lead to a network that there is not, and apt would wait for it.
            "find /etc/apt/sources.list* -type f ! -name lane.list -delete",
            // By the calendar of a machine that lives an hour.
            "systemctl disable --now apt-daily.timer apt-daily-upgrade.timer",
            // As an installer leaves it: a check of site needs to know which packages there are.
            "apt-get -qq update",
            "modprobe -a kvm_amd msr",
            "systemctl daemon-reload",
            "systemctl enable --now lab-end-of-interrupt@0 lab-end-of-interrupt@1",
        ],
    }))
}

fn file(path: &str, content: &str, permissions: &str) -> Value {
    json!({ "path": path, "content": content, "permissions": permissions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_lab_are_there() {
        let data = user_data("ssh-ed25519 AAAA test\n").unwrap();
        assert_eq!(data["ssh_authorized_keys"][0], "ssh-ed25519 AAAA test");
        let script = &data["write_files"][4];
        assert_eq!(
            (&script["path"], &script["permissions"]),
            (&json!("/usr/local/sbin/lab-end-of-interrupt"), &json!("0755"))
        );
    }
}
