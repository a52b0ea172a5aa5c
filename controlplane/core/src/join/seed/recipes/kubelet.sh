#!/bin/sh
# Croft's recipe `kubelet`: an image with a kubelet and a container runtime, and nothing that configures the kubelet.
#
# What the image says of its kubelet stays (/var/lib/kubelet/config.yaml or /etc/kubernetes/kubelet.yaml, and KUBELET_EXTRA_ARGS in
# /etc/default/kubelet); the join is a drop-in beside it. The token lies in memory only.
set -eu
umask 022
root=${CROFT_ROOT:-}
kubeconfig=/var/lib/kubelet/kubeconfig
pki=/var/lib/kubelet/pki
certificate=$pki/kubelet-client-current.pem
ca=/etc/kubernetes/pki/ca.crt
dropins=/etc/kubernetes/kubelet.conf.d
changed=no

# put FILE [MODE]: what comes in, whole or not at all.
put() {
    mkdir -p "$root${1%/*}"
    cat >"$root$1.croft-new"
    chmod "${2:-0644}" "$root$1.croft-new"
    if [ -f "$root$1" ] && [ "$(cat "$root$1")" = "$(cat "$root$1.croft-new")" ]; then
        rm "$root$1.croft-new"
    else
        mv "$root$1.croft-new" "$root$1"
        changed=yes
    fi
}

# The kubelet has its own certificate, and it is good: it needs no token.
joined() {
    [ -s "$root$kubeconfig" ] && [ -s "$root$certificate" ] || return 1
    command -v openssl >/dev/null || return 0
    openssl x509 -checkend 0 -noout -in "$root$certificate" >/dev/null 2>&1
}

# The image's own settings, or ours where it has none.
settings() {
    for file in /var/lib/kubelet/config.yaml /etc/kubernetes/kubelet.yaml; do
        if [ -s "$root$file" ]; then
            echo "$file"
            return
        fi
    done
    put /etc/kubernetes/kubelet.yaml <<-EOF
	apiVersion: kubelet.config.k8s.io/v1beta1
	kind: KubeletConfiguration
	cgroupDriver: systemd
	clusterDomain: cluster.local
	EOF
    echo /etc/kubernetes/kubelet.yaml
}

# `a=b:NoSchedule,c:NoExecute` as a list in YAML. Everything is quoted: `y` and 1e3 are words here.
taints() {
    echo "$CROFT_TAINTS" | tr ',' '\n' | while IFS=: read -r taint effect; do
        key=${taint%%=*}
        value=
        [ "$key" = "$taint" ] || value=${taint#*=}
        printf '%s\n' "- {key: \"$key\", value: \"$value\", effect: \"$effect\"}"
    done
}

# Where the cluster says nothing, what the image or kubeadm says stays.
dns() {
    [ -z "$CROFT_CLUSTER_DNS" ] || printf 'clusterDNS: ["%s"]\n' "$(echo "$CROFT_CLUSTER_DNS" | sed 's/,/", "/g')"
}

write_settings() {
    put "$ca" <"$CROFT_CA_FILE"
    put "$dropins/50-croft.conf" <<-EOF
	apiVersion: kubelet.config.k8s.io/v1beta1
	kind: KubeletConfiguration
	providerID: "$CROFT_PROVIDER_ID"
	authentication:
	  anonymous: {enabled: false}
	  webhook: {enabled: true}
	  x509: {clientCAFile: $ca}
	authorization: {mode: Webhook}
	serverTLSBootstrap: true
	rotateCertificates: true
	$(dns)
	registerWithTaints:
	$(taints)
	EOF
}

write_token() {
    put "${CROFT_RUN_DIR#"$root"}/bootstrap-kubeconfig" 0600 <<-EOF
	apiVersion: v1
	kind: Config
	current-context: croft
	clusters:
	- name: croft
	  cluster: {server: "$CROFT_SERVER", certificate-authority: "$ca"}
	users:
	- name: croft
	  user: {token: "$CROFT_TOKEN"}
	contexts:
	- name: croft
	  context: {cluster: croft, user: croft}
	EOF
}

write_unit() {
    found=no
    for folder in /etc/systemd/system /usr/local/lib/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
        if [ -e "$root$folder/kubelet.service" ]; then found=yes; fi
    done
    if [ "$found" = no ]; then
        put /etc/systemd/system/kubelet.service <<-EOF
	[Unit]
	Description=kubelet: the agent of Kubernetes on this node
	Wants=network-online.target
	After=network-online.target containerd.service crio.service
	StartLimitIntervalSec=0

	[Service]
	Restart=always
	RestartSec=10

	[Install]
	WantedBy=multi-user.target
	EOF
    fi
    put /etc/systemd/system/kubelet.service.d/50-croft.conf <<-EOF
	[Service]
	EnvironmentFile=-/etc/default/kubelet
	ExecStart=
	ExecStart=$kubelet --config=$settings --config-dir=$dropins --bootstrap-kubeconfig=${CROFT_RUN_DIR#"$root"}/bootstrap-kubeconfig --kubeconfig=$kubeconfig --cert-dir=$pki --hostname-override=$CROFT_NODE_NAME --node-labels=$CROFT_LABELS \$KUBELET_EXTRA_ARGS
	EOF
}

join() {
    kubelet=$(command -v kubelet) || { echo 'croft-join: this image has no kubelet' >&2; exit 1; }
    settings=$(settings)
    write_settings
    write_token
    write_unit
    systemctl daemon-reload
    systemctl enable --quiet kubelet.service
    # Each start of a kubelet makes another key and another request: one that is under way is left alone.
    if [ "$changed" = yes ] || ! systemctl --quiet is-active kubelet.service; then
        systemctl restart --no-block kubelet.service
    fi
}

case $1 in
    joined) joined ;;
    join) join ;;
    forget) rm -f "$CROFT_RUN_DIR/bootstrap-kubeconfig" ;;
    why) journalctl --no-pager --output=cat --lines=5 --unit=kubelet.service ;;
esac
