#!/bin/sh
# Croft put this here (vendor-data of the seed). croft-join.service runs it at every boot.
#
# A machine that has its certificate is left alone. One that has not, because this is its first boot or because it lost power too
# early, gets what the seed says: read from the seed's disk into memory, given to the recipe, and forgotten once the kubelet has
# a certificate of its own. Nothing of it is written to a disk.
set -eu
root=${CROFT_ROOT:-}
lib=$root/var/lib/croft-join
CROFT_RUN_DIR=$root/run/croft-join
CROFT_CA_FILE=$CROFT_RUN_DIR/ca.crt
export CROFT_RUN_DIR CROFT_CA_FILE
# Of the kubelet, from its start to its certificate; then what the seed says is read again, for it may have changed.
patience=${CROFT_JOIN_PATIENCE:-180}
umask 077

say() { echo "croft-join: $*"; }

recipe() { sh "$lib/recipe.sh" "$1"; }

forget() {
    recipe forget || say 'the recipe could not forget all that it was told'
    rm -rf "$CROFT_RUN_DIR"
}

# The seed's disk, whatever it is called here.
seed_disk() {
    for label in CIDATA cidata; do
        disk=$root/dev/disk/by-label/$label
        if [ -e "$disk" ]; then
            echo "$disk"
            return
        fi
        disk=$(blkid -t "LABEL=$label" -o device 2>/dev/null | head -n 1) || continue
        if [ -n "$disk" ]; then
            echo "$disk"
            return
        fi
    done
    return 1
}

# Fails when the seed has no ticket (any more).
read_seed() {
    mkdir -p "$CROFT_RUN_DIR/seed"
    chmod 0700 "$CROFT_RUN_DIR"
    from=$(seed_disk) || return 1
    # It may have been replaced since somebody read it: not from the cache.
    blockdev --flushbufs "$from" 2>/dev/null || true
    mount -t vfat -o ro,nodev,nosuid,noexec "$from" "$CROFT_RUN_DIR/seed" || return 1
    found=yes
    cp "$CROFT_RUN_DIR/seed/croft-join.env" "$CROFT_RUN_DIR/ticket" 2>/dev/null || found=no
    cp "$CROFT_RUN_DIR/seed/croft-join-ca.crt" "$CROFT_CA_FILE" 2>/dev/null || found=no
    umount "$CROFT_RUN_DIR/seed"
    [ "$found" = yes ]
}

if recipe joined; then
    forget
    exit 0
fi
if ! read_seed; then
    say 'no certificate, and the seed holds no token: waiting for the control plane to put one there'
    # What an earlier one left is good for nothing.
    forget
    until read_seed; do sleep 30; done
fi
set -a
# shellcheck disable=SC1091 # made by the plane
. "$CROFT_RUN_DIR/ticket"
set +a
rm "$CROFT_RUN_DIR/ticket"

say "joining as $CROFT_NODE_NAME"
recipe join
waited=0
until recipe joined; do
    if [ "$waited" -ge "$patience" ]; then
        say "no certificate for $CROFT_NODE_NAME after $waited s; trying again"
        recipe why || true
        exit 1
    fi
    sleep 2
    waited=$((waited + 2))
done
forget
say "$CROFT_NODE_NAME has its certificate"
