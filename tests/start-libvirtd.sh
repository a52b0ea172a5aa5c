#!/bin/sh
# Starts virtlogd and libvirtd inside the bubble of with-libvirtd.sh, where they do not run, and waits until they answer.
set -eu
[ "${CROFT_LIBVIRT_TEST:-}" = 1 ] || { echo "$0: only inside with-libvirtd.sh" >&2; exit 2; }

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

# A daemon that was killed leaves its pid file, and a number may be somebody else's by now: these two are ours alone.
alive /run/libvirt/virtlogd.pid || { rm -f /run/libvirt/virtlogd.pid; virtlogd -d --pid-file /run/libvirt/virtlogd.pid; }
alive "$CROFT_LIBVIRTD_PIDFILE" || { rm -f "$CROFT_LIBVIRTD_PIDFILE"; libvirtd -d --pid-file "$CROFT_LIBVIRTD_PIDFILE"; }

i=0
until virsh -q -c qemu:///system version >/dev/null 2>&1; do
    i=$((i + 1))
    [ $i -lt 600 ] || { virsh -c qemu:///system version >&2 || true; echo "$0: libvirtd did not come up in 120 s" >&2; exit 1; }
    sleep 0.2
done
