# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""Which plane, and as whom: the options that every module shares."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  executable:
    description: The C(croft) command, by name or path, on the machine where the module runs.
    type: str
    default: croft
  server:
    description: The plane, as C(HOST:PORT). Without it the environment or the context of the command counts.
    type: str
  ca_file:
    description: The plane's CA certificate, on the machine where the module runs.
    type: path
  token_file:
    description: A file with an API token, on the machine where the module runs. The token itself is never an option.
    type: path
  context:
    description: A context of the C(croft) command in the place of O(server), O(ca_file) and O(token_file).
    type: str
requirements:
  - the C(croft) command (package C(croft))
notes:
  - Runs wherever the command and the token are, which is most often the controller, so with C(delegate_to=localhost).
attributes:
  check_mode:
    description: Runs the plane's own checks and changes nothing.
  diff_mode:
    description: Says what is, and what will be.
"""
