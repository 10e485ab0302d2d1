"""The processors of this machine."""

import os
import platform

from distvae.system import kernel


def available_cores() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_kind() -> str:
    """Return the vendor, family and model of the processor, or else the system's name for it."""
    first = kernel.read(kernel.PROC / "cpuinfo").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    if "vendor_id" in fields:
        family, model = fields.get("cpu family"), fields.get("model")
        return f"{fields['vendor_id']} family {family} model {model}"
    arm = " ".join(fields.get(name, "") for name in ("CPU implementer", "CPU part"))
    return arm.strip() or platform.processor() or platform.machine()
