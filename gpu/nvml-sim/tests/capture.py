"""Reads what NVML tells of its first GPU, changing nothing, and prints it as JSON. Needs libnvidia-ml.so.1 where the loader finds it."""
import ctypes
import json

N = ctypes.CDLL("libnvidia-ml.so.1")
J = {"init": N.nvmlInit_v2()}
uint, ulonglong = ctypes.c_uint, ctypes.c_ulonglong


def struct(*fields):
    return type("Struct", (ctypes.Structure,), {"_fields_": list(fields)})


def numbers(*names):
    return [(name, uint) for name in names]


def text(function, *args):
    room = ctypes.create_string_buffer(96)
    code = getattr(N, function)(*args, room, 96)
    return room.value.decode() if code == 0 else code


def number(function):
    if not hasattr(N, function):
        return "absent"
    value = uint()
    code = getattr(N, function)(device, ctypes.byref(value))
    return value.value if code == 0 else f"err {code}"


def fields(s):
    values = {name: getattr(s, name) for name, *_ in s._fields_}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


J["driver"], J["nvml"] = text("nvmlSystemGetDriverVersion"), text("nvmlSystemGetNVMLVersion")
count = uint()
N.nvmlDeviceGetCount_v2(ctypes.byref(count))
J["count"] = count.value
device = ctypes.c_void_p()
J["handle"] = N.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device))
for name in ["Name", "UUID", "Serial", "BoardPartNumber", "VbiosVersion", "InforomImageVersion"]:
    J[name] = text("nvmlDeviceGet" + name, device)
for name in [
    "MinorNumber", "Architecture", "MultiGpuBoard", "BoardId", "CurrPcieLinkGeneration", "CurrPcieLinkWidth",
    "MaxPcieLinkGeneration", "GpuMaxPcieLinkGeneration", "MaxPcieLinkWidth", "PersistenceMode", "ComputeMode",
    "VirtualizationMode", "HostVgpuMode", "MaxMigDeviceCount", "NumGpuCores", "MemoryBusWidth", "IsMigDeviceHandle",
    "NumaNodeId", "BusType", "IrqNum",
]:
    J[name] = number("nvmlDeviceGet" + name)
a, b = uint(), uint()
for name in ["MigMode", "EccMode"]:
    J[name] = [getattr(N, "nvmlDeviceGet" + name)(device, ctypes.byref(a), ctypes.byref(b)), a.value, b.value]

Memory = struct(("version", uint), ("total", ulonglong), ("reserved", ulonglong), ("free", ulonglong), ("used", ulonglong))
memory = Memory(version=ctypes.sizeof(Memory) | 2 << 24)
code = N.nvmlDeviceGetMemoryInfo_v2(device, ctypes.byref(memory))
J["Memory_v2"] = [code, memory.total, memory.reserved, memory.free, memory.used]

slices = numbers("sliceCount", "instanceCount", "multiprocessorCount", "copyEngineCount", "decoderCount", "encoderCount",
                 "jpegCount", "ofaCount") + [("memorySizeMB", ulonglong)]
name96 = [("name", ctypes.c_char * 96)]
V1 = struct(*numbers("id", "isP2pSupported"), *slices)
V2 = struct(*numbers("version", "id", "isP2pSupported"), *slices, *name96)
V3 = struct(*numbers("version", "id"), *slices, *name96, ("capabilities", uint))
Placement = struct(("start", uint), ("size", uint))
profiles = []
for number_ in range(0x14):
    row = {"enum": number_}
    info = V1()
    row["v1_rc"] = N.nvmlDeviceGetGpuInstanceProfileInfo(device, number_, ctypes.byref(info))
    row["v1"] = fields(info) if row["v1_rc"] == 0 else None
    for version, Type in ((2, V2), (3, V3)):
        info = Type(version=ctypes.sizeof(Type) | version << 24)
        code = N.nvmlDeviceGetGpuInstanceProfileInfoV(device, number_, ctypes.byref(info))
        row[f"v{version}_rc"], row[f"v{version}"] = code, fields(info) if code == 0 else None
    if row["v1"]:
        id_, c = row["v1"]["id"], uint(0)
        row["placements_rc0"] = N.nvmlDeviceGetGpuInstancePossiblePlacements_v2(device, id_, None, ctypes.byref(c))
        row["placements_count"] = c.value
        room = (Placement * 32)()
        c.value = 32
        row["placements_rc"] = N.nvmlDeviceGetGpuInstancePossiblePlacements_v2(device, id_, room, ctypes.byref(c))
        row["placements"] = [[p.start, p.size] for p in room[: c.value]] if row["placements_rc"] == 0 else None
        c.value = 0
        row["remaining_rc"] = N.nvmlDeviceGetGpuInstanceRemainingCapacity(device, id_, ctypes.byref(c))
        row["remaining"] = c.value
    profiles.append(row)
J["gpu_instance_profiles"] = profiles

for function in ["nvmlDeviceGetSupportedVgpus", "nvmlDeviceGetCreatableVgpus", "nvmlDeviceGetActiveVgpus"]:
    c = uint(0)
    J[function] = [getattr(N, function)(device, ctypes.byref(c), None), c.value]
for capability in range(14):
    c = uint(0)
    J[f"vgpu_capability_{capability}"] = [N.nvmlDeviceGetVgpuCapabilities(device, capability, ctypes.byref(c)), c.value]
types = ulonglong()
J["SupportedEventTypes"] = [N.nvmlDeviceGetSupportedEventTypes(device, ctypes.byref(types)), types.value]

Fabric = struct(("version", uint), ("clusterUuid", ctypes.c_ubyte * 16), ("status", ctypes.c_int), ("cliqueId", uint),
                ("state", ctypes.c_ubyte), ("healthMask", uint), ("healthSummary", ctypes.c_ubyte))
for version in (2, 3):
    f = Fabric(version=ctypes.sizeof(Fabric) | version << 24)
    code = N.nvmlDeviceGetGpuFabricInfoV(device, ctypes.byref(f))
    J[f"fabric_v{version}"] = [code, bytes(f.clusterUuid).hex(), f.status, f.cliqueId, f.state, f.healthMask, f.healthSummary]
for link in range(18):
    c = uint()
    J[f"nvlink_{link}"] = [N.nvmlDeviceGetNvLinkState(device, link, ctypes.byref(c)), c.value]
N.nvmlShutdown()
print(json.dumps(J))
