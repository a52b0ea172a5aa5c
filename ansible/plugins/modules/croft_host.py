#!/usr/bin/python
# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: croft_host
short_description: What a Croft control plane notes of a host
version_added: 0.1.0
description:
  - Labels, annotations and reserve of a host that has enrolled; V(absent) makes the plane forget it.
  - Hosts come by enrolment (see M(croft.fleet.croft_enrolment)), never by this module.
author: The Croft authors (@croft)
extends_documentation_fragment: croft.fleet.connection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  name:
    description: The host's id.
    type: str
    required: true
  state:
    description: V(absent) forgets a host without instances, and its certificate is refused from then on.
    type: str
    choices: [present, absent]
    default: present
  labels:
    description: Labels to set; others stay. An empty value takes one away.
    type: dict
    default: {}
  annotations:
    description: Annotations to set; others stay. An empty value takes one away.
    type: dict
    default: {}
  reserve_vcpus:
    description: vCPUs that stay free.
    type: int
  reserve_memory_mib:
    description: Memory that stays free, in MiB.
    type: int
  reserve_disk_gib:
    description: Disk that stays free, in GiB.
    type: int
"""

EXAMPLES = r"""
- name: The host stands in rack 7
  croft.fleet.croft_host:
    name: h1
    labels:
      rack: "7"
    reserve_memory_mib: 8192
  delegate_to: localhost
"""

RETURN = r"""
host:
  description: The host as the plane shows it; in check mode, as it is.
  returned: when it is present
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.croft.fleet.plugins.module_utils import cli

RESERVE = (("reserve_vcpus", "vcpus", "", "--reserve-vcpus"),
           ("reserve_memory_mib", "memoryMib", "MiB", "--reserve-memory"),
           ("reserve_disk_gib", "diskGib", "GiB", "--reserve-disk"))


def edits(option, live, wanted):
    """`--label KEY=VALUE` and `--label KEY-` for what differs."""
    arguments = []
    for key, value in sorted(wanted.items()):
        if value in (None, "") and key in live:
            arguments += [option, key + "-"]
        elif value not in (None, "") and live.get(key) != str(value):
            arguments += [option, "%s=%s" % (key, value)]
    return arguments


def merged(live, wanted):
    whole = dict(live, **dict((key, str(value)) for key, value in wanted.items() if value not in (None, "")))
    return dict((key, value) for key, value in whole.items() if wanted.get(key, value) not in (None, ""))


def sides(live, params):
    """What is and what will be, and the arguments that lead from one to the other."""
    metadata = live.get("metadata") or {}
    before, after, arguments = {}, {}, []
    for field, option in (("labels", "--label"), ("annotations", "--annotation")):
        has = metadata.get(field) or {}
        before[field], after[field] = has, merged(has, params[field])
        arguments += edits(option, has, params[field])
    reserve = live.get("reserve") or {}
    for parameter, field, unit, option in RESERVE:
        before[parameter] = after[parameter] = int(reserve.get(field) or 0)
        if params[parameter] is not None and params[parameter] != before[parameter]:
            after[parameter] = params[parameter]
            arguments += [option, "%d%s" % (params[parameter], unit)]
    return before, after, arguments


def main():
    module = AnsibleModule(
        argument_spec=dict(
            cli.CONNECTION,
            name=dict(type="str", required=True),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            labels=dict(type="dict", default={}),
            annotations=dict(type="dict", default={}),
            reserve_vcpus=dict(type="int"),
            reserve_memory_mib=dict(type="int"),
            reserve_disk_gib=dict(type="int"),
        ),
        supports_check_mode=True,
    )
    name = module.params["name"]
    dry = ["--dry-run"] if module.check_mode else []
    croft = cli.of_module(module)
    try:
        live = croft.get("host", "get", name)
        if module.params["state"] == "absent":
            if live is not None:
                croft.call("host", "delete", name, *dry)
            module.exit_json(changed=live is not None, diff=dict(before={"host": name} if live else {}, after={}))
        if live is None:
            module.fail_json(msg="the plane knows no host %s; the role hostagent enrols it" % name)
        before, after, arguments = sides(live, module.params)
        if arguments:
            changed = croft.call("host", "update", name, *(arguments + dry))
            live = live if module.check_mode else changed
    except cli.Refused as refused:
        cli.fail(module, refused)
    module.exit_json(changed=bool(arguments), host=live, diff=dict(before=before, after=after))


if __name__ == "__main__":
    main()
