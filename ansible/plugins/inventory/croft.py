# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""Hosts of a Croft control plane as an inventory: the plane knows which machines there are, and what is in them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: croft
short_description: Hosts of a Croft control plane
version_added: 0.1.0
author: The Croft authors (@croft)
description:
  - Reads the hosts that have enrolled, their labels and devices, through the C(croft) command.
  - Every host is in C(croft_hosts) and in groups for its state, driver flavour, GPU models and labels.
  - C(ansible_host) is the annotation C(ansible.croft.dev/host), which the role hostagent writes.
  - The file must be called C(croft.yml) or C(croft.yaml), or end in C(.croft.yml) or C(.croft.yaml).
extends_documentation_fragment:
  - ansible.builtin.constructed
options:
  plugin:
    description: Says that the file is for this plugin.
    required: true
    choices: [croft.fleet.croft]
  executable:
    description: The C(croft) command, by name or path.
    default: croft
  server:
    description: The plane, as C(HOST:PORT).
    env: [{name: CROFT_SERVER}]
  ca_file:
    description: The plane's CA certificate.
    type: path
    env: [{name: CROFT_CA_FILE}]
  token_file:
    description: A file with an API token. The token itself is never an option.
    type: path
  context:
    description: A context of the C(croft) command, in the place of the three above.
    env: [{name: CROFT_CONTEXT}]
"""

EXAMPLES = r"""
# fleet.croft.yml: groups croft_hosts, state_ready, flavour_vgpu, gpu_h100_sxm_80gb, label_rack_7, …
plugin: croft.fleet.croft
server: plane.example.org:7443
ca_file: credentials/ca.pem
token_file: credentials/admin.token
keyed_groups:
  - key: croft_labels.rack
    prefix: rack
"""

import os
import subprocess

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable
from ansible_collections.croft.fleet.plugins.module_utils import cli

ADDRESS = "ansible.croft.dev/host"
SUFFIXES = ("croft.yml", "croft.yaml")


def run(argv, given, stdin):
    done = subprocess.run(argv, env=dict(os.environ, **given), input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def short(name):
    return name.split("/", 1)[1] if "/" in name else name


def models(gpus):
    """Host and the models of its GPUs, each once."""
    found = {}
    for gpu in gpus:
        model = (gpu.get("gpu") or {}).get("model")
        if model:
            found.setdefault(gpu["name"].split("/")[1], set()).add(model)
    return dict((host, sorted(names)) for host, names in found.items())


def variables(host, gpu_models):
    metadata, info = host.get("metadata") or {}, host.get("info") or {}
    said = dict(
        croft_state=host.get("state"),
        croft_cordoned=bool(host.get("cordoned")),
        croft_labels=metadata.get("labels") or {},
        croft_annotations=metadata.get("annotations") or {},
        croft_flavour=info.get("driverFlavour") or "",
        croft_agent_version=info.get("agentVersion") or "",
        croft_gpu_models=gpu_models,
    )
    if said["croft_annotations"].get(ADDRESS):
        said["ansible_host"] = said["croft_annotations"][ADDRESS]
    return said


def groups(said):
    names = ["croft_hosts", "state_" + (said["croft_state"] or "unknown").lower()]
    if said["croft_flavour"]:
        names.append("flavour_" + said["croft_flavour"])
    names += ["gpu_" + model for model in said["croft_gpu_models"]]
    return names + ["label_%s_%s" % pair for pair in sorted(said["croft_labels"].items())]


class InventoryModule(BaseInventoryPlugin, Constructable):
    NAME = "croft.fleet.croft"

    def verify_file(self, path):
        name = path.rsplit("/", 1)[-1]
        fits = name in SUFFIXES or name.endswith(tuple("." + suffix for suffix in SUFFIXES))
        return super().verify_file(path) and fits

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        names = ("executable", "server", "ca_file", "token_file", "context")
        try:
            croft = cli.Cli(run, dict((name, self.get_option(name)) for name in names))
            hosts = croft.call("host", "list").get("hosts", [])
            of_host = models(croft.call("gpu", "list").get("devices", []))
        except (OSError, cli.Refused) as error:
            raise AnsibleParserError("%s: %s" % (path, error)) from error
        for host in hosts:
            name = short(host["name"])
            self.add(name, variables(host, of_host.get(name, [])))

    def add(self, name, said):
        self.inventory.add_host(name)
        for key, value in said.items():
            self.inventory.set_variable(name, key, value)
        for group in groups(said):
            self.inventory.add_child(self.inventory.add_group(self._sanitize_group_name(group)), name)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), said, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), said, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), said, name, strict=strict)
