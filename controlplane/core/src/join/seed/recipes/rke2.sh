#!/bin/sh
# Croft's recipe `rke2`: an image with rke2's program, which becomes an agent.
#
# rke2 signs kubelets' certificates itself, for whoever has a token: see docs/kubernetes.md before a cluster is shared.
set -eu
umask 022
root=${CROFT_ROOT:-}
config=/etc/rancher/rke2/config.yaml.d/50-croft.yaml
certificate=/var/lib/rancher/rke2/agent/client-kubelet.crt
changed=no

# put FILE: what comes in, whole or not at all.
put() {
    mkdir -p "$root${1%/*}"
    cat >"$root$1.croft-new"
    if [ -f "$root$1" ] && [ "$(cat "$root$1")" = "$(cat "$root$1.croft-new")" ]; then
        rm "$root$1.croft-new"
    else
        mv "$root$1.croft-new" "$root$1"
        changed=yes
    fi
}

# The agent has its own certificate, and it is good: it needs no token.
joined() {
    [ -s "$root$certificate" ] || return 1
    command -v openssl >/dev/null || return 0
    openssl x509 -checkend 0 -noout -in "$root$certificate" >/dev/null 2>&1
}

# `a,b` as a list in YAML.
list() {
    [ -n "$1" ] || { echo '[]'; return; }
    printf '["%s"]\n' "$(echo "$1" | sed 's/,/", "/g')"
}

# RKE2 is joined at its supervisor's port; `https://api.example:6443` is the API server's.
supervisor() {
    host=${CROFT_SERVER#https://}
    host=${host%%/*}
    case $host in
        *]:* | *[!]:]*:*[!]]) host=${host%:*} ;;
    esac
    echo "https://$host:9345"
}

write_settings() {
    put "$config" <<-EOF
	server: "$(supervisor)"
	node-name: "$CROFT_NODE_NAME"
	node-label: $(list "$CROFT_LABELS")
	node-taint: $(list "$CROFT_TAINTS")
	kubelet-arg: ["provider-id=$CROFT_PROVIDER_ID"]
	EOF
}

# Only the path of the token is told to the agent, and only until it has a certificate: it asks for none afterwards. The hash pins
# the CA that the server must show.
write_token() {
    run=${CROFT_RUN_DIR#"$root"}
    hash=$(sha256sum <"$CROFT_CA_FILE")
    put "$run/token" <<-EOF
	K10${hash%% *}::$CROFT_TOKEN
	EOF
    put "$run/rke2.env" <<-EOF
	RKE2_TOKEN_FILE=$run/token
	EOF
}

write_unit() {
    found=no
    for folder in /etc/systemd/system /usr/local/lib/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
        if [ -e "$root$folder/rke2-agent.service" ]; then found=yes; fi
    done
    if [ "$found" = no ]; then
        put /etc/systemd/system/rke2-agent.service <<-EOF
	[Unit]
	Description=rke2, as an agent
	Wants=network-online.target
	After=network-online.target
	StartLimitIntervalSec=0

	[Service]
	Type=notify
	ExecStartPre=-/sbin/modprobe br_netfilter
	ExecStartPre=-/sbin/modprobe overlay
	ExecStart=$program agent
	KillMode=process
	Delegate=yes
	LimitNOFILE=1048576
	TasksMax=infinity
	TimeoutStartSec=0
	Restart=always
	RestartSec=5s

	[Install]
	WantedBy=multi-user.target
	EOF
    fi
    put /etc/systemd/system/rke2-agent.service.d/50-croft.conf <<-EOF
	[Service]
	EnvironmentFile=-${CROFT_RUN_DIR#"$root"}/rke2.env
	EOF
}

join() {
    program=$(command -v rke2) || { echo 'croft-join: this image has no rke2' >&2; exit 1; }
    write_settings
    write_token
    write_unit
    systemctl daemon-reload
    systemctl enable --quiet rke2-agent.service
    if [ "$changed" = yes ] || ! systemctl --quiet is-active rke2-agent.service; then
        systemctl restart --no-block rke2-agent.service
    fi
}

case $1 in
    joined) joined ;;
    join) join ;;
    forget) rm -f "$CROFT_RUN_DIR/token" "$CROFT_RUN_DIR/rke2.env" ;;
    why) journalctl --no-pager --output=cat --lines=5 --unit=rke2-agent.service ;;
esac
