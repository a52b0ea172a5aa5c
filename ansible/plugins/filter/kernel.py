# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""Kernel command lines: what is missing of what is wanted, and what stands against it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kernel
short_description: What a kernel command line lacks
version_added: 0.1.0
author: The Croft authors (@croft)
description:
  - Compares a kernel command line with wanted words and with words that must not be there.
  - Works on the words as the kernel reads them, in whole words, and with groups whose order counts (huge pages).
options:
  _input:
    description: The command line.
    type: str
    required: true
  wanted:
    description: Words, or several words in one string where they must stand together.
    type: list
    elements: str
    required: true
  unwanted:
    description: Shell patterns of words that must not be there; a wanted word is never unwanted.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Why a reboot is needed
  ansible.builtin.debug:
    msg: "{{ '/proc/cmdline' | croft.fleet.kernel(['iommu=pt'], ['intel_iommu=off*']) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each difference; empty where the command line is as it should be.
  type: list
  elements: str
"""

from fnmatch import fnmatchcase


def kernel(line, wanted, unwanted=()):
    words = line.split()
    padded = " %s " % " ".join(words)
    reasons = ["%s is missing" % group for group in wanted if " %s " % group not in padded]
    ours = set(word for group in wanted for word in group.split())
    against = [word for word in words if word not in ours and any(fnmatchcase(word, one) for one in unwanted)]
    return reasons + ["%s stands against it" % word for word in against]


class FilterModule:
    """The filters of this file."""

    def filters(self):
        return {"kernel": kernel}
