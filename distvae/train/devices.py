"""Choose the training device of a process, and check whether workers can use NCCL."""

import os
import platform
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

from distvae.files.refusal import Refusal

CPU = torch.device("cpu")


def select_device(name: str, assigned: Sequence[int] | None = None) -> torch.device:
    """Return the device of this process; see `choose_device`."""
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return choose_device(name, visible, assigned, int(os.environ.get("LOCAL_RANK", "0")))


def choose_device(
    name: str, visible: int, assigned: Sequence[int] | None = None, rank: int = 0
) -> torch.device:
    """Return the device for a setting of `train.device`, if torch sees `visible` CUDA devices.

    Under Ray it is the first device that was assigned to this process, or the CPU if none was.
    Without Ray (`assigned` is None) the processes of a machine take the devices in turns, by their
    local ranks.
    """
    if name == "cpu":
        return CPU
    if assigned is not None and not assigned:
        return _cpu_instead(
            name, "Ray assigned this process no GPU", "--gpus-per-worker 1 or --gpus-per-trial 1"
        )
    if not visible:
        return _cpu_instead(name, "torch finds no CUDA device here", "cpu or auto")
    index = rank % visible if assigned is None else assigned[0]
    if index >= visible:
        raise Refusal(
            f"train.device: Ray assigned this process GPU {index}, but torch finds {visible} here; "
            "as many as given to 'ray start --num-gpus' expected, or train.device=cpu"
        )
    return torch.device("cuda", index)


def _cpu_instead(name: str, reason: str, expected: str) -> torch.device:
    """Return the CPU, or raise `Refusal` if the setting asks for a GPU."""
    if name == "cuda":
        raise Refusal(f"train.device: 'cuda', but {reason}; {expected} expected")
    return CPU


GpuId: TypeAlias = list[str]
"""The unique id of a GPU, and its slot in a machine, which the instances of a divided GPU (MIG)
share. Empty for another device. A list, because workers send it as JSON.
"""


def gpu_id(device: torch.device) -> GpuId:
    """Return the id of a worker's GPU, or [] for another device."""
    if device.type != "cuda":
        return []
    found = torch.cuda.get_device_properties(device)
    slot = [str(getattr(found, f"pci_{part}_id")) for part in ("domain", "bus", "device")]
    return [str(found.uuid), f"{platform.node()} {':'.join(slot)}"]


def count_sharing(device: torch.device, gather: Callable[[GpuId], list[GpuId]]) -> int:
    """Return the number of workers on this worker's device. All workers call this together."""
    own = gpu_id(device)
    return gather(own).count(own)


def have_distinct_gpus(gpu_ids: Sequence[GpuId]) -> bool:
    """Return whether every worker has its own GPU, which NCCL requires."""
    if not all(gpu_ids):
        return False
    return all(len(set(names)) == len(names) for names in zip(*gpu_ids, strict=True))
