#!/bin/bash
# guest.sh KUBELET OUT: what boots as a Kubernetes node, made of Debian's packages and that kubelet, into the new directory OUT.
#
#   OUT/root.qcow2            ext4 without partitions, labelled `root`; it grows to whatever disk it is given
#   OUT/{vmlinuz,initrd.img}  its kernel, booted directly: console=ttyS0 root=LABEL=root rw net.ifnames=0
#   OUT/facts                 versions, sizes and seconds, one a line
#
# In it: systemd, cloud-init as Debian configures it (seeds by NoCloud), containerd, the bridge plugin of CNI, the guest agent,
# OpenSSH, and a kubelet whose unit is as its own package has it: disabled, without arguments. A join brings those. Images that
# pods may run lie in it (`localhost/busybox:1`, and the pause of every pod) and are imported as it boots: pull nothing.
# Needs root and: mmdebstrap e2fsprogs qemu-utils zstd debian-archive-keyring. Uses no loop device, mounts nothing of the image.
# OUT appears only when all of it is whole; `cargo xtask kubernetes` keeps it in a cache.
#
# Options (environment): SUITE=trixie MIRROR= (empty: mmdebstrap's own default, with security updates) SIZE=3G
set -euo pipefail

[ $# = 2 ] || { echo "usage: guest.sh KUBELET OUT" >&2; exit 2; }
KUBELET=$(readlink -f "$1")
OUT=$2
SUITE=${SUITE:-trixie}
MIRROR=${MIRROR:-}
SIZE=${SIZE:-3G}
here=$(dirname "$(readlink -f "$0")")

[ "$(id -u)" = 0 ] || { echo "guest.sh: needs root: it unpacks packages as their owners" >&2; exit 1; }
[ ! -e "$OUT" ] || { echo "guest.sh: $OUT is there already" >&2; exit 1; }
mkdir -p "$(dirname "$OUT")"
WORK=$(mktemp -d "$OUT.making.XXXXXX") # beside OUT, so that the end is a rename
trap 'rm -rf --one-file-system "$WORK"' EXIT
ROOT=$WORK/root
NEW=$WORK/out
mkdir "$NEW"

# fact WORD…: a line of OUT/facts, also told.
fact() { echo "$*" | tee -a "$NEW/facts"; }

# Runs a command with its output in a file, which is shown only when it fails.
quietly() {
    local log=$WORK/$1.log
    shift
    "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; echo "guest.sh: failed: $*" >&2; exit 1; }
}

in_root() { chroot "$ROOT" /usr/bin/env -i PATH=/usr/sbin:/usr/bin LC_ALL=C.UTF-8 "$@"; }

unpack_packages() {
    local include=systemd,systemd-sysv,systemd-resolved,dbus,udev,kmod,libnss-myhostname,iproute2,zstd,ca-certificates
    include+=,openssh-server,python3-minimal,cloud-init,cloud-guest-utils,qemu-guest-agent
    include+=,containerd,runc,containernetworking-plugins,iptables,conntrack,e2fsprogs
    include+=,linux-image-cloud-amd64,busybox-static,catatonit
    # A small initramfs, made once: what the disk needs, and not every driver there is.
    echo 'MODULES=list' >"$WORK/initramfs.conf"
    printf 'virtio_pci\nvirtio_blk\nvirtio_scsi\nsd_mod\next4\n' >"$WORK/initramfs.modules"
    # shellcheck disable=SC2016 # the hooks are mmdebstrap's to expand
    quietly packages mmdebstrap --mode=root --variant=minbase --include="$include" \
        --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
        --essential-hook="copy-in '$WORK/initramfs.conf' /etc/initramfs-tools/conf.d" \
        --essential-hook="cp '$WORK/initramfs.modules' \"\$1/etc/initramfs-tools/modules\"" \
        "$SUITE" "$ROOT" ${MIRROR:+"$MIRROR"}
}

configure() {
    install -m 755 "$KUBELET" "$ROOT/usr/bin/kubelet"
    (cd "$here/guest" && find . -type f) | while read -r file; do
        install -D -m 644 -o root -g root "$here/guest/$file" "$ROOT/$file"
    done
    mkdir -p "$ROOT/etc/kubernetes/manifests"
    # Each guest makes its own identity.
    : >"$ROOT/etc/machine-id"
    rm -f "$ROOT"/etc/ssh/ssh_host_*_key*
    # mmdebstrap copies the builder's resolv.conf and host name. Pods get this very file, so not the one that names a resolver
    # on the node's own loopback.
    ln -sf ../run/systemd/resolve/resolv.conf "$ROOT/etc/resolv.conf"
    echo node >"$ROOT/etc/hostname"
    echo 'LABEL=root / ext4 errors=remount-ro 0 1' >"$ROOT/etc/fstab"
    quietly enable in_root systemctl enable systemd-networkd ssh containerd import-images
    # Nothing waits for a network that leads nowhere, and nothing runs by the calendar in a machine that lives minutes.
    quietly mask in_root systemctl mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer \
        dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
    # Otherwise the first boot runs ldconfig and its like once more.
    in_root touch /etc/.updated /var/.updated
    # shellcheck disable=SC2016 # dpkg-query's to expand
    in_root dpkg-query -W -f '${Package} ${Version}\n' systemd cloud-init containerd linux-image-cloud-amd64 >>"$NEW/facts"
}

# catatonit -P is what a pause is: it waits for a signal and reaps what others leave behind.
make_images() {
    local images=$ROOT/var/lib/images
    mkdir -p "$images" "$WORK/pause" "$WORK/busybox/bin" "$WORK/busybox/tmp"
    cp "$ROOT/usr/bin/catatonit" "$WORK/pause/pause"
    cp "$ROOT/usr/bin/busybox" "$WORK/busybox/bin/busybox"
    in_root busybox --list | grep -vx busybox | while read -r applet; do ln -sf busybox "$WORK/busybox/bin/$applet"; done
    "$here/oci.sh" "$WORK/pause" localhost/pause:1 '{"Entrypoint":["/pause","-P"]}' "$images/pause.tar"
    "$here/oci.sh" "$WORK/busybox" localhost/busybox:1 '{"Cmd":["sh"],"Env":["PATH=/bin"]}' "$images/busybox.tar"
}

make_disk() {
    rm -rf "$ROOT"/var/cache/apt/* "$ROOT"/var/lib/apt/lists/*
    cp "$ROOT"/boot/vmlinuz-* "$NEW/vmlinuz"
    cp "$ROOT"/boot/initrd.img-* "$NEW/initrd.img"
    truncate -s "$SIZE" "$WORK/disk.raw"
    # mke2fs fills the file system from the directory.
    quietly mke2fs mke2fs -q -t ext4 -L root -d "$ROOT" -E lazy_itable_init=1 "$WORK/disk.raw"
    quietly convert qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd "$WORK/disk.raw" "$NEW/root.qcow2"
}

unpack_packages
fact "packages of Debian $SUITE: $(du -sm "$ROOT" | cut -f1) MiB, $SECONDS s"
configure
make_images
make_disk
fact "root.qcow2: $(($(stat -c %s "$NEW/root.qcow2") / 1048576)) MiB"
fact "all of it: $SECONDS s"
mv "$NEW" "$OUT"
