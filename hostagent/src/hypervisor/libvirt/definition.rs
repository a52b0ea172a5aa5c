//! The XML of a [`Domain`], element by element. Nothing is decided here but how libvirt wants to be told.

use super::domain::{Access, Boot, BridgeKind, CellCpus, Disk, Domain, DomainType, Interface, Link, cpu_list};
use super::metadata::{Mark, domain_name};
use super::network::filter;
use super::passthrough;
use super::xml::{self, Element, el};

impl Domain {
    pub fn to_xml(&self) -> Result<String, xml::Error> {
        let mark = Mark { uid: self.uid, generation: self.generation, disk_generation: self.disk_generation };
        let domain = el("domain").attr("type", self.domain_type.as_str());
        let window = self.mmio_window();
        let domain = if window.is_some() { domain.attr("xmlns:qemu", passthrough::QEMU) } else { domain };
        domain
            .child(el("name").text(domain_name(self.uid)))
            .child(el("uuid").text(self.uid))
            .child(el("title").text(format!("{}/{}", self.tenant, self.name)))
            .child(el("metadata").child(mark.to_element(&self.tenant, &self.name)))
            .child(el("memory").attr("unit", "MiB").text(self.memory_mib))
            .child(self.memory_backing())
            .child(el("vcpu").attr("placement", "static").text(self.vcpus))
            .children(self.pinning())
            .child(self.os())
            .child(el("features").child(el("acpi")).child(el("apic")).child(el("vmport").attr("state", "off")))
            .child(self.cpu())
            .child(clock())
            .child(el("on_poweroff").text("destroy"))
            .child(el("on_reboot").text("restart"))
            .child(el("on_crash").text("destroy"))
            .child(
                el("pm")
                    .child(el("suspend-to-mem").attr("enabled", "no"))
                    .child(el("suspend-to-disk").attr("enabled", "no")),
            )
            .child(self.devices())
            .children(window.map(passthrough::mmio_window))
            .write()
    }

    /// Tenants' pages are never merged with others': what is shared can be measured.
    fn memory_backing(&self) -> Element {
        let backing = el("memoryBacking");
        let backing = match self.huge_page_kib {
            Some(kib) => backing.child(el("hugepages").child(el("page").attr("size", kib).attr("unit", "KiB"))),
            None => backing,
        };
        backing.child(el("nosharepages"))
    }

    fn pinning(&self) -> Vec<Element> {
        if self.cells.is_empty() {
            return Vec::new();
        }
        let mut tune = el("cputune");
        let mut all = Vec::new();
        for cell in &self.cells {
            for (nth, vcpu) in cell.vcpus.clone().enumerate() {
                let cpus = match &cell.cpus {
                    CellCpus::Any(cpus) => cpus.clone(),
                    CellCpus::Each(cpus) => cpus.get(nth).copied().into_iter().collect(),
                };
                tune = tune.child(el("vcpupin").attr("vcpu", vcpu).attr("cpuset", cpu_list(&cpus)));
                all.extend(cpus);
            }
        }
        // The emulator's own threads stay with their guest.
        tune = tune.child(el("emulatorpin").attr("cpuset", cpu_list(&all)));
        let nodes: Vec<u32> = self.cells.iter().map(|cell| cell.host_cell).collect();
        let mut numa = el("numatune").child(el("memory").attr("mode", "strict").attr("nodeset", cpu_list(&nodes)));
        if self.cells.len() > 1 {
            for (guest_cell, cell) in self.cells.iter().enumerate() {
                let node = el("memnode").attr("cellid", guest_cell).attr("mode", "strict");
                numa = numa.child(node.attr("nodeset", cell.host_cell));
            }
        }
        vec![tune, numa]
    }

    fn os(&self) -> Element {
        let machine = el("type").attr("arch", "x86_64").attr("machine", "q35").text("hvm");
        match &self.boot {
            // Without Secure Boot: its keys would have to come with the image.
            Boot::Uefi { nvram } => el("os")
                .attr("firmware", "efi")
                .child(machine)
                .child(el("firmware").child(el("feature").attr("enabled", "no").attr("name", "secure-boot")))
                .child(el("nvram").text(nvram.display())),
            Boot::Bios => el("os").child(machine),
            Boot::Kernel { kernel, initrd, cmdline } => el("os")
                .child(machine)
                .child(el("kernel").text(kernel.display()))
                .children(initrd.as_ref().map(|initrd| el("initrd").text(initrd.display())))
                .children((!cmdline.is_empty()).then(|| el("cmdline").text(cmdline))),
        }
    }

