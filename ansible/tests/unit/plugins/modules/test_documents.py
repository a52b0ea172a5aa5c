# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""What modules ask of the command."""

from __future__ import annotations

from ansible_collections.croft.fleet.plugins.modules import croft_host, croft_host_maintenance, croft_pool, croft_quota, croft_tenant


def test_a_tenant_speaks_of_what_was_said_alone():
    params = dict(name="acme", parent=None, display_name=None, labels=None, annotations=None)
    assert croft_tenant.document(params) == dict(kind="Tenant", name="tenants/acme")
    params.update(parent="corp", display_name="Acme", labels={})
    assert croft_tenant.document(params) == dict(
        kind="Tenant", name="tenants/acme", parent="tenants/corp", displayName="Acme", metadata=dict(labels={}))


def test_a_pool_in_the_words_of_the_api():
    params = dict(name="hsm", kind="virtual-function", ids=["8086:10ca"], classes=[], devices=["h1/0000:41:00.0"], host_selector={},
                  description=None, labels=None, annotations=None)
    assert croft_pool.document(params)["match"] == dict(
        kind="VIRTUAL_FUNCTION", ids=["8086:10ca"], devices=["hosts/h1/devices/0000:41:00.0"])


def test_exclusive_limits_clear_the_others():
    live = croft_quota.limits_of([
        dict(name="tenants/a/quotas/vcpus", limit="16"),
        dict(name="tenants/a/quotas/gpus/h100_sxm_80gb", limit="2"),
        dict(name="tenants/a/quotas/disk_gib", limit=None),
    ])
    assert live == {"vcpus": 16, "gpus/h100_sxm_80gb": 2}
    assert croft_quota.plan(live, {"vcpus": 8}, False) == {"vcpus": 8}
    assert croft_quota.plan(live, {"vcpus": 8}, True) == {"vcpus": 8, "gpus/h100_sxm_80gb": None}


def test_a_host_is_changed_where_it_differs():
    live = dict(metadata=dict(labels={"rack": "7", "old": "x"}), reserve=dict(memoryMib="4096"))
    params = dict(labels={"rack": 7, "old": None, "row": "b"}, annotations={}, reserve_vcpus=None, reserve_memory_mib=8192,
                  reserve_disk_gib=0)
    before, after, arguments = croft_host.sides(live, params)
    assert arguments == ["--label", "old-", "--label", "row=b", "--reserve-memory", "8192MiB"]
    assert before["labels"] == {"rack": "7", "old": "x"} and after["labels"] == {"rack": "7", "row": "b"}
    params.update(labels={"rack": "7"}, reserve_memory_mib=4096)
    assert croft_host.sides(live, params)[2] == []


def test_how_far_a_maintenance_is():
    assert croft_host_maintenance.phase_of({}) == "NONE"
    assert croft_host_maintenance.phase_of({"maintenance": None}) == "NONE"
    assert croft_host_maintenance.phase_of({"maintenance": {"phase": "PHASE_UNSPECIFIED"}}) == "NONE"
    assert croft_host_maintenance.phase_of({"maintenance": {"phase": "DRAINED"}}) == "DRAINED"
