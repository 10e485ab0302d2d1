"""The same bits from all trials of a sweep: what is decided for them once, written down, and obeyed
by a resume.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distvae.files.untrusted import read_json
from distvae.tune.means import Means
from distvae.tune.space import Space

if TYPE_CHECKING:
    import torch

SWEEP = "sweep.json"
"""The file of a sweep's folder that says what is explored."""


def decided(out: Path) -> dict[str, Any]:
    """What a sweep that goes on decided for its machine, which its other trials were computed
    with.
    """
    config = read_json(out / SWEEP)["config"] if (out / SWEEP).is_file() else {}
    return {key: config[key] for key in ("train.threads", "train.products") if key in config}


def arithmetic(space: Space, means: Means) -> dict[str, Any]:
    """Return how the trials of a sweep compute that all train on this machine; those elsewhere say
    so themselves.
    """
    from distvae.train.bits import agree_on_arithmetic

    return (
        {}
        if means.address
        else {"arithmetic": agree_on_arithmetic(space.base.train, _device(space, means)).facts()}
    )


def refuse_other_bits(space: Space, out: Path, means: Means) -> None:
    """Refuse to go on where this machine would compute other bits than the one that the sweep began
    on.
    """
    from distvae.train.bits import check_same_arithmetic

    recorded = read_json(out / SWEEP).get("arithmetic")
    if recorded and not means.address and space.base.train.bits == "same":
        check_same_arithmetic(space.base.train, recorded, str(out), _device(space, means))


def _device(space: Space, means: Means) -> "torch.device":
    """Return what trials train on that all train on this machine."""
    from distvae.train.devices import select_device

    hidden = (means.group.gpus if means.group else means.gpus) == 0
    return select_device(space.base.train.device, () if hidden else None)
