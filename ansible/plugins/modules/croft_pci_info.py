#!/usr/bin/python
# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: croft_pci_info
short_description: What PCI devices are, and whether the machine lives on them
version_added: 0.1.0
description: Reads C(/sys) and C(/proc) of the managed machine. Changes nothing.
author: The Croft authors (@croft)
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Reads only.
    support: none
options:
  addresses:
    description: PCI addresses with their domain. Without it, all devices.
    type: list
    elements: str
  root:
    description: Where the file system begins. For tests.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Who has the GPU?
  croft.fleet.croft_pci_info:
    addresses: ["0000:41:00.0"]
  register: pci
"""

RETURN = r"""
devices:
  description: >-
    For each address C(present), and where it is, C(id), C(pci_class), C(driver), C(override), C(iommu_group), C(peers) in that
    group, and C(uses), the reasons why the machine itself cannot do without it.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.croft.fleet.plugins.module_utils import pci


def main():
    module = AnsibleModule(
        argument_spec=dict(addresses=dict(type="list", elements="str"), root=dict(type="path", default="/")),
        supports_check_mode=True,
    )
    root, addresses = module.params["root"], module.params["addresses"]
    addresses = pci.all_addresses(root) if addresses is None else addresses
    module.exit_json(changed=False, devices=[pci.look(root, address) for address in addresses])


if __name__ == "__main__":
    main()
