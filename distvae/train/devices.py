"""Which device a process trains on, and which teams may add up over NCCL."""

import os
from collections.abc import Sequence

import torch

from distvae.files.refusal import Refusal

CPU = torch.device("cpu")


def select_device(name: str, assigned: Sequence[int] | None = None) -> torch.device:
    """Return the device that this process trains on, by what torch finds here; see `choose`."""
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return choose_device(name, visible, assigned, int(os.environ.get("LOCAL_RANK", "0")))


def choose_device(
    name: str, visible: int, assigned: Sequence[int] | None = None, rank: int = 0
) -> torch.device:
    """Return the device for a setting of `train.device`, where torch sees so many CUDA devices.

    Under Ray it is the first of the devices that were assigned to this process, and the CPU if
    there are none. Without Ray, where nobody assigns devices (None), the processes of a machine
    take them in turns, by their ranks there.
    """
    if name == "cpu":
        return CPU
    if assigned is not None and not assigned:
        return _cpu_instead(
            name, "Ray assigned this process no GPU", "--gpus-per-worker 1 or --gpus-per-trial 1"
        )
    if not visible:
        return _cpu_instead(name, "torch finds no CUDA device here", "cpu or auto")
    place = rank % visible if assigned is None else assigned[0]
    if place >= visible:
        raise Refusal(
            f"train.device: Ray assigned this process GPU {place}, but torch finds {visible} here; "
            "as many as 'ray start --num-gpus' was told expected, or train.device=cpu"
        )
    return torch.device("cuda", place)


def _cpu_instead(name: str, reason: str, remedy: str) -> torch.device:
    """Return the CPU, or refuse if a GPU was asked for."""
    if name == "cuda":
        raise Refusal(f"train.device: 'cuda', but {reason}; {remedy} expected")
    return CPU


def gpu_id(device: torch.device) -> str:
    """Return a name for a GPU that no other GPU has, on any machine; nothing for other devices."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""


def have_distinct_gpus(identities: Sequence[str]) -> bool:
    """Return whether all workers of a team have GPUs, and no two the same one: NCCL refuses to
    share.
    """
    return all(identities) and len(set(identities)) == len(identities)
