#!/bin/sh
# Croft's recipe `kubeadm`: an image with kubeadm (1.31 or later), a kubelet as kubeadm wants it, and a container runtime.
set -eu
umask 022
root=${CROFT_ROOT:-}
etc=$root/etc/kubernetes
certificate=$root/var/lib/kubelet/pki/kubelet-client-current.pem

# The kubelet has its own certificate, and it is good: it needs no token.
joined() {
    [ -s "$etc/kubelet.conf" ] && [ -s "$certificate" ] || return 1
    command -v openssl >/dev/null || return 0
    openssl x509 -checkend 0 -noout -in "$certificate" >/dev/null 2>&1
}

# `a=b:NoSchedule,c:NoExecute` as a list in YAML. Everything is quoted: `y` and 1e3 are words here.
taints() {
    echo "$CROFT_TAINTS" | tr ',' '\n' | while IFS=: read -r taint effect; do
        key=${taint%%=*}
        value=
        [ "$key" = "$taint" ] || value=${taint#*=}
        printf '%s\n' "  - {key: \"$key\", value: \"$value\", effect: \"$effect\"}"
    done
}

# Where the cluster says nothing, what the image or kubeadm says stays.
dns() {
    [ -z "$CROFT_CLUSTER_DNS" ] || printf 'clusterDNS: ["%s"]\n' "$(echo "$CROFT_CLUSTER_DNS" | sed 's/,/", "/g')"
}

# In memory, all of it: kubeadm copies what it needs.
write() {
    umask 077
    mkdir -p "$CROFT_RUN_DIR/patches"
    cat >"$CROFT_RUN_DIR/discovery.conf" <<-EOF
	apiVersion: v1
	kind: Config
	current-context: croft
	clusters:
	- name: croft
	  cluster: {server: "$CROFT_SERVER", certificate-authority-data: "$(base64 <"$CROFT_CA_FILE" | tr -d '\n')"}
	users:
	- name: croft
	contexts:
	- name: croft
	  context: {cluster: croft, user: croft}
	EOF
    cat >"$CROFT_RUN_DIR/patches/kubeletconfiguration+merge.yaml" <<-EOF
	providerID: "$CROFT_PROVIDER_ID"
	serverTLSBootstrap: true
	rotateCertificates: true
	$(dns)
	EOF
    cat >"$CROFT_RUN_DIR/join.yaml" <<-EOF
	apiVersion: kubeadm.k8s.io/v1beta4
	kind: JoinConfiguration
	discovery:
	  file: {kubeConfigPath: "${CROFT_RUN_DIR#"$root"}/discovery.conf"}
	  tlsBootstrapToken: "$CROFT_TOKEN"
	patches: {directory: "${CROFT_RUN_DIR#"$root"}/patches"}
	nodeRegistration:
	  name: "$CROFT_NODE_NAME"
	  kubeletExtraArgs:
	  - {name: node-labels, value: "$CROFT_LABELS"}
	  taints:
	$(taints)
	EOF
}

join() {
    command -v kubeadm >/dev/null || { echo 'croft-join: this image has no kubeadm' >&2; exit 1; }
    write
    # What is left of a try that was cut short would be refused by its name.
    systemctl stop kubelet.service || true
    rm -f "$etc/kubelet.conf" "$etc/bootstrap-kubelet.conf" "$etc/pki/ca.crt"
    # Returns when the kubelet has its certificate.
    kubeadm join --config "${CROFT_RUN_DIR#"$root"}/join.yaml"
    systemctl enable --quiet kubelet.service
}

case $1 in
    joined) joined ;;
    join) join ;;
    forget) rm -f "$etc/bootstrap-kubelet.conf" ;;
    why) journalctl --no-pager --output=cat --lines=5 --unit=kubelet.service ;;
esac
