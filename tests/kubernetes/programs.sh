#!/bin/bash
# programs.sh VERSION OUT PROGRAM…: Kubernetes' own programs, built from the module k8s.io/kubernetes into the directory OUT.
#
#   programs.sh v1.36.3 bin kube-apiserver kubelet     # names are folders of k8s.io/kubernetes/cmd
#
# Nothing is cloned and no release is downloaded: sources come through Go's module proxy and are held against Go's checksum
# database. Needs Go 1.21 or newer (one that the release is too new for fetches its successor the same way), some 4 GiB for
# Go's caches and, on two cores, four minutes and more; with warm caches a quarter of a minute a program.
# OUT/facts says what was made and how long it took.
set -euo pipefail

[ $# -ge 3 ] || { echo "usage: programs.sh vX.Y.Z OUT PROGRAM…" >&2; exit 2; }
version=$1 out=$2
shift 2
[[ $version =~ ^v1\.([0-9]+)\.([0-9]+)$ ]] || { echo "programs.sh: $version is no version like v1.36.3" >&2; exit 2; }
minor=${BASH_REMATCH[1]}
staging=v0.$minor.${BASH_REMATCH[2]} # k8s.io/api and its like carry v0.X.Y for v1.X.Y

# Where Go's own installer puts it, which is on no PATH by itself.
command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
# The caller's own way of building Go is for other projects.
unset GOFLAGS
export GOWORK=off CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-auto}

mkdir -p "$out"
out=$(readlink -f "$out")
module=$(mktemp -d "$out/module.XXXXXX")
trap 'rm -rf "$module"' EXIT
cd "$module"

# The module's go.mod replaces its staging modules by ./staging/src/…, which a module does not contain. Each is published on
# its own; their names are taken from there.
download=$(go mod download -json "k8s.io/kubernetes@$version") || {
    printf 'programs.sh: cannot get k8s.io/kubernetes@%s:\n%s\n' "$version" "$download" >&2
    exit 1
}
upstream=$(sed -n 's/^[[:space:]]*"GoMod": "\(.*\)",*$/\1/p' <<<"$download")
{
    echo "module croft.dev/kubernetes-programs"
    sed -n '/^go /p' "$upstream"
    echo "require k8s.io/kubernetes $version"
    sed -n 's,^[[:space:]]*\(k8s\.io/[^ ]*\) => \./staging/.*$,\1,p; s,^[[:space:]]*\(k8s\.io/[^ ]*\) v0\.0\.0\([[:space:]].*\)*$,\1,p' "$upstream" |
        sort -u | sed "s,.*,replace & => & $staging,"
} >go.mod
{
    printf '//go:build tools\n\npackage tools\n\n'
    for program; do echo "import _ \"k8s.io/kubernetes/cmd/$program\""; done
} >tools.go
go mod tidy
echo "go $(go env GOVERSION)" >"$out/facts"
echo "modules $SECONDS s" >>"$out/facts"

# Without these it calls itself v0.0.0-master and no client knows what it speaks to.
about=k8s.io/component-base/version
flags="-s -w -X $about.gitVersion=$version -X $about.gitMajor=1 -X $about.gitMinor=$minor -X $about.gitTreeState=clean"
for program; do
    began=$SECONDS
    go build -trimpath -ldflags "$flags" -o "$out/$program" "k8s.io/kubernetes/cmd/$program"
    echo "$program $((SECONDS - began)) s, $(($(stat -c %s "$out/$program") / 1048576)) MiB" >>"$out/facts"
    tail -n 1 "$out/facts"
done
