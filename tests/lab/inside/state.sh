#!/bin/bash
# state.sh: how every device of the host is set up, as text, to be compared with how it was.
for device in /sys/bus/pci/devices/*; do
    driver=$(readlink "$device/driver" || true)
    line="pci ${device##*/} driver ${driver##*/} override $(<"$device/driver_override")"
    [ ! -e "$device/sriov_numvfs" ] || line+=" functions $(<"$device/sriov_numvfs") autoprobe $(<"$device/sriov_drivers_autoprobe")"
    [ ! -e "$device/reset_method" ] || line+=" resets $(<"$device/reset_method")"
    echo "$line"
done
for device in /sys/bus/mdev/devices/*; do
    [ ! -e "$device" ] || echo "mdev ${device##*/} $(basename "$(readlink "$device/mdev_type")")"
done
for device in /sys/bus/usb/devices/*; do
    [ ! -e "$device/idVendor" ] || for interface in "$device":*; do
        driver=$(readlink "$interface/driver" || true)
        echo "usb ${interface##*/} driver ${driver##*/}"
    done
done
