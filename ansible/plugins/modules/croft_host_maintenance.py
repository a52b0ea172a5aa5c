#!/usr/bin/python
# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: croft_host_maintenance
short_description: Drain a host of a Croft control plane, and end that
version_added: 0.1.0
description:
  - The one place that knows the verbs of C(croft host) for maintenance.
  - V(previewed) says what a drain would do to each instance, and changes nothing.
  - V(drained) does it, and waits until nothing runs there. Intent is never written, so instances come back afterwards.
  - V(restored) ends it, and what ran before the drain runs again.
author: The Croft authors (@croft)
extends_documentation_fragment: croft.fleet.connection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  name:
    description: The host's id.
    type: str
    required: true
  state:
    description: What should be so.
    type: str
    choices: [previewed, drained, restored]
    required: true
  timeout:
    description: How long a drain may take, as C(croft) writes times (C(90s), C(30m)).
    type: str
    default: 30m
"""

EXAMPLES = r"""
- name: Empty h1
  croft.fleet.croft_host_maintenance:
    name: h1
    state: drained
    timeout: 15m
  delegate_to: localhost
"""

RETURN = r"""
preview:
  description: What the command said of each instance.
  returned: when O(state) is not V(restored)
  type: dict
maintenance:
  description: The host's maintenance before, in the plane's word (C(NONE), C(DRAINING), C(DRAINED)).
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.croft.fleet.plugins.module_utils import cli

PREVIEW = ("--preview",)


def maintenance_of(host):
    """A word, or a message with a state: both forms of the field are read."""
    said = host.get("maintenance") or "NONE"
    if isinstance(said, dict):
        said = said.get("state") or "NONE"
    return "NONE" if said.endswith("UNSPECIFIED") else said


def main():
    module = AnsibleModule(
        argument_spec=dict(
            cli.CONNECTION,
            name=dict(type="str", required=True),
            state=dict(type="str", choices=["previewed", "drained", "restored"], required=True),
            timeout=dict(type="str", default="30m"),
        ),
        supports_check_mode=True,
    )
    name, state = module.params["name"], module.params["state"]
    croft = cli.of_module(module)
    answer = dict(changed=False)
    try:
        host = croft.get("host", "get", name)
        if host is None:
            module.fail_json(msg="the plane knows no host %s" % name)
        answer["maintenance"] = now = maintenance_of(host)
        if state != "restored":
            answer["preview"] = croft.call("host", "drain", name, *PREVIEW)
        if state == "drained" and now != "DRAINED":
            answer["changed"] = True
            if not module.check_mode:
                croft.call("host", "drain", name, "--wait", "--timeout", module.params["timeout"])
        if state == "restored" and now != "NONE":
            answer["changed"] = True
            if not module.check_mode:
                croft.call("host", "restore", name)
    except cli.Refused as refused:
        cli.fail(module, refused)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
