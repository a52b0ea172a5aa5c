#!/bin/sh
# Who holds a GPU open, one a line: by what they hold, not by their names. A guest has /dev/vfio/N, a program of the data-centre
# driver /dev/nvidiaN. nvidia-persistenced holds them for nobody, and ends when it is asked to.
for fd in /proc/[0-9]*/fd/*; do
    case $(readlink "$fd" 2> /dev/null) in
        /dev/vfio/[0-9]* | /dev/vfio/devices/* | /dev/nvidia[0-9]*)
            pid=${fd#/proc/}
            pid=${pid%%/*}
            name=$(cat "/proc/$pid/comm" 2> /dev/null) || continue
            [ "$name" = nvidia-persiste ] || echo "$name (pid $pid)"
            ;;
    esac
done | sort -u
