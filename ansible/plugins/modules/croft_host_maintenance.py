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
  - V(restored) ends it, and waits until what ran before runs again.
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
    description: How many seconds it may take. A drain goes on after that.
    type: int
    default: 1800
  reason:
    description: Why, in words that tenants read too.
    type: str
  expect:
    description: The RV(preview) of an earlier run; the drain is refused where it would be another one by now.
    type: dict
"""

EXAMPLES = r"""
- name: Empty h1
  croft.fleet.croft_host_maintenance:
    name: h1
    state: drained
    timeout: 900
    reason: new kernel
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

import json
import os
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.croft.fleet.plugins.module_utils import cli

LOOK_EVERY = 2


def phase_of(host):
    """NONE, DRAINING or DRAINED."""
    said = host.get("maintenance") or {}
    phase = said.get("phase") if isinstance(said, dict) else said
    return "NONE" if not phase or phase.endswith("UNSPECIFIED") else phase


class Maintenance:
    def __init__(self, module, croft):
        self.params, self.folder, self.croft = module.params, module.tmpdir, croft
        self.name = module.params["name"]

    def host(self):
        return self.croft.get("host", "get", self.name)

    def preview(self):
        return self.croft.call("host", "drain", self.name, "--preview")

    def drain(self):
        arguments = ["--reason", self.params["reason"]] if self.params["reason"] else []
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            if self.params["expect"] is not None:
                path = os.path.join(folder, "plan.json")
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(self.params["expect"], file)
                arguments += ["--expect", path]
            self.croft.call("host", "drain", self.name, *arguments)

    def restore(self):
        self.croft.call("host", "undrain", self.name, "--wait", "--timeout", "%ds" % self.params["timeout"])

    def wait_until_drained(self):
        """Also for a drain that somebody else began. What is left is what the preview says by now."""
        deadline = time.monotonic() + self.params["timeout"]
        while time.monotonic() < deadline:
            if phase_of(self.host() or {}) == "DRAINED":
                return None
            time.sleep(LOOK_EVERY)
        return self.preview()


def main():
    module = AnsibleModule(
        argument_spec=dict(
            cli.CONNECTION,
            name=dict(type="str", required=True),
            state=dict(type="str", choices=["previewed", "drained", "restored"], required=True),
            timeout=dict(type="int", default=1800),
            reason=dict(type="str"),
            expect=dict(type="dict"),
        ),
        supports_check_mode=True,
    )
    name, state = module.params["name"], module.params["state"]
    work = Maintenance(module, cli.of_module(module))
    answer = dict(changed=False)
    try:
        host = work.host()
        if host is None:
            module.fail_json(msg="the plane knows no host %s" % name)
        answer["maintenance"] = now = phase_of(host)
        if state != "restored":
            answer["preview"] = work.preview()
        answer["changed"] = (state == "drained" and now != "DRAINED") or (state == "restored" and now != "NONE")
        if answer["changed"] and not module.check_mode:
            if state == "restored":
                work.restore()
            else:
                if now == "NONE":
                    work.drain()
                left = work.wait_until_drained()
                if left is not None:
                    module.fail_json(msg="%s is not drained after %d s; it goes on" % (name, module.params["timeout"]), preview=left)
    except cli.Refused as refused:
        cli.fail(module, refused)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
