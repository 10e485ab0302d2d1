"""Choose the device that a process trains on, and tell whether a team can use NCCL."""

import os
from collections.abc import Sequence

import torch

from distvae.files.refusal import Refusal

CPU = torch.device("cpu")


def select_device(name: str, assigned: Sequence[int] | None = None) -> torch.device:
    """Return the device of this process, by what torch finds here; see `choose_device`."""
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


def gpu_id(device: torch.device) -> str:
    """Return the unique id of a GPU, or '' for another device."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""


def have_distinct_gpus(gpu_ids: Sequence[str]) -> bool:
    """Return whether every worker has a GPU of its own, which NCCL requires."""
    return all(gpu_ids) and len(set(gpu_ids)) == len(gpu_ids)
