#!/bin/sh
# Who manages interfaces here, one a line: networkd, NetworkManager, ifupdown; and `iface NAME` for each that ifupdown has.
systemctl --quiet is-active systemd-networkd && echo networkd
systemctl --quiet is-active NetworkManager && echo NetworkManager
command -v ifup > /dev/null && [ -f /etc/network/interfaces ] && echo ifupdown
cat /etc/network/interfaces /etc/network/interfaces.d/* 2> /dev/null |
    sed -n 's/^[[:space:]]*iface[[:space:]]\{1,\}\([^[:space:]]\{1,\}\).*/iface \1/p'
exit 0
