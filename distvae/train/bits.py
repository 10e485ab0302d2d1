"""The same bits from every worker of a training, and from a training that goes on."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from distvae.config import Train
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.numerics.arithmetic import Arithmetic, choose_library
from distvae.train import devices
from distvae.train.checkpoint import read_manifest
from distvae.train.team import ALONE, Team

WAY_OUT = "the same expected, or train.bits=any to accept the difference"


def agree_on_arithmetic(
    config: Train,
    device: torch.device | None = None,
    team: Team = ALONE,
    folder: Folder | None = None,
) -> Arithmetic:
    """Return how this worker has to compute: as the run in a folder did so far, or else as the
    first worker does.

    A worker that cannot is refused, unless `train.bits` is `any`.
    """
    device = device or devices.select_device(config.device)
    recorded = recorded_arithmetic(folder) if folder and team.rank == 0 else {}
    first = recorded or _own(config, device, {}).facts()
    recorded, reference = team.gather([recorded, first])[0]
    own = _own(config, device, reference)
    lacking = team.gather(own.differences(reference))
    if config.bits == "same":
        _refuse(lacking, str(folder) if recorded else "")
    return own


def check_same_arithmetic(
    config: Train, recorded: Mapping[str, Any], where: str, device: torch.device
) -> None:
    """Refuse to go on on this machine with what was computed in another way."""
    _refuse([_own(config, device, recorded).differences(recorded)], where)


def recorded_arithmetic(folder: Folder) -> Mapping[str, Any]:
    """Return how the run in a folder computed its last checkpoint, or began; nothing where that was
    not recorded.
    """
    if folder.has("last.json") and "arithmetic" in (
        facts := read_manifest(folder, "last.json")["facts"]
    ):
        return dict(facts["arithmetic"])
    return (
        dict(read_manifest(folder, "run.json").get("arithmetic", {}))
        if folder.has("run.json")
        else {}
    )


@contextmanager
def run_arithmetic(info: Mapping[str, Any]) -> Iterator[None]:
    """Compute with the library and threads that run.json names, so that judging a run later gives
    the same figures.
    """
    recorded = info.get("arithmetic", {})
    with ExitStack() as stack:
        if recorded:
            own = Arithmetic.of_process(
                choose_library("auto", recorded), recorded["threads"], torch.device("cpu")
            )
            stack.enter_context(own.applied())
        yield


def _own(config: Train, device: torch.device, reference: Mapping[str, Any]) -> Arithmetic:
    """Return how this worker computes by its settings, and by a reference where they leave a
    choice.
    """
    products = choose_library(config.products, reference)
    if config.products == "onednn" and products != "onednn":
        raise Refusal(
            "train.products: 'onednn', which multiplies with less than float32's precision on this"
            " processor"
        )
    threads = config.threads or reference.get("threads") or torch.get_num_threads()
    return Arithmetic.of_process(products, threads, device)


def _refuse(lacking: list[list[str]], run: str) -> None:
    """Refuse to go on with a run, or to train together, where a worker would compute other bits."""
    for rank, differences in enumerate(lacking):
        if differences:
            who = f"worker {rank} of {len(lacking)}" if len(lacking) > 1 else "this machine"
            what = f"the run so far, in {run}" if run else "worker 0"
            raise Refusal(
                f"{who} would compute other last digits than {what}: {', '.join(differences)};"
                f" {WAY_OUT}"
            )
