# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""Which variables and groups a host gets."""

from __future__ import annotations

from ansible_collections.croft.fleet.plugins.inventory import croft

HOST = dict(
    name="hosts/h1", state="READY", cordoned=False,
    metadata=dict(labels={"rack": "7"}, annotations={croft.ADDRESS: "192.0.2.7"}),
    info=dict(driverFlavour="vgpu", agentVersion="0.1.0"),
)


def test_a_host():
    gpus = [dict(name="hosts/h1/devices/0000:41:00.0", gpu=dict(model="h100_sxm_80gb")),
            dict(name="hosts/h1/devices/0000:42:00.0", gpu=dict(model="h100_sxm_80gb")),
            dict(name="hosts/h2/devices/0000:42:00.0", gpu=dict(model="l40s"))]
    said = croft.variables(HOST, croft.models(gpus)["h1"])
    assert said["ansible_host"] == "192.0.2.7" and said["croft_flavour"] == "vgpu"
    assert croft.groups(said) == ["croft_hosts", "state_ready", "flavour_vgpu", "gpu_h100_sxm_80gb", "label_rack_7"]


def test_a_host_that_was_never_heard_of_again():
    said = croft.variables(dict(name="hosts/h2", state="ENROLLED", metadata=None, info=None), [])
    assert "ansible_host" not in said and croft.groups(said) == ["croft_hosts", "state_enrolled"]
