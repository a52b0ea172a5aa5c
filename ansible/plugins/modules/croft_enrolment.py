#!/usr/bin/python
# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: croft_enrolment
short_description: A one-time token with which exactly one host may enrol
version_added: 0.1.0
description:
  - Asks the plane for an enrolment token. Each run makes a new one, so ask first whether the host needs it.
  - The result holds the token. Always use it with C(no_log).
author: The Croft authors (@croft)
extends_documentation_fragment: croft.fleet.connection
attributes:
  check_mode:
    details: No token is made.
    support: partial
  diff_mode:
    support: none
options:
  name:
    description: The host's id.
    type: str
    required: true
  ttl:
    description: For how long the token is good, as C(croft) writes times.
    type: str
    default: 15m
"""

EXAMPLES = r"""
- name: A token for h1
  croft.fleet.croft_enrolment:
    name: h1
  delegate_to: localhost
  register: enrolment
  no_log: true
"""

RETURN = r"""
token:
  description: The token, good for one enrolment.
  returned: when not in check mode
  type: str
ca:
  description: The plane's CA certificate (PEM), the only one that the agent will trust.
  returned: when not in check mode
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.croft.fleet.plugins.module_utils import cli


def main():
    module = AnsibleModule(
        argument_spec=dict(cli.CONNECTION, name=dict(type="str", required=True), ttl=dict(type="str", default="15m")),
        supports_check_mode=True,
    )
    croft = cli.of_module(module)
    if module.check_mode:
        module.exit_json(changed=True)
    try:
        made = croft.call("host", "enrol-token", module.params["name"], "--ttl", module.params["ttl"])
    except cli.Refused as refused:
        cli.fail(module, refused)
    module.exit_json(changed=True, token=made["token"], ca=made["caPem"])


if __name__ == "__main__":
    main()
