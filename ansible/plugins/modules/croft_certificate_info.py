#!/usr/bin/python
# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: croft_certificate_info
short_description: Whose certificate a host agent has, and until when
version_added: 0.1.0
description:
  - Reads a certificate on the managed machine with Python alone, so that a bare machine needs no openssl. Changes nothing.
author: The Croft authors (@croft)
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Reads only.
    support: none
options:
  path:
    description: The certificate, PEM.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Who is this machine to the plane?
  croft.fleet.croft_certificate_info:
    path: /var/lib/croft/hostagent/agent.pem
  register: identity
"""

RETURN = r"""
exists:
  description: Whether there is such a file.
  returned: always
  type: bool
common_name:
  description: The host's id in it; empty where it names none.
  returned: when it exists
  type: str
expired:
  description: Whether its time is over by this machine's clock.
  returned: when it exists
  type: bool
not_after:
  description: When its time is over, as in the certificate.
  returned: when it exists
  type: str
"""

import os
import ssl
import time

from ansible.module_utils.basic import AnsibleModule


def decoded(path):
    # CPython's own decoder; not in its documentation, and there unchanged since 2.6.
    return ssl._ssl._test_decode_cert(path)  # pylint: disable=protected-access


def common_name(certificate):
    names = [value for pairs in certificate.get("subject", ()) for key, value in pairs if key == "commonName"]
    return names[0] if names else ""


def main():
    module = AnsibleModule(argument_spec=dict(path=dict(type="path", required=True)), supports_check_mode=True)
    path = module.params["path"]
    if not os.path.exists(path):
        module.exit_json(changed=False, exists=False)
    try:
        certificate = decoded(path)
    except (OSError, ssl.SSLError) as error:
        module.fail_json(msg="%s cannot be read as a certificate: %s" % (path, error))
    end = certificate["notAfter"]
    module.exit_json(
        changed=False, exists=True, common_name=common_name(certificate), not_after=end,
        expired=ssl.cert_time_to_seconds(end) <= time.time(),
    )


if __name__ == "__main__":
    main()
