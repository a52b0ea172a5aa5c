#!/bin/sh
# Ansible and what the collection is tested with, of exactly the versions of requirements.txt: prints the directory of the programs.
# Made once, below ~/.cache/croft/ansible (CROFT_CACHE names another ~/.cache/croft), and not touched after that. Needs python3 with venv.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${CROFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/croft}/ansible
digest=$(sha256sum "$root/requirements.txt" | cut -c1-12)
venv=$cache/venv-$digest

if [ ! -e "$venv/made" ]; then
    rm -rf "$venv"
    mkdir -p "$cache"
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$root/requirements.txt" >&2
    touch "$venv/made"
fi
echo "$venv/bin"
