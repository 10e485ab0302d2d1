"""The GPUs that Ray assigned this process."""

import os
from collections.abc import Sequence

from distvae.files.refusal import Refusal


def assigned_gpus() -> tuple[int, ...]:
    """Return the GPUs that Ray assigned this process, by their places among those that CUDA shows
    it.
    """
    import ray

    return gpu_positions(ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def gpu_positions(ids: Sequence[int | str], shown: str | None) -> tuple[int, ...]:
    """Return where assigned GPUs stand in CUDA_VISIBLE_DEVICES; without it CUDA shows all of them,
    by number.
    """
    names = None if shown is None else shown.split(",")
    if names is not None and (hidden := [str(name) for name in ids if str(name) not in names]):
        raise Refusal(
            f"CUDA_VISIBLE_DEVICES: '{shown}' hides GPU {hidden[0]}, which Ray assigned; leave it"
            " to Ray"
        )
    return tuple(int(name) if names is None else names.index(str(name)) for name in ids)
