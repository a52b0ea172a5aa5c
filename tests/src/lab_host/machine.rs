//! The lab's machine as QEMU's command line: a host with an IOMMU and something of every kind that a guest can be given.

use std::path::Path;

/// Where the firmware finds them: the root ports are numbered in this order.
pub const NIC: &str = "0000:01:00.0";
pub const NVME: &str = "0000:02:00.0";
/// Alone on its root port: a whole GPU, as far as the kernel can tell.
pub const DISPLAY: &str = "0000:03:00.0";
/// A display and its sound function, which share an IOMMU group.
pub const CARD: &str = "0000:04:00.0";
pub const CARD_SOUND: &str = "0000:04:00.1";
/// A drive that shares its group with a network interface on a driver of the host's.
pub const BESIDE_NIC: &str = "0000:05:00.1";
pub const PEER_NIC: &str = "0000:05:00.0";
/// Two that differ in their serial number only.
pub const USB_SERIALS: [&str; 2] = ["LAB0001", "LAB0002"];
pub const USB_IDS: &str = "0403:6001";
/// A disk with a file system on it.
pub const USB_STICK: &str = "LABSTICK";

/// What the lab host is called from inside: the machine that runs it, through QEMU's user networking.
pub const OUTSIDE: &str = "10.0.2.2";

pub const MEMORY_MIB: u32 = 4096;

/// `dir`: where disk, share and sockets are. `key`: who may log in as root, a public key.
pub fn arguments(image: &Path, dir: &Path, port: u16, key: &str) -> Vec<String> {
    let at = |name: &str| dir.join(name).display().to_string();
    let of = |name: &str| image.join(name).display().to_string();
    let mut words = Words::default();
    // Emulated SVM: the guests inside are real KVM guests. The interrupt controller must be split for the IOMMU to remap.
    words.pair("-machine", "q35,kernel-irqchip=split").pair("-cpu", "max").pair("-accel", "tcg,thread=multi");
    words.pair("-m", format!("{MEMORY_MIB}M")).pair("-smp", "2");
    words.one("-nodefaults").pair("-display", "none").pair("-L", of("emulator/share/qemu"));
    words.pair("-L", of("emulator/share/seabios"));
    words
        .pair("-serial", format!("file:{}", at("serial.log")))
        .pair("-qmp", format!("unix:{},server,nowait", at("qmp")));
    words.pair("-kernel", of("vmlinuz")).pair("-initrd", of("initrd"));
    words.pair("-append", "console=ttyS0 root=/dev/vda rw intel_iommu=on iommu=pt systemd.show_status=yes");
    words.pair("-smbios", format!("type=11,value=io.systemd.credential:ssh.authorized_keys.root={}", key.trim()));
    words.pair(
        "-drive",
        format!("file={},if=none,id=root,format=qcow2,cache=writeback,discard=unmap", at("root.qcow2")),
    );
    words.device("virtio-blk-pci,drive=root").device("virtio-rng-pci").device("intel-iommu,intremap=on,eim=on");
    words.pair("-netdev", format!("user,id=way-in,hostfwd=tcp:127.0.0.1:{port}-:22"));
    words.device("virtio-net-pci,netdev=way-in");
    let share = at("share");
    words.pair("-virtfs", format!("local,path={share},mount_tag=lab,security_model=none,readonly=on,multidevs=remap"));
    for port in 1..=5 {
        // Addresses of their own, so that buses are numbered in this order.
        words.device(format!("pcie-root-port,id=rp{port},chassis={port},slot={port},addr={:#x}", 0x10 + port));
    }
    words.pair("-netdev", "user,id=nic,restrict=on").device("igb,bus=rp1,netdev=nic");
    words.device("nvme-subsys,id=drives");
    words.device(
        "nvme,serial=LABNVME1,bus=rp2,subsys=drives,sriov_max_vfs=2,sriov_vq_flexible=4,sriov_vi_flexible=2,\
         max_ioqpairs=18,msix_qsize=11",
    );
    words.device("bochs-display,bus=rp3");
    words.device("bochs-display,bus=rp4,addr=0.0,multifunction=on").device("ich9-intel-hda,bus=rp4,addr=0.1");
    words.pair("-netdev", "user,id=peer,restrict=on");
    words
        .device("e1000e,bus=rp5,addr=0.0,multifunction=on,netdev=peer")
        .device("nvme,serial=LABNVME2,bus=rp5,addr=0.1");
    words.device("qemu-xhci,id=xhci");
    for (index, serial) in USB_SERIALS.iter().enumerate() {
        words.pair("-chardev", format!("null,id=null{index}"));
        words.device(format!(
            "usb-serial,id=usb{index},bus=xhci.0,port={},chardev=null{index},serial={serial},always-plugged=on",
            index + 1
        ));
    }
    words.pair("-drive", format!("file={},if=none,id=stick,format=raw", at("stick.img")));
    words.device(format!("usb-storage,id=stick,bus=xhci.0,port=4,drive=stick,serial={USB_STICK}"));
    words.0
}

#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn one(&mut self, word: &str) -> &mut Self {
        self.0.push(word.to_owned());
        self
    }

    fn pair(&mut self, option: &str, value: impl Into<String>) -> &mut Self {
        self.0.push(option.to_owned());
        self.0.push(value.into());
        self
    }

    fn device(&mut self, value: impl Into<String>) -> &mut Self {
        self.pair("-device", value)
    }
}
