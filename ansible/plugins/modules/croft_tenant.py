#!/usr/bin/python
# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: croft_tenant
short_description: Tenants of a Croft control plane
version_added: 0.1.0
description:
  - Makes, changes and deletes tenants.
  - A tenant's parent is for ever; another one is refused.
author: The Croft authors (@croft)
extends_documentation_fragment: croft.fleet.connection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  name:
    description: The tenant's id, 1 to 40 of a-z, 0-9 and -, beginning with a letter.
    type: str
    required: true
  state:
    description: V(absent) deletes a tenant that has no children, instances or images, and is refused for others.
    type: str
    choices: [present, absent]
    default: present
  parent:
    description: The tenant above it.
    type: str
  display_name:
    description: A name for people.
    type: str
  labels:
    description: All labels. Not given, they stay as they are.
    type: dict
  annotations:
    description: All annotations. Not given, they stay as they are.
    type: dict
"""

EXAMPLES = r"""
- name: A tenant for research, below acme
  croft.fleet.croft_tenant:
    name: acme-research
    parent: acme
    display_name: Acme Research
    labels:
      tier: gold
  delegate_to: localhost
"""

RETURN = r"""
tenant:
  description: The tenant as the plane shows it; in check mode, as it would be.
  returned: when it is present
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.croft.fleet.plugins.module_utils import cli

FIELDS = ("parent", "displayName")


def document(params):
    made = {"kind": "Tenant", "name": "tenants/" + params["name"]}
    if params["parent"] is not None:
        made["parent"] = "tenants/" + params["parent"]
    if params["display_name"] is not None:
        made["displayName"] = params["display_name"]
    made.update(cli.metadata(params))
    return made


def present(module, croft, live):
    wanted = document(module.params)
    did = cli.bring(module, croft, [wanted])[0]
    changed = did["result"] != "unchanged"
    after = cli.overlay(live or {}, wanted)
    after.pop("kind")
    if changed and not module.check_mode:
        after = croft.call("tenant", "get", module.params["name"])
    diff = dict(before=cli.shown(live or {}, FIELDS), after=cli.shown(after, FIELDS))
    module.exit_json(changed=changed, tenant=after, diff=diff)


def absent(module, croft, live):
    if live is not None:
        dry = ["--dry-run"] if module.check_mode else []
        croft.call("tenant", "delete", module.params["name"], *dry)
    diff = dict(before=cli.shown(live or {}, FIELDS), after={})
    module.exit_json(changed=live is not None, diff=diff)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            cli.CONNECTION,
            name=dict(type="str", required=True),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            parent=dict(type="str"),
            display_name=dict(type="str"),
            labels=dict(type="dict"),
            annotations=dict(type="dict"),
        ),
        supports_check_mode=True,
    )
    croft = cli.of_module(module)
    try:
        live = croft.get("tenant", "get", module.params["name"])
        (present if module.params["state"] == "present" else absent)(module, croft, live)
    except cli.Refused as refused:
        cli.fail(module, refused)


if __name__ == "__main__":
    main()
