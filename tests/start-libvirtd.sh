#!/bin/sh
# Starts virtlogd and libvirtd inside the bubble of with-libvirtd.sh, where they do not run, and waits until they answer.
set -eu
[ "${CROFT_LIBVIRT_TEST:-}" = 1 ] || { echo "$0: only inside with-libvirtd.sh" >&2; exit 2; }

# A daemon that was killed leaves its pid file, and a number may be somebody else's by now: these two are ours alone.
runs() {
    pid=$(cat "$2" 2>/dev/null) && kill -0 "$pid" 2>/dev/null && return
    rm -f "$2"
    "$1" -d --pid-file "$2"
}

# Asked again at each turn: one that was killed a moment ago is still there when we first look.
i=0
until runs virtlogd /run/libvirt/virtlogd.pid && runs libvirtd "$CROFT_LIBVIRTD_PIDFILE" &&
    virsh -q -c qemu:///system version >/dev/null 2>&1; do
    i=$((i + 1))
    [ $i -lt 600 ] || { virsh -c qemu:///system version >&2 || true; echo "$0: libvirtd did not come up in 120 s" >&2; exit 1; }
    sleep 0.2
done
