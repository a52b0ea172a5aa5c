# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""When a running kernel will do."""

from __future__ import annotations

import pytest
from ansible_collections.croft.fleet.plugins.filter.kernel import kernel

WANTED = ["intel_iommu=on", "iommu=pt", "hugepagesz=1G hugepages=16"]
UNWANTED = ["intel_iommu=off*", "intel_iommu=*,off*", "iommu=off*", "hugepages=*"]
GOOD = "BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro intel_iommu=on iommu=pt hugepagesz=1G hugepages=16 quiet"


def test_what_is_as_it_should_be_needs_no_reboot():
    assert not kernel(GOOD, WANTED, UNWANTED)


@pytest.mark.parametrize("line, said", [
    (GOOD.replace(" iommu=pt", ""), ["iommu=pt is missing"]),
    # Whole words: neither a longer word nor a part of one.
    (GOOD.replace(" iommu=pt", " xiommu=pt"), ["iommu=pt is missing"]),
    (GOOD.replace("hugepages=16", "hugepages=160"), ["hugepagesz=1G hugepages=16 is missing", "hugepages=160 stands against it"]),
    # hugepages= counts in the size before it, so the two stand together or not at all.
    (GOOD.replace("hugepagesz=1G hugepages=16", "hugepages=16 hugepagesz=1G"), ["hugepagesz=1G hugepages=16 is missing"]),
    (GOOD + " intel_iommu=off", ["intel_iommu=off stands against it"]),
    (GOOD + " intel_iommu=sm_on,off", ["intel_iommu=sm_on,off stands against it"]),
    (GOOD + " iommu=off", ["iommu=off stands against it"]),
])
def test_each_difference_is_named(line, said):
    assert kernel(line, WANTED, UNWANTED) == said
