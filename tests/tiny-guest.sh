#!/bin/bash
# tiny-guest.sh OUT: a guest that boots in seconds under emulation, from Debian's own packages: OUT/vmlinuz, OUT/initrd.
#
# Debian's cloud kernel and a static busybox. The initramfs loads the virtio drivers, asks DHCP for an address, powers off
# on the ACPI button, answers as a (very small) guest agent, and runs the user-data of its NoCloud seed when that begins
# with `#!`. On the serial console it prints `tiny: …` lines; then there is a shell.
# The two packages are kept in ~/.cache/croft; nothing else is downloaded.
set -euo pipefail

out=${1:?usage: tiny-guest.sh OUT}
here=$(dirname "$(readlink -f "$0")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/croft
mkdir -p "$out" "$cache"

# One at a time: lanes share the cache.
exec 9>"$cache/tiny-guest.lock"
flock 9

stamp=$(sha256sum "$0" "$here"/tiny-guest/* | sha256sum | cut -c1-16)
if [ ! -e "$cache/tiny-$stamp/done" ]; then
    rm -rf "$cache"/tiny-*/
    work=$cache/tiny-$stamp
    mkdir -p "$work/root"

    # fetch NAME: the newest .deb of it, downloaded once.
    fetch() {
        local deb
        deb=$(find "$cache" -maxdepth 1 -name "$1_*.deb" | sort -V | tail -1)
        if [ -z "$deb" ]; then
            (cd "$cache" && apt-get -q -o APT::Sandbox::User=root download "$1" >&2) || {
                (apt-get -q update >&2 && cd "$cache" && apt-get -q -o APT::Sandbox::User=root download "$1" >&2)
            }
            deb=$(find "$cache" -maxdepth 1 -name "$1_*.deb" | sort -V | tail -1)
        fi
        echo "$deb"
    }
    # The meta package names the kernel of today.
    kernel=$(find "$cache" -maxdepth 1 -name 'linux-image-[0-9]*-cloud-amd64_*.deb' -printf '%f\n' | sort -V | tail -1 | cut -d_ -f1)
    [ -n "$kernel" ] || kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1)
    [ -n "$kernel" ] || kernel=linux-image-cloud-amd64
    kernel_deb=$(fetch "$kernel")
    busybox_deb=$(fetch busybox-static)

    dpkg-deb --fsys-tarfile "$kernel_deb" | tar -xO --wildcards './boot/vmlinuz-*' >"$work/vmlinuz"

    root=$work/root
    mkdir -p "$root"/{bin,dev,etc,proc,sys,run,tmp,mnt,lib/modules}
    dpkg-deb --fsys-tarfile "$busybox_deb" | tar -xO ./bin/busybox >"$root/bin/busybox"
    chmod 755 "$root/bin/busybox"
    # Flat: the init script loads them in the order it needs.
    for module in virtio/virtio virtio/virtio_ring virtio/virtio_pci_modern_dev virtio/virtio_pci_legacy_dev virtio/virtio_pci \
        block/virtio_blk char/virtio_console net/net_failover net/virtio_net acpi/button input/evdev \
        misc/pvpanic/pvpanic misc/pvpanic/pvpanic-mmio; do
        dpkg-deb --fsys-tarfile "$kernel_deb" | tar -xO --wildcards "./lib/modules/*/kernel/drivers/$module.ko" >"$root/lib/modules/${module##*/}.ko"
    done
    for module in net/core/failover fs/fat/fat fs/fat/vfat fs/nls/nls_cp437 fs/nls/nls_ascii; do
        dpkg-deb --fsys-tarfile "$kernel_deb" | tar -xO --wildcards "./lib/modules/*/kernel/$module.ko" >"$root/lib/modules/${module##*/}.ko"
    done
    install -m 755 "$here/tiny-guest/init" "$root/init"
    install -m 755 "$here/tiny-guest/agent" "$root/bin/tiny-agent"
    install -m 755 "$here/tiny-guest/udhcpc" "$root/bin/tiny-udhcpc"

    # One date, one owner, one order: the same packages give the same bytes.
    find "$root" -exec touch -hd @1700000000 {} +
    (cd "$root" && find . | LC_ALL=C sort | "$root/bin/busybox" cpio -o -H newc -R 0:0 2>/dev/null) | gzip -n1 >"$work/initrd"
    rm -rf "$root"
    touch "$work/done"
fi
install -m 644 "$cache/tiny-$stamp/vmlinuz" "$cache/tiny-$stamp/initrd" "$out/"
