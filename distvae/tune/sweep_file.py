"""The same bits from all trials of a sweep: what is decided for them once, written down, and obeyed
by a resume.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distvae.files.untrusted import read_json
from distvae.tune.resources import TrialResources
from distvae.tune.space import Space

if TYPE_CHECKING:
    import torch

SWEEP_FILE = "sweep.json"
"""The file of a sweep's folder that says what is explored."""


def recorded_settings(out: Path) -> dict[str, Any]:
    """What a sweep that goes on decided for its machine, which its other trials were computed
    with.
    """
    config = read_json(out / SWEEP_FILE)["config"] if (out / SWEEP_FILE).is_file() else {}
    return {key: config[key] for key in ("train.threads", "train.products") if key in config}


def describe_arithmetic(space: Space, resources: TrialResources) -> dict[str, Any]:
    """Return how the trials of a sweep compute that all train on this machine; those elsewhere say
    so themselves.
    """
    from distvae.train.bits import agree_on_arithmetic

    return (
        {}
        if resources.address
        else {
            "arithmetic": agree_on_arithmetic(space.base.train, _device(space, resources)).facts()
        }
    )


def refuse_other_bits(space: Space, out: Path, resources: TrialResources) -> None:
    """Refuse to go on where this machine would compute other bits than the one that the sweep began
    on.
    """
    from distvae.train.bits import check_same_arithmetic

    recorded = read_json(out / SWEEP_FILE).get("arithmetic")
    if recorded and not resources.address and space.base.train.bits == "same":
        check_same_arithmetic(space.base.train, recorded, str(out), _device(space, resources))


def _device(space: Space, resources: TrialResources) -> "torch.device":
    """Return what trials train on that all train on this machine."""
    from distvae.train.devices import select_device

    hidden = (resources.group.gpus if resources.group else resources.gpus) == 0
    return select_device(space.base.train.device, () if hidden else None)