    fn cpu(&self) -> Element {
        let cpu = match self.domain_type {
            DomainType::Kvm => {
                el("cpu").attr("mode", "host-passthrough").attr("check", "none").attr("migratable", "on")
            }
            DomainType::Qemu => el("cpu").attr("mode", "maximum"),
        };
        // One socket a cell where that divides evenly: some guests count sockets, for licences or limits.
        let sockets = match u32::try_from(self.cells.len()) {
            Ok(cells) if cells > 1 && self.vcpus.is_multiple_of(cells) => cells,
            _ => 1,
        };
        // A guest can only use a window that its CPU's addresses reach.
        let cpu = match (self.domain_type, self.mmio_window()) {
            (DomainType::Kvm, Some(_)) => cpu.child(el("maxphysaddr").attr("mode", "passthrough")),
            _ => cpu,
        };
        let topology = el("topology").attr("sockets", sockets).attr("dies", 1).attr("cores", self.vcpus / sockets);
        let cpu = cpu.child(topology.attr("threads", 1));
        if self.cells.len() < 2 {
            return cpu;
        }
        let cells = self.cells.iter().enumerate().map(|(id, cell)| {
            let vcpus: Vec<u32> = cell.vcpus.clone().collect();
            el("cell").attr("id", id).attr("cpus", cpu_list(&vcpus)).attr("memory", cell.memory_mib).attr("unit", "MiB")
        });
        cpu.child(el("numa").children(cells))
    }

    fn devices(&self) -> Element {
        let letters = 'a'..='z';
        let log = el("log").attr("file", self.console_log.display()).attr("append", "on");
        let serial = el("source").attr("mode", "bind").attr("path", self.serial.display());
        let agent = el("target").attr("type", "virtio").attr("name", "org.qemu.guest_agent.0");
        el("devices")
            .children(
                self.disks.iter().zip(letters).enumerate().map(|(at, (disk, letter))| disk.to_element(at, letter)),
            )
            .children(self.interfaces.iter().map(Interface::to_element))
            .child(el("serial").attr("type", "unix").child(serial).child(log).child(el("target").attr("port", 0)))
            .child(el("console").attr("type", "unix").child(el("target").attr("type", "serial").attr("port", 0)))
            .child(el("channel").attr("type", "unix").child(el("source").attr("mode", "bind")).child(agent))
            .child(el("rng").attr("model", "virtio").child(el("backend").attr("model", "random").text("/dev/urandom")))
            .child(el("controller").attr("type", "usb").attr("model", "qemu-xhci"))
            .children(self.ports())
            .children(self.devices.iter().enumerate().map(|(at, device)| device.to_element(self.place(at))))
            .child(el("memballoon").attr("model", "none"))
            // Tells the host when the guest's kernel panics, so that it counts as a crash.
            .child(el("panic").attr("model", "isa"))
    }
}

impl Disk {
    fn to_element(&self, at: usize, letter: char) -> Element {
        let driver = el("driver").attr("name", "qemu").attr("type", self.format.as_str());
        let driver = match self.access {
            // A full disk of the host pauses the guest instead of showing it write errors.
            Access::ReadWrite => {
                driver.attr("discard", "unmap").attr("error_policy", "enospace").attr("rerror_policy", "stop")
            }
            Access::ReadOnly => driver,
        };
        let disk = el("disk")
            .attr("type", "file")
            .attr("device", "disk")
            .child(driver)
            .child(el("source").attr("file", self.path.display()));
        // Always there, so that nobody goes and looks what the file says about its backing.
        let disk = match &self.backing {
            Some((path, format)) => {
                // Shared and readable by all: its owner is not changed.
                let label = el("seclabel").attr("model", "dac").attr("relabel", "no");
                let source = el("source").attr("file", path.display()).child(label);
                let format = el("format").attr("type", format.as_str());
                disk.child(
                    el("backingStore").attr("type", "file").child(format).child(source).child(el("backingStore")),
                )
            }
            None => disk.child(el("backingStore")),
        };
        let disk = disk.child(el("target").attr("dev", format!("vd{letter}")).attr("bus", "virtio"));
        match self.access {
            Access::ReadWrite if at == 0 => disk.child(el("boot").attr("order", 1)),
            Access::ReadWrite => disk,
            Access::ReadOnly => disk.child(el("readonly")),
        }
    }
}

impl Interface {
    fn to_element(&self) -> Element {
        let mac = el("mac").attr("address", &self.mac);
        let model = el("model").attr("type", "virtio");
        match &self.link {
            Link::Tenant { network, ip } => {
                let parameter = el("parameter").attr("name", "IP").attr("value", ip);
                el("interface")
                    .attr("type", "network")
                    .child(mac)
                    .child(el("source").attr("network", network))
                    .child(model)
                    .child(el("filterref").attr("filter", filter::TENANT).child(parameter))
            }
            Link::Bridge { bridge, kind, vlan } => {
                let element =
                    el("interface").attr("type", "bridge").child(mac).child(el("source").attr("bridge", bridge));
                // Open vSwitch does not pass through the tables that libvirt's filters live in.
                let element = match kind {
                    BridgeKind::Linux => element.child(model).child(el("filterref").attr("filter", filter::BRIDGE)),
                    BridgeKind::OpenVSwitch => {
                        element.child(el("virtualport").attr("type", "openvswitch")).child(model)
                    }
                };
                element.children(vlan.map(|id| el("vlan").child(el("tag").attr("id", id))))
            }
        }
    }
}

fn clock() -> Element {
    el("clock")
        .attr("offset", "utc")
        .child(el("timer").attr("name", "rtc").attr("tickpolicy", "catchup"))
        .child(el("timer").attr("name", "pit").attr("tickpolicy", "delay"))
        .child(el("timer").attr("name", "hpet").attr("present", "no"))
}
