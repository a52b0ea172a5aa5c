#!/usr/bin/python
# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: croft_pool
short_description: Pools of devices of a Croft control plane
version_added: 0.1.0
description:
  - Makes, changes and deletes pools, which are named sets of interchangeable devices.
  - What is held stays held, whatever a pool becomes.
author: The Croft authors (@croft)
extends_documentation_fragment: croft.fleet.connection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  name:
    description: The pool's id, 1 to 40 of a-z, 0-9 and -, beginning with a letter.
    type: str
    required: true
  state:
    description: V(absent) deletes a pool that no instance holds anything of.
    type: str
    choices: [present, absent]
    default: present
  kind:
    description: What kind of device. Needed where the pool is present.
    type: str
    choices: [gpu, function, virtual-function, usb]
  ids:
    description: Vendor and device, such as C(8086:10ca). Of several, one must match.
    type: list
    elements: str
    default: []
  classes:
    description: The first two to six hex digits of a PCI class, such as C(0200). Of several, one must match.
    type: list
    elements: str
    default: []
  devices:
    description: Single devices, as C(HOST/DEVICE), for example C(h1/0000:41:00.0).
    type: list
    elements: str
    default: []
  host_selector:
    description: Only on hosts with all of these labels.
    type: dict
    default: {}
  description:
    description: A word for people. Not given, it stays as it is.
    type: str
  labels:
    description: All labels. Not given, they stay as they are.
    type: dict
  annotations:
    description: All annotations. Not given, they stay as they are.
    type: dict
"""

EXAMPLES = r"""
- name: Virtual functions of the storage cards in rack 7
  croft.fleet.croft_pool:
    name: nic-vf
    kind: virtual-function
    ids: ["8086:10ca"]
    host_selector:
      rack: "7"
  delegate_to: localhost
"""

RETURN = r"""
pool:
  description: The pool as the plane shows it; in check mode, as it would be.
  returned: when it is present
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.croft.fleet.plugins.module_utils import cli

FIELDS = ("description", "match")


def device_name(short):
    """`h1/0000:41:00.0` as the API has it."""
    host, slash, device = short.partition("/")
    return "hosts/%s/devices/%s" % (host, device) if slash and not short.startswith("hosts/") else short


def document(params):
    match = dict(
        kind=params["kind"].replace("-", "_").upper(),
        ids=params["ids"],
        classes=params["classes"],
        devices=[device_name(device) for device in params["devices"]],
        hostSelector=params["host_selector"],
    )
    # What is empty is left out, as the plane shows it.
    made = {"kind": "Pool", "name": "pools/" + params["name"], "match": dict((key, said) for key, said in match.items() if said)}
    if params["description"] is not None:
        made["description"] = params["description"]
    made.update(cli.metadata(params))
    return made


def present(module, croft, live):
    wanted = document(module.params)
    did = cli.bring(module, croft, [wanted])[0]
    changed = did["result"] != "unchanged"
    after = cli.overlay(live or {}, wanted)
    after.pop("kind")
    if changed and not module.check_mode:
        after = croft.call("pool", "get", module.params["name"])
    diff = dict(before=cli.shown(live or {}, FIELDS), after=cli.shown(after, FIELDS))
    module.exit_json(changed=changed, pool=after, diff=diff)


def absent(module, croft, live):
    if live is not None:
        dry = ["--dry-run"] if module.check_mode else []
        croft.call("pool", "delete", module.params["name"], *dry)
    module.exit_json(changed=live is not None, diff=dict(before=cli.shown(live or {}, FIELDS), after={}))


def main():
    module = AnsibleModule(
        argument_spec=dict(
            cli.CONNECTION,
            name=dict(type="str", required=True),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            kind=dict(type="str", choices=["gpu", "function", "virtual-function", "usb"]),
            ids=dict(type="list", elements="str", default=[]),
            classes=dict(type="list", elements="str", default=[]),
            devices=dict(type="list", elements="str", default=[]),
            host_selector=dict(type="dict", default={}),
            description=dict(type="str"),
            labels=dict(type="dict"),
            annotations=dict(type="dict"),
        ),
        required_if=[("state", "present", ("kind",)), ("state", "present", ("ids", "classes", "devices"), True)],
        supports_check_mode=True,
    )
    croft = cli.of_module(module)
    try:
        live = croft.get("pool", "get", module.params["name"])
        (present if module.params["state"] == "present" else absent)(module, croft, live)
    except cli.Refused as refused:
        cli.fail(module, refused)


if __name__ == "__main__":
    main()
