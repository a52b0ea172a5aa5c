#!/bin/sh
# Croft put this here (vendor-data of the seed). cloud-init runs it at every boot; it installs what makes this machine a node
# of its cluster, and starts it. There is no secret in it.
set -eu
root=${CROFT_ROOT:-}
lib=$root/var/lib/croft-join
unit=$root/etc/systemd/system/croft-join.service
changed=no

# put FILE: what comes in, whole or not at all.
put() {
    cat >"$1.new"
    if [ -f "$1" ] && [ "$(cat "$1")" = "$(cat "$1.new")" ]; then
        rm "$1.new"
    else
        mv "$1.new" "$1"
        changed=yes
    fi
}

command -v systemctl >/dev/null || { echo 'croft-join: this image has no systemd: it cannot join' >&2; exit 1; }
mkdir -p "$lib" "${unit%/*}"
put "$lib/run.sh" <<'@RUN-END@'
@RUN@
@RUN-END@
put "$lib/recipe.sh" <<'@RECIPE-END@'
@RECIPE@
@RECIPE-END@
put "$unit" <<'@UNIT-END@'
@UNIT@
@UNIT-END@
[ "$changed" = no ] || systemctl daemon-reload
systemctl enable --quiet croft-join.service
# It begins when cloud-init is done: this must not wait for that.
systemctl start --no-block croft-join.service
