#!/bin/bash
# in-root.sh ROOT COMMAND…: runs COMMAND in a Debian system that lies in the directory ROOT, and ends with it all that it started.
#
# There is no network but a loopback of its own, and no service manager. Options (environment):
#   CROFT_ROOT_ARCHIVES=DIR   its /var/cache/apt/archives; there is a network then, and packages are fetched into it
#   CROFT_ROOT_SHOW=DIR       what it sees as /mnt
# Needs root, util-linux and iproute2. Nothing is mounted outside.
set -euo pipefail

if [ "${CROFT_IN_ROOT:-}" != 1 ]; then
    [ $# -gt 1 ] || { echo "usage: $0 ROOT COMMAND…" >&2; exit 2; }
    export CROFT_IN_ROOT=1
    if [ -n "${CROFT_ROOT_ARCHIVES:-}" ]; then network=(); else network=(--net); fi
    exec unshare --mount --pid --fork --kill-child "${network[@]}" "$(readlink -f "$0")" "$@"
fi

root=$1
shift
[ -e "$root/etc/debian_version" ] || { echo "in-root.sh: $root holds no Debian system" >&2; exit 2; }
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s /proc/self/fd "$root/dev/fd"
if [ -n "${CROFT_ROOT_SHOW:-}" ]; then
    mount --bind "$CROFT_ROOT_SHOW" "$root/mnt"
fi
if [ -n "${CROFT_ROOT_ARCHIVES:-}" ]; then
    mount --bind "$CROFT_ROOT_ARCHIVES" "$root/var/cache/apt/archives"
    for file in /etc/resolv.conf /etc/hosts; do
        touch "$root$file"
        mount --bind "$file" "$root$file"
    done
else
    ip link set lo up
fi
# Process 1 gets no signal that it does not ask for.
trap 'exit 143' TERM INT
chroot "$root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive "$@" &
wait $!
