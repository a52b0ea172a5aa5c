# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""What may stand for a limit: a whole number, for memory and disk a size, nothing for unlimited."""

from __future__ import annotations

import re

IN_MIB = {"MiB": 1, "GiB": 1 << 10, "TiB": 1 << 20}


class Wrong(Exception):
    pass


def limit_of(resource, said):
    """In the resource's own unit; None: unlimited."""
    if said is None or said == "":
        return None
    unit = resource.rsplit("/", 1)[-1]
    size = re.match(r"^(\d+)(MiB|GiB|TiB)$", str(said))
    if size and unit in ("memory_mib", "gpu_memory_mib", "disk_gib"):
        mib = int(size.group(1)) * IN_MIB[size.group(2)]
        if unit != "disk_gib":
            return mib
        if mib % 1024:
            raise Wrong("%s: %s is no whole number of GiB" % (resource, said))
        return mib // 1024
    if isinstance(said, bool) or not re.match(r"^\d+$", str(said)):
        raise Wrong("%s: %s is no whole number%s" % (resource, said, ", and no size that fits it" if size else ""))
    return int(said)
