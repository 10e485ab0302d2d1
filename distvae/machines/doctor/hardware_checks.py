"""Checks of the processors, GPUs, memory, disks and clock of a machine."""

from collections.abc import Iterator, Mapping

from distvae.machines.doctor.diagnosis import Diagnosis, format_bytes
from distvae.machines.doctor.facts import Facts

MIB, GIB = 2**20, 2**30
MIN_SHARED_MEMORY = 256 * MIB
"""Bytes that /dev/shm has to have, at least."""
MIN_FREE_SHARED_MEMORY = 64 * MIB
RAY_DISK_LIMIT = 0.05
"""The free part of a disk below which Ray keeps no objects on it."""
MAX_CLOCK_SKEW = 1.0
"""Seconds by which clocks may differ."""
MAX_LOAD = 1.5
"""Processes per processor that want to run, above which training is slow."""


def check_processors(name: str, facts: Facts, counted: float | None) -> Iterator[Diagnosis]:
    """Check the usable processors against those that Ray counts, and the load."""
    cpus = facts["cpus"]
    usable = min(cpus["allowed"], cpus["quota"] or cpus["allowed"])
    found = f"{usable:g}"
    if usable < cpus["machine"]:
        found += f" of {cpus['machine']} may be used"
    if counted is not None:
        found += f", Ray counts {counted:g}"
    if counted is not None and counted > usable:
        limit = max(1, int(usable))
        remedy = f"trials would compete for processors: ray start --num-cpus={limit}"
        yield Diagnosis("note", "processors", name, found, remedy)
    elif cpus["load"] is not None and cpus["load"] > MAX_LOAD * cpus["machine"]:
        found += f"; {cpus['load']:.1f} processes want to run"
        remedy = "training is slow until others have ended: top shows which"
        yield Diagnosis("note", "processors", name, found, remedy)
    else:
        yield Diagnosis("ok", "processors", name, found)


def check_gpus(name: str, facts: Facts, counted: float | None) -> Iterator[Diagnosis]:
    """Compare the GPUs of a machine with those that torch can use and that Ray counts."""
    gpus = facts["gpus"]
    devices, usable = gpus["devices"], gpus["usable"]
    found = f"{devices} there, torch can use {usable}"
    if gpus["why"]:
        found += f" ({gpus['why']})"
    if 0 < usable < devices:
        remedy = "is CUDA_VISIBLE_DEVICES meant to hide the others?"
        yield Diagnosis("note", "GPUs", name, found, remedy)
    elif usable < devices:
        remedy = "a torch built for CUDA and a driver as new as it: pip install torch, nvidia-smi"
        yield Diagnosis("bad", "GPUs", name, found, remedy)
    elif counted is not None and counted != devices:
        remedy = f"ray start --num-gpus={devices}, or nothing: Ray finds them"
        yield Diagnosis("note", "GPUs", name, f"{found}, Ray counts {counted:g}", remedy)
    elif devices:
        yield Diagnosis("ok", "GPUs", name, found)
    else:
        yield Diagnosis("info", "GPUs", name, "none")


def check_memory(name: str, facts: Facts, object_store: float | None) -> Iterator[Diagnosis]:
    """Check the free memory, and the shared memory with Ray's object store in it."""
    free, limit = facts["memory"]["free"], facts["memory"]["limit"]
    found = f"{format_bytes(free)} free"
    if limit is not None:
        found += f"; the container may take {format_bytes(limit)}"
    if free >= GIB:
        yield Diagnosis("ok", "memory", name, found)
    else:
        remedy = (
            "end what takes it (top), give the container more, or run fewer trials side by side"
        )
        yield Diagnosis("bad", "memory", name, found, remedy)
    if facts["shared_memory"] is not None:
        yield _check_shared_memory(name, facts["shared_memory"], object_store)


def _check_shared_memory(
    name: str, space: Mapping[str, int], object_store: float | None
) -> Diagnosis:
    """Check whether shared memory holds Ray's object store and what workers exchange."""
    subject = "shared memory"
    free, total = space["free"], space["total"]
    found = f"{format_bytes(free)} of {format_bytes(total)} free in /dev/shm"
    if object_store is not None:
        found += f", Ray's object store takes up to {format_bytes(object_store)}"
    if total < max(MIN_SHARED_MEMORY, object_store or 0):
        found += "; workers share memory through it"
        remedy = "docker run --shm-size=2g; in Kubernetes an emptyDir of medium Memory at /dev/shm"
        return Diagnosis("bad", subject, name, found, remedy)
    if free < MIN_FREE_SHARED_MEMORY:
        return Diagnosis("bad", subject, name, found, "ls -l /dev/shm shows what fills it")
    return Diagnosis("ok", subject, name, found)


def check_disk(
    name: str, what: str, place: str, space: Mapping[str, int] | None
) -> Iterator[Diagnosis]:
    """Check the free space on the disk of a place."""
    if space is None or "free" not in space:
        remedy = "a folder that this user may use"
        yield Diagnosis("bad", what, name, f"{place}: cannot be looked at", remedy)
        return
    free, total = space["free"], space["total"]
    found = f"{place}: {format_bytes(free)} of {format_bytes(total)} free"
    if free < GIB:
        yield Diagnosis("bad", what, name, found, "make room there")
    elif free < RAY_DISK_LIMIT * total:
        remedy = "Ray warns above 95 %, and lets no job keep objects on such a disk"
        yield Diagnosis("note", what, name, found, remedy)
    else:
        yield Diagnosis("ok", what, name, found)


def check_clock(name: str, seconds_ahead: float, uncertainty: float) -> Iterator[Diagnosis]:
    """Check the seconds by which a clock is ahead of the driver's."""
    if abs(seconds_ahead) > MAX_CLOCK_SKEW + uncertainty:
        direction = "ahead of" if seconds_ahead > 0 else "behind"
        found = f"{abs(seconds_ahead):.1f} s {direction} this machine's"
        yield Diagnosis("bad", "clock", name, found, "timedatectl set-ntp true; chronyc makestep")
    else:
        yield Diagnosis("ok", "clock", name, f"within {MAX_CLOCK_SKEW:g} s of this machine's")
