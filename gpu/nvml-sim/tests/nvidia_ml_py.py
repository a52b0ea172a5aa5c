"""Reads a part of what capture.py reads, through NVIDIA's own binding (PyPI: nvidia-ml-py), and prints it as JSON."""
import json

import pynvml as n

n.nvmlInit()
J = {"driver": n.nvmlSystemGetDriverVersion(), "nvml": n.nvmlSystemGetNVMLVersion(), "count": n.nvmlDeviceGetCount()}
device = n.nvmlDeviceGetHandleByIndex(0)
for name, read in {
    "Name": n.nvmlDeviceGetName, "UUID": n.nvmlDeviceGetUUID, "Serial": n.nvmlDeviceGetSerial,
    "BoardPartNumber": n.nvmlDeviceGetBoardPartNumber, "VbiosVersion": n.nvmlDeviceGetVbiosVersion,
    "InforomImageVersion": n.nvmlDeviceGetInforomImageVersion, "MinorNumber": n.nvmlDeviceGetMinorNumber,
    "Architecture": n.nvmlDeviceGetArchitecture, "MultiGpuBoard": n.nvmlDeviceGetMultiGpuBoard,
    "BoardId": n.nvmlDeviceGetBoardId, "CurrPcieLinkGeneration": n.nvmlDeviceGetCurrPcieLinkGeneration,
    "CurrPcieLinkWidth": n.nvmlDeviceGetCurrPcieLinkWidth, "MaxPcieLinkGeneration": n.nvmlDeviceGetMaxPcieLinkGeneration,
    "MaxPcieLinkWidth": n.nvmlDeviceGetMaxPcieLinkWidth, "PersistenceMode": n.nvmlDeviceGetPersistenceMode,
    "ComputeMode": n.nvmlDeviceGetComputeMode, "VirtualizationMode": n.nvmlDeviceGetVirtualizationMode,
    "MaxMigDeviceCount": n.nvmlDeviceGetMaxMigDeviceCount, "NumGpuCores": n.nvmlDeviceGetNumGpuCores,
    "MemoryBusWidth": n.nvmlDeviceGetMemoryBusWidth, "BusType": n.nvmlDeviceGetBusType, "IrqNum": n.nvmlDeviceGetIrqNum,
}.items():
    J[name] = read(device)
J["MigMode"] = [0, *n.nvmlDeviceGetMigMode(device)]
J["EccMode"] = [0, *n.nvmlDeviceGetEccMode(device)]
memory = n.nvmlDeviceGetMemoryInfo(device, version=n.nvmlMemory_v2)
J["Memory_v2"] = [0, memory.total, memory.reserved, memory.free, memory.used]

J["NumaNodeId"] = J["HostVgpuMode"] = "err 3"
for read in (n.nvmlDeviceGetNumaNodeId, n.nvmlDeviceGetHostVgpuMode):
    try:
        raise SystemExit(f"{read.__name__} answered {read(device)}")
    except n.NVMLError_NotSupported:
        pass
J["SupportedEventTypes"] = [0, n.nvmlDeviceGetSupportedEventTypes(device)]

profiles = []
for number in range(0x14):
    row = {"enum": number}
    for version in (1, 2):
        row[f"v{version}_rc"], row[f"v{version}"] = 0, None
        try:
            info = n.nvmlDeviceGetGpuInstanceProfileInfo(device, number, version=version)
        except n.NVMLError as error:
            row[f"v{version}_rc"] = error.value
            continue
        told = {name: getattr(info, name) for name, *_ in info._fields_}
        row[f"v{version}"] = {k: v.decode() if isinstance(v, bytes) else v for k, v in told.items()}
    if row["v1"]:
        count, room = n.c_uint(32), (n.c_nvmlGpuInstancePlacement_t * 32)()
        n.nvmlDeviceGetGpuInstancePossiblePlacements(device, row["v1"]["id"], room, n.byref(count))
        row["placements"] = [[p.start, p.size] for p in room[: count.value]]
        row["remaining"] = n.nvmlDeviceGetGpuInstanceRemainingCapacity(device, row["v1"]["id"])
    profiles.append(row)
J["gpu_instance_profiles"] = profiles
n.nvmlShutdown()
print(json.dumps(J))
