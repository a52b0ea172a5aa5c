# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""What a PCI device is and what the machine itself does with it, read from /sys and /proc below a root."""

from __future__ import annotations

import glob
import os

DEVICES = "sys/bus/pci/devices"


def text(path):
    try:
        with open(path, "r", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def link_name(path):
    return os.path.basename(os.path.realpath(path)) if os.path.exists(path) else ""


def below(root, address, pattern):
    """Entries below the device in the tree of devices, wherever its functions sit."""
    device = os.path.realpath(os.path.join(root, DEVICES, address))
    return [path for path in glob.glob(os.path.join(root, pattern)) if (os.path.realpath(path) + "/").startswith(device + "/")]


def routed(root):
    """Interfaces of default routes, IPv4 and IPv6, with what lies below bridges, bonds and VLANs."""
    lines = [line.split() for line in text(os.path.join(root, "proc/net/route")).splitlines()[1:]]
    names = set(line[0] for line in lines if len(line) > 7 and line[1] == "00000000" and line[7] == "00000000")
    six = [line.split() for line in text(os.path.join(root, "proc/net/ipv6_route")).splitlines()]
    names.update(line[9] for line in six if len(line) > 9 and line[0] == "0" * 32 and line[1] == "00" and line[9] != "lo")
    for name in list(names):
        names.update(os.path.basename(path)[6:] for path in lowers(root, name))
    return names


def lowers(root, name):
    found = glob.glob(os.path.join(root, "sys/class/net", name, "lower_*"))
    return found + [more for path in found for more in lowers(root, os.path.basename(path)[6:])]


def mounted(root):
    """Block devices that something is mounted from, or swapped to, by kernel name, with what lies below mappings."""
    lines = [line.split() for line in text(os.path.join(root, "proc/self/mountinfo")).splitlines()]
    # Field 3 is MAJOR:MINOR of what is mounted.
    names = set(link_name(os.path.join(root, "sys/dev/block", line[2])) for line in lines if len(line) > 2)
    swaps = text(os.path.join(root, "proc/swaps")).splitlines()[1:]
    names.update(os.path.basename(os.path.realpath(line.split()[0])) for line in swaps if line.split())
    names.discard("")
    for name in list(names):
        names.update(slaves(root, name))
    return names


def slaves(root, name):
    found = [os.path.basename(path) for path in glob.glob(os.path.join(root, "sys/class/block", name, "slaves/*"))]
    return found + [more for one in found for more in slaves(root, one)]


def uses(root, address):
    """Why the machine cannot do without the device; empty: it can."""
    routes, mounts = routed(root), mounted(root)
    nets = sorted(os.path.basename(path) for path in below(root, address, "sys/class/net/*"))
    blocks = sorted(os.path.basename(path) for path in below(root, address, "sys/class/block/*"))
    reasons = ["its interface %s has the default route" % name for name in nets if name in routes]
    return reasons + ["its disk %s is mounted or swapped to" % name for name in blocks if name in mounts]


def look(root, address):
    device = os.path.join(root, DEVICES, address)
    if not os.path.isdir(device):
        return dict(address=address, present=False)
    vendor, kind = text(device + "/vendor")[2:], text(device + "/device")[2:]
    peers = sorted(os.path.basename(path) for path in glob.glob(device + "/iommu_group/devices/*"))
    return dict(
        address=address,
        present=True,
        id="%s:%s" % (vendor, kind),
        pci_class=text(device + "/class")[2:],
        driver=link_name(device + "/driver"),
        override="" if text(device + "/driver_override") == "(null)" else text(device + "/driver_override"),
        iommu_group=link_name(device + "/iommu_group"),
        peers=[peer for peer in peers if peer != address],
        uses=uses(root, address),
    )


def all_addresses(root):
    return sorted(os.path.basename(path) for path in glob.glob(os.path.join(root, DEVICES, "*")))
