#!/bin/bash
# with-libvirtd.sh CMD…: runs CMD beside a libvirtd and a virtlogd of its own, and takes everything down afterwards.
#
# The two daemons, CMD and every guest live in one bubble: network, mount, IPC and process namespaces of their own. So
#   - bridges, nftables tables and dnsmasq exist in there only; nothing of the machine's network is touched;
#   - /etc/libvirt, /run/libvirt, /var/{lib,log,cache}/libvirt are private copies or empty: a libvirtd that the machine
#     already runs keeps its socket, its state and its domains, and cannot be mistaken for ours;
#   - whatever is left ends with the bubble, however CMD ended: its process 1 is this script.
# Needs root, libvirt, QEMU, util-linux and iproute2; neither systemd nor KVM. Several may run side by side.
#
# CMD sees CROFT_LIBVIRT_TEST=1, and CROFT_LIBVIRTD_PIDFILE to kill the daemon with; tests/start-libvirtd.sh starts it
# again. Guests may lie below $CROFT_LAB_DIR (world-searchable, removed at the end).
# CROFT_LAB_KEEP=DIR keeps libvirt's logs there.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")

if [ "${CROFT_BUBBLE:-}" != 1 ]; then
    [ $# -gt 0 ] || { echo "usage: $0 COMMAND…" >&2; exit 2; }
    [ "$(id -u)" = 0 ] || { echo "$0: needs root for namespaces, taps and bridges" >&2; exit 77; }
    for tool in libvirtd virtlogd virsh qemu-system-x86_64 unshare ip nft dnsmasq; do
        command -v "$tool" >/dev/null || { echo "$0: $tool is missing; install the packages that README.md lists" >&2; exit 77; }
    done
    # Not inherited: a file that somebody else in another bubble could hold.
    CROFT_LAB_DIR=$(mktemp -d /var/tmp/croft-lab.XXXXXX)
    chmod 0711 "$CROFT_LAB_DIR"
    export CROFT_LAB_DIR CROFT_BUBBLE=1
    # The child of unshare is process 1 of the bubble; --kill-child ends it, and so all of it, when unshare is ended.
    unshare --net --mount --ipc --uts --pid --fork --kill-child --mount-proc "$0" "$@" &
    bubble=$!
    # unshare itself ignores the polite signals. Its child takes everything down in some seconds, or is given up.
    trap 'pkill -TERM -P "$bubble" || true; timeout 5 tail --pid="$bubble" -f /dev/null || kill -KILL "$bubble" || true' TERM INT HUP
    status=0
    wait "$bubble" || status=$?
    # A signal ends the first wait, and not the bubble.
    wait "$bubble" 2>/dev/null || true
    # What a killed guest could not take down itself: its (empty) control groups.
    if [ -s "$CROFT_LAB_DIR/cgroups" ]; then
        xargs -r rmdir -p --ignore-fail-on-non-empty <"$CROFT_LAB_DIR/cgroups" 2>/dev/null || true
    fi
    rm -rf "$CROFT_LAB_DIR"
    exit "$status"
fi
unset CROFT_BUBBLE

# The network of this namespace, as /sys shows it; control groups come along.
mkdir "$CROFT_LAB_DIR/cgroup"
mount --rbind /sys/fs/cgroup "$CROFT_LAB_DIR/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$CROFT_LAB_DIR/cgroup" /sys/fs/cgroup
umount -l "$CROFT_LAB_DIR/cgroup"
rmdir "$CROFT_LAB_DIR/cgroup"
ip link set lo up

# private DIR MODE: the directories of DIR without what lies in them.
private() {
    mkdir -p "$1" "$CROFT_LAB_DIR/private$1"
    (cd "$1" && find . -maxdepth 3 -type d -printf '%m %U %G %p\n') | while read -r mode uid gid path; do
        install -d -m "$mode" -o "$uid" -g "$gid" "$CROFT_LAB_DIR/private$1/$path"
    done
    mount --bind "$CROFT_LAB_DIR/private$1" "$1"
}
chmod 0711 "$CROFT_LAB_DIR"
for dir in /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /etc/libvirt; do private "$dir"; done
# /run is where the daemons look for each other; a tmpfs, as on any machine.
mkdir -p /run/libvirt /run/netns
mount -t tmpfs -o mode=0755 tmpfs /run/libvirt
mount -t tmpfs -o mode=0755 tmpfs /run/netns

# As udev makes it on any machine: the emulator's user may open /dev/kvm. Where only root may, libvirt finds KVM when it
# probes QEMU as root and misses it when it looks as that user, and probes again (seconds) at every call.
if [ -c /dev/kvm ] && getent group kvm >/dev/null; then
    mknod /run/libvirt/kvm c "0x$(stat -c %t /dev/kvm)" "0x$(stat -c %T /dev/kvm)"
    chgrp kvm /run/libvirt/kvm
    chmod 0660 /run/libvirt/kvm
    mount --bind /run/libvirt/kvm /dev/kvm
fi

# Every setting is the default but these: no other daemon than ours decides who may connect.
cat >/etc/libvirt/libvirtd.conf <<-CONF
	unix_sock_group = "root"
	auth_unix_ro = "none"
	auth_unix_rw = "none"
CONF
: >/etc/libvirt/virtlogd.conf
: >/etc/libvirt/qemu.conf
: >/etc/libvirt/libvirt.conf

export CROFT_LIBVIRT_TEST=1
export CROFT_LIBVIRTD_PIDFILE=/run/libvirt/libvirtd.pid

finish() {
    status=$?
    trap - EXIT
    virsh -q list --name 2>/dev/null | while read -r name; do
        [ -z "$name" ] || virsh -q destroy "$name" >/dev/null 2>&1 || true
    done
    find /sys/fs/cgroup -type d -path '*croft-*' -print 2>/dev/null | sort -r >"$CROFT_LAB_DIR/cgroups" || true
    [ -z "${CROFT_LAB_KEEP:-}" ] || { mkdir -p "$CROFT_LAB_KEEP" && cp -a /var/log/libvirt/. "$CROFT_LAB_KEEP/"; } || true
    # Process 1 ends here; the kernel ends everything else in the namespace, and with it the network.
    exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

"$here/start-libvirtd.sh"

# In the background and waited for, so that a signal to us is handled at once.
"$@" &
wait $!
