#!/bin/bash
# in-namespace.sh CMD…: runs CMD where there is no network but a loopback of its own, and ends with it all that it started.
#
# The lab host's way out leads to that loopback and no further, and the ports that the test opens are nobody else's.
# CMD sees CROFT_LAB_WORK, a directory that is removed at the end. CROFT_LAB_KEEP=DIR keeps the logs of it there.
# Needs root, util-linux and iproute2.
set -euo pipefail

if [ "${CROFT_IN_NAMESPACE:-}" != 1 ]; then
    [ $# -gt 0 ] || { echo "usage: $0 COMMAND…" >&2; exit 2; }
    CROFT_LAB_WORK=$(mktemp -d /var/tmp/croft-lab-host.XXXXXX)
    export CROFT_LAB_WORK CROFT_IN_NAMESPACE=1
    # The child of unshare is process 1 in there; --kill-child ends it, and so all of it, when unshare is ended.
    unshare --net --pid --fork --kill-child --mount-proc "$(readlink -f "$0")" "$@" &
    bubble=$!
    # unshare itself ignores the polite signals.
    trap 'kill -KILL "$bubble" 2>/dev/null || true' TERM INT HUP
    status=0
    wait "$bubble" || status=$?
    wait "$bubble" 2>/dev/null || true
    if [ -n "${CROFT_LAB_KEEP:-}" ]; then
        mkdir -p "$CROFT_LAB_KEEP"
        find "$CROFT_LAB_WORK" -name '*.log' -exec cp --backup=numbered {} "$CROFT_LAB_KEEP/" \;
    fi
    rm -rf --one-file-system "$CROFT_LAB_WORK"
    exit "$status"
fi
unset CROFT_IN_NAMESPACE
ip link set lo up
# Process 1 gets no signal that it does not ask for.
trap 'exit 143' TERM
trap 'exit 130' INT
"$@" &
wait $!
