#!/bin/sh
# What a block device holds: partitions, mounts, signatures. Nothing is printed of an empty one.
set -eu
device=${1:?a block device}
[ -b "$device" ] || { echo "no such block device"; exit 0; }
lsblk --noheadings --output NAME,TYPE,FSTYPE,MOUNTPOINTS "$device" | awk 'NR > 1 || NF > 2'
wipefs --no-act "$device"
