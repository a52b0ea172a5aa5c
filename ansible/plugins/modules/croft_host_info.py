#!/usr/bin/python
# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: croft_host_info
short_description: Hosts of a Croft control plane
version_added: 0.1.0
description: Reads one host, or all. Changes nothing.
author: The Croft authors (@croft)
extends_documentation_fragment: croft.fleet.connection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  name:
    description: The host's id. Without it, all hosts.
    type: str
"""

EXAMPLES = r"""
- name: Wait until the plane says READY
  croft.fleet.croft_host_info:
    name: h1
  delegate_to: localhost
  register: answer
  until: answer.hosts and answer.hosts[0].state == 'READY'
  retries: 30
  delay: 2
"""

RETURN = r"""
hosts:
  description: The hosts, as C(croft host get -o json) shows them. Empty where the plane knows no such host.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.croft.fleet.plugins.module_utils import cli


def main():
    module = AnsibleModule(argument_spec=dict(cli.CONNECTION, name=dict(type="str")), supports_check_mode=True)
    croft = cli.of_module(module)
    try:
        if module.params["name"]:
            host = croft.get("host", "get", module.params["name"])
            hosts = [] if host is None else [host]
        else:
            hosts = croft.call("host", "list").get("hosts", [])
    except cli.Refused as refused:
        cli.fail(module, refused)
    module.exit_json(changed=False, hosts=hosts)


if __name__ == "__main__":
    main()
