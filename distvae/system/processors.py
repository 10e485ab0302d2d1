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
    """Return vendor, family and model, or the system's name for a processor without these."""
    first = kernel.read(kernel.PROC / "cpuinfo").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    if "vendor_id" in fields:
        family, model = fields.get("cpu family"), fields.get("model")
        return f"{fields['vendor_id']} family {family} model {model}"
    arm = " ".join(fields.get(name, "") for name in ("CPU implementer", "CPU part"))
    return arm.strip() or platform.processor() or platform.machine()


def busy_seconds() -> float:
    """Return how long all processors of the machine were busy; 0 where the system does not say."""
    words = kernel.read(kernel.PROC / "stat").split()[1:8]
    if not words:
        return 0.0
    user, nice, system, _idle, _wait, *interrupts = map(int, words)
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
