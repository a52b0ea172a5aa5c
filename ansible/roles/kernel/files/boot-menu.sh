#!/bin/sh
# Kernels and initramfs images that GRUB's menu names and that are missing or empty, one a line.
# Paths in grub.cfg begin at the file system that /boot is on, so a separate one hides its own name.
set -eu
grep -Eho '^[[:space:]]*(linux|initrd)[[:space:]]+[^[:space:]]+' /boot/grub/grub.cfg | while read -r _ path; do
    [ -s "/boot/${path##*/}" ] || [ -s "$path" ] || echo "$path"
done
