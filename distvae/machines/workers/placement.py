"""The GPUs that Ray assigned this process."""

import os
from collections.abc import Sequence

from distvae.files.refusal import Refusal


def assigned_gpus() -> tuple[int, ...]:
    """Return the positions of the assigned GPUs among those that CUDA shows this process."""
    import ray

    return gpu_positions(ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def gpu_positions(ids: Sequence[int | str], visible: str | None) -> tuple[int, ...]:
    """Return the positions of GPUs in CUDA_VISIBLE_DEVICES.

    Without that variable CUDA shows all GPUs, so each position is the GPU's number.
    """
    if visible is None:
        return tuple(int(gpu) for gpu in ids)
    names = visible.split(",")
    hidden = [str(gpu) for gpu in ids if str(gpu) not in names]
    if hidden:
        raise Refusal(
            f"CUDA_VISIBLE_DEVICES: '{visible}' hides GPU {hidden[0]}, which Ray assigned; leave it"
            " to Ray"
        )
    return tuple(names.index(str(gpu)) for gpu in ids)
