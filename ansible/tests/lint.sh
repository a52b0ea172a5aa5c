#!/bin/sh
# Everything that can be said of the collection without a machine: yamllint, ansible-lint, shellcheck, syntax, unit tests and
# `ansible-test sanity`, in an environment of its own (environment.sh). Needs python3 with venv, and shellcheck.
#
#   tests/lint.sh             all of it
#   tests/lint.sh --no-sanity without `ansible-test sanity`, which makes an environment for each of its tests
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
programs=$("$root/tests/environment.sh")
cache=$(dirname "$(dirname "$programs")")
PATH=$programs:$PATH
export PATH

# A copy below the names that Ansible looks for: ansible-test takes no link.
copy=$cache/collections/ansible_collections/croft/fleet
rm -rf "$copy"
mkdir -p "$copy"
cp -R "$root/." "$copy/"
export ANSIBLE_COLLECTIONS_PATH="$cache/collections"
cd "$copy"

step() { echo "ansible: $*"; }

step yamllint
yamllint --strict .
step shellcheck
find . -name '*.sh' -exec shellcheck {} +
shellcheck roles/kernel/files/initramfs-hook roles/kernel/files/initramfs-script
step ansible-lint
ansible-lint --profile production --offline
step syntax
for playbook in playbooks/*.yml; do
    ansible-playbook --syntax-check --inventory localhost, "$playbook" > "$cache/syntax.log" 2>&1 || { cat "$cache/syntax.log"; exit 1; }
done
step 'unit tests'
python3 -m pytest --quiet -p no:cacheprovider tests/unit
if [ "${1:-}" != --no-sanity ]; then
    step 'ansible-test sanity'
    # It would download a script that installs pip from a host of its own. The pip that Python brings does, and comes from nowhere.
    # Named after the version that this ansible-core asks for (see requirements.txt).
    bootstrap=$HOME/.ansible/test/cache/get_pip_24_2.py
    if [ ! -e "$bootstrap" ]; then
        mkdir -p "$(dirname "$bootstrap")"
        printf 'import ensurepip\n\nensurepip.bootstrap()\n' > "$bootstrap"
    fi
    ansible-test sanity --python "$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')" --color no
fi
step 'all is well'
