#!/bin/bash
# oci.sh TREE NAME:TAG CONFIG OUT.tar: an OCI image of one layer, the directory TREE, as `ctr images import` takes it.
#
# CONFIG is the image's "config" in JSON: {"Entrypoint":["/pause"]}. Needs tar and coreutils, no container tool. The same
# tree gives the same bytes.
set -euo pipefail

[ $# = 4 ] || { echo "usage: oci.sh TREE NAME:TAG CONFIG OUT.tar" >&2; exit 2; }
tree=$1 name=$2 config=$3 out=$4
work=$(mktemp -d "${TMPDIR:-/var/tmp}/croft-oci.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/blobs/sha256"
type=application/vnd.oci.image

archive() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=pax --pax-option=delete=atime,delete=ctime "$@"; }

# blob MEDIA-TYPE: takes what comes in for a blob and prints its descriptor, still open.
blob() {
    local digest
    cat >"$work/blob"
    digest=$(sha256sum "$work/blob" | cut -c1-64)
    printf '{"mediaType":"%s.%s","digest":"sha256:%s","size":%s' "$type" "$1" "$digest" "$(stat -c %s "$work/blob")"
    mv "$work/blob" "$work/blobs/sha256/$digest"
}

layer=$(archive -C "$tree" -cf - . | blob layer.v1.tar)
diff=${layer#*\"digest\":\"}
diff=${diff%%\"*}
about=$(printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
    "$(dpkg --print-architecture)" "$config" "$diff" | blob config.v1+json)
manifest=$(printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":%s},"layers":[%s}]}' "$type" "$about" "$layer" |
    blob manifest.v1+json)
printf '{"schemaVersion":2,"manifests":[%s,"annotations":{"io.containerd.image.name":"%s"}}]}' "$manifest" "$name" >"$work/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/oci-layout"
archive -C "$work" -cf "$out" oci-layout index.json blobs
