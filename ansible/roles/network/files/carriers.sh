#!/bin/sh
# The interfaces by which the machine answers this client, and what they stand on, one a line. Without a client: those of the
# default route.
client=${1:-1.1.1.1}
dev=$(ip -oneline route get "$client" 2> /dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p')

below() {
    echo "$1"
    for lower in "/sys/class/net/$1"/lower_*; do
        if [ -e "$lower" ]; then below "${lower##*/lower_}"; fi
    done
}

if [ -n "$dev" ]; then below "$dev"; fi
