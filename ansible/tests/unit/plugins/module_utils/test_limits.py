# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""What may stand for a limit."""

from __future__ import annotations

import pytest
from ansible_collections.croft.fleet.plugins.module_utils.limits import Wrong, limit_of


@pytest.mark.parametrize("resource, said, limit", [
    ("vcpus", 16, 16),
    ("vcpus", "16", 16),
    ("vcpus", 0, 0),
    ("memory_mib", "64GiB", 65536),
    ("memory_mib", 512, 512),
    ("gpu_memory_mib", "160GiB", 163840),
    ("disk_gib", "1TiB", 1024),
    ("disk_gib", "2048MiB", 2),
    ("gpus/h100_sxm_80gb", "2", 2),
    ("vcpus", None, None),
    ("vcpus", "", None),
])
def test_limits(resource, said, limit):
    assert limit_of(resource, said) == limit


@pytest.mark.parametrize("resource, said", [
    ("vcpus", "2GiB"), ("vcpus", "many"), ("vcpus", -1), ("vcpus", True), ("vcpus", 1.5), ("disk_gib", "1500MiB"), ("memory_mib", "64GB"),
])
def test_what_is_none_is_refused_by_name(resource, said):
    with pytest.raises(Wrong, match=resource):
        limit_of(resource, said)
