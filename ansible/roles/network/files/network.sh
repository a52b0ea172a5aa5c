#!/bin/sh
# Managed by the role croft.fleet.network: brings the machine's bridges to what was laid out, and takes that back by itself.
#
#   network.sh differs MANAGER                 is what counts other than what was laid out? (exit code 0: yes)
#   network.sh change MANAGER SECONDS BRIDGE…  change it; undone after so many seconds, unless somebody says `keep`
#   network.sh keep                            it holds
#   network.sh restore                         undo it now (what the timer runs)
#
# The change runs in a unit of its own, so that losing the connection that asked for it does not stop it halfway.
set -eu

state=/var/lib/croft/network
self=$state/network.sh
before=$state/before
timer=croft-network-restore

directory() {
    case $1 in
        networkd) echo /etc/systemd/network ;;
        ifupdown) echo /etc/network/interfaces.d ;;
    esac
}

# Our files and nobody else's, by their names below the directory.
ours() {
    (cd "$1" 2> /dev/null && find . -type f \( -name '05-croft-*' -o -path './*.d/croft.conf' -o -path ./croft \) | sort)
}

# Cuts what was laid out into files below $2.
cut_into() {
    awk -v root="$2" '
        /^#> / { file = root "/" substr($0, 4); dir = file; sub("/[^/]*$", "", dir); system("mkdir -p \"" dir "\""); printf "" > file; next }
        file { print > file }' "$state/$1"
}

# Copies our files of $1 to $2, and removes those that $1 lacks.
replace() {
    mkdir -p "$2"
    ours "$2" | while read -r file; do
        rm -f "$2/$file"
        # A directory of drop-ins that held nothing else.
        case $file in ./*/*) rmdir "$2/${file%/*}" 2> /dev/null || true ;; esac
    done
    ours "$1" | while read -r file; do
        mkdir -p "$2/$(dirname "$file")"
        cp "$1/$file" "$2/$file"
    done
}

differs() {
    wanted=$(mktemp -d)
    trap 'rm -rf "$wanted"' EXIT
    cut_into "$1" "$wanted"
    live=$(directory "$1")
    [ "$(ours "$wanted")" = "$(ours "$live")" ] || return 0
    for file in $(ours "$wanted"); do
        cmp -s "$wanted/$file" "$live/$file" || return 0
    done
    return 1
}

# Makes what the files say true, for these bridges.
reload() {
    manager=$1
    shift
    case $manager in
        networkd)
            networkctl reload
            # A port's new master, or its old address, counts only when it is gone through again.
            for link in /sys/class/net/*; do
                networkctl reconfigure "${link##*/}" 2> /dev/null || true
            done
            ;;
        ifupdown)
            # A bridge that is there stays: taking it down would cut the guests on it.
            for bridge; do
                [ -d "/sys/class/net/$bridge" ] || ifup "$bridge" || true
            done
            ;;
    esac
}

change() {
    manager=$1 seconds=$2
    shift 2
    systemctl stop "$timer.timer" 2> /dev/null || true
    # One that undoes something right now comes to its end first.
    while systemctl --quiet is-active "$timer.service"; do sleep 1; done
    # An older copy is the truth still, if a change before this one was never kept.
    if [ ! -e "$before/pending" ]; then
        rm -rf "$before"
        mkdir -p "$before/files"
        replace "$(directory "$manager")" "$before/files"
        : > "$before/new"
        for bridge; do
            [ -d "/sys/class/net/$bridge" ] || echo "$bridge" >> "$before/new"
        done
        echo "$manager" > "$before/pending"
    fi
    systemd-run --quiet --collect --on-active="$seconds" --unit="$timer" "$self" restore
    systemd-run --quiet --collect --unit=croft-network-change "$self" go "$manager" "$@"
}

go() {
    manager=$1
    shift
    wanted=$(mktemp -d)
    trap 'rm -rf "$wanted"' EXIT
    cut_into "$manager" "$wanted"
    replace "$wanted" "$(directory "$manager")"
    reload "$manager" "$@"
}

restore() {
    [ -e "$before/pending" ] || exit 0
    manager=$(cat "$before/pending")
    replace "$before/files" "$(directory "$manager")"
    while read -r bridge; do
        ip link delete "$bridge" 2> /dev/null || true
    done < "$before/new"
    reload "$manager"
    rm -rf "$before"
    touch "$state/restored"
}

keep() {
    systemctl stop "$timer.timer" 2> /dev/null || true
    rm -rf "$before" "$state/restored"
}

verb=${1:?differs, change, keep or restore}
shift
case $verb in
    differs | change | go | keep | restore) "$verb" "$@" ;;
    *) echo "network.sh: no verb $verb" >&2; exit 2 ;;
esac
