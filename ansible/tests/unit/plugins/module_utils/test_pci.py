# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""Which devices a machine lives on, in a made-up /sys and /proc."""

from __future__ import annotations

import os

import pytest
from ansible_collections.croft.fleet.plugins.module_utils import pci

NIC, DISK, GPU, GPU_AUDIO = "0000:01:00.0", "0000:02:00.0", "0000:41:00.0", "0000:41:00.1"


class Machine:
    def __init__(self, root):
        self.root = str(root)
        for address, known in ((NIC, "8086:10ca"), (DISK, "144d:a808"), (GPU, "10de:2330"), (GPU_AUDIO, "10de:22a3")):
            vendor, device = known.split(":")
            where = "sys/devices/pci0000:00/" + address
            self.write(where + "/vendor", "0x" + vendor + "\n")
            self.write(where + "/device", "0x" + device + "\n")
            self.write(where + "/class", "0x030200\n")
            self.write(where + "/driver_override", "(null)\n")
            self.link("sys/bus/pci/devices/" + address, where)

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def link(self, path, target):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        target = os.path.join(self.root, target)
        os.makedirs(target, exist_ok=True)
        os.symlink(target, path)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_device_says_what_it_is(machine):
    machine.link("sys/devices/pci0000:00/" + GPU + "/driver", "sys/bus/pci/drivers/vfio-pci")
    machine.write("sys/devices/pci0000:00/" + GPU + "/driver_override", "vfio-pci\n")
    machine.link("sys/devices/pci0000:00/" + GPU + "/iommu_group", "sys/kernel/iommu_groups/7")
    for address in (GPU, GPU_AUDIO):
        machine.link("sys/kernel/iommu_groups/7/devices/" + address, "sys/devices/pci0000:00/" + address)
    assert pci.look(machine.root, GPU) == dict(
        address=GPU, present=True, id="10de:2330", pci_class="030200", driver="vfio-pci", override="vfio-pci", iommu_group="7",
        peers=[GPU_AUDIO], uses=[])


def test_what_is_not_there_is_no_error(machine):
    assert pci.look(machine.root, "0000:99:00.0") == dict(address="0000:99:00.0", present=False)


def test_the_card_below_bridge_and_vlan_of_the_default_route(machine):
    nic = "sys/devices/pci0000:00/" + NIC + "/net/eth0"
    machine.link("sys/class/net/eth0", nic)
    machine.link("sys/class/net/eth0.120/lower_eth0", nic)
    machine.link("sys/class/net/br0/lower_eth0.120", "sys/class/net/eth0.120")
    header = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    machine.write("proc/net/route", header + "br0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n")
    assert pci.look(machine.root, NIC)["uses"] == ["its interface eth0 has the default route"]
    machine.write("proc/net/route", header + "br0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n")
    assert pci.look(machine.root, NIC)["uses"] == []


def test_the_drive_below_lvm(machine):
    drive = "sys/devices/pci0000:00/" + DISK + "/nvme/nvme0/nvme0n1"
    machine.link("sys/class/block/nvme0n1", drive)
    machine.link("sys/class/block/nvme0n1p1", drive + "/nvme0n1p1")
    machine.link("sys/class/block/dm-0/slaves/nvme0n1p1", drive + "/nvme0n1p1")
    machine.link("sys/dev/block/254:0", "sys/class/block/dm-0")
    machine.write("proc/self/mountinfo", "22 1 254:0 / / rw - ext4 /dev/mapper/root rw\n")
    assert pci.look(machine.root, DISK)["uses"] == ["its disk nvme0n1p1 is mounted or swapped to"]
