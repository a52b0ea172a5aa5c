#!/usr/bin/python
# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: croft_quota
short_description: Limits of a tenant of a Croft control plane
version_added: 0.1.0
description:
  - Sets and clears a tenant's limits.
  - Devices are denied until a limit of the tenant itself covers them; a limit above 0 is the grant of a pool.
author: The Croft authors (@croft)
extends_documentation_fragment: croft.fleet.connection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  tenant:
    description: The tenant's id.
    type: str
    required: true
  limits:
    description:
      - Resource and limit, for example C(vcpus), C(memory_mib), C(gpus/h100_sxm_80gb), C(devices/nic-vf).
      - A whole number; for memory and disk also a size such as C(64GiB). An empty value clears the limit, and what has none is
        unlimited at this tenant (of devices, nothing is granted then).
    type: dict
    required: true
  exclusive:
    description: Clears every limit that O(limits) does not name.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: What acme may use
  croft.fleet.croft_quota:
    tenant: acme
    limits:
      vcpus: 64
      memory_mib: 512GiB
      gpus/h100_sxm_80gb: 2
      devices/nic-vf: 8
    exclusive: true
  delegate_to: localhost
"""

RETURN = r"""
limits:
  description: Every limit of the tenant, after the change; in check mode, as it would be.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.croft.fleet.plugins.module_utils import cli
from ansible_collections.croft.fleet.plugins.module_utils.limits import Wrong, limit_of


def limits_of(quotas):
    """Resource and limit, without those that have none. 64-bit numbers are strings in proto JSON."""
    named = ((quota["name"].split("/quotas/", 1)[1], quota.get("limit")) for quota in quotas)
    return dict((resource, int(limit)) for resource, limit in named if limit is not None)


def plan(live, wanted, exclusive):
    """Resource and limit (None: cleared) of everything that is spoken of."""
    spoken = dict(wanted)
    if exclusive:
        spoken.update((resource, None) for resource in live if resource not in wanted)
    return spoken


def main():
    module = AnsibleModule(
        argument_spec=dict(
            cli.CONNECTION,
            tenant=dict(type="str", required=True),
            limits=dict(type="dict", required=True),
            exclusive=dict(type="bool", default=False),
        ),
        supports_check_mode=True,
    )
    tenant = module.params["tenant"]
    try:
        wanted = dict((resource, limit_of(resource, said)) for resource, said in module.params["limits"].items())
    except Wrong as wrong:
        module.fail_json(msg="limits: %s" % wrong)
    croft = cli.of_module(module)
    try:
        listed = (croft.get if module.check_mode else croft.call)("--tenant", tenant, "quota", "list")
        live = limits_of((listed or {}).get("quotas", []))
        spoken = plan(live, wanted, module.params["exclusive"])
        name = "tenants/%s/quotas/%s"
        documents = [dict(kind="Quota", name=name % (tenant, resource), limit=limit) for resource, limit in sorted(spoken.items())]
        results = cli.bring(module, croft, documents) if documents else []
    except cli.Refused as refused:
        cli.fail(module, refused)
    after = dict((resource, limit) for resource, limit in dict(live, **spoken).items() if limit is not None)
    changed = any(result["result"] != "unchanged" for result in results)
    module.exit_json(changed=changed, limits=after, diff=dict(before=live, after=after))


if __name__ == "__main__":
    main()
