#!/usr/bin/python3
"""A guest's part in VFIO, without a guest: vfio.py viable GROUP | vfio.py hold GROUP ADDRESS | vfio.py hide GROUP ADDRESS.

`viable` prints 1 if the kernel would let the group be used, else 0. `hold` opens the device as QEMU does, says so, and keeps
it open until it is killed. `hide` does the same, and then lets go of the group's file: the kernel knows that the device is in
use, and nobody can see by whom."""

import fcntl
import os
import struct
import sys
import time

GROUP_GET_STATUS, GROUP_SET_CONTAINER, GROUP_GET_DEVICE_FD, SET_IOMMU = 0x3B67, 0x3B68, 0x3B6A, 0x3B66

group = os.open("/dev/vfio/" + sys.argv[2], os.O_RDWR)
if sys.argv[1] == "viable":
    status = bytearray(struct.pack("II", 8, 0))
    fcntl.ioctl(group, GROUP_GET_STATUS, status)
    print(struct.unpack("II", status)[1] & 1)
else:
    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    fcntl.ioctl(group, GROUP_SET_CONTAINER, struct.pack("i", container))
    fcntl.ioctl(container, SET_IOMMU, 1)
    device = fcntl.ioctl(group, GROUP_GET_DEVICE_FD, bytearray(sys.argv[3].encode() + b"\0"))
    if sys.argv[1] == "hide":
        os.close(group)
        os.close(container)
    print("held", flush=True)
    time.sleep(3600)
