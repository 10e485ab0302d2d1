"""The setting `train.bits`: all workers, and a resumed run, compute bit-identical results."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from distvae.config import Train
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.files.untrusted import Plain
from distvae.numerics.arithmetic import Arithmetic, choose_library
from distvae.train import devices
from distvae.train.checkpoint import read_document, read_manifest
from distvae.train.documents import RunInfo
from distvae.train.team import ALONE, Team

Facts = Mapping[str, Plain]
"""Recorded facts of an `Arithmetic`."""
WAY_OUT = "the same expected, or train.bits=any to accept the difference"


def agree_on_arithmetic(
    config: Train,
    device: torch.device | None = None,
    team: Team = ALONE,
    folder: Folder | None = None,
) -> Arithmetic:
    """Return the arithmetic of this worker, which follows the run in `folder`, or else worker 0.

    Raise `Refusal` if a worker cannot compute the same bits, unless `train.bits` is `any`.
    """
    device = device or devices.select_device(config.device)
    recorded = recorded_arithmetic(folder) if folder and team.rank == 0 else {}
    of_worker_0: Facts = recorded or _arithmetic_for(config, device, {}).facts()
    recorded, reference = team.gather([recorded, of_worker_0])[0]
    chosen = _arithmetic_for(config, device, reference)
    differences = team.gather(chosen.differences(reference))
    if config.bits == "same":
        _refuse_differences(differences, str(folder) if recorded else "")
    return chosen


def check_same_arithmetic(config: Train, recorded: Facts, where: str, device: torch.device) -> None:
    """Raise `Refusal` if the arithmetic of this machine differs from recorded arithmetic."""
    chosen = _arithmetic_for(config, device, recorded)
    _refuse_differences([chosen.differences(recorded)], where)


def recorded_arithmetic(folder: Folder) -> Facts:
    """Return the arithmetic of a run's last checkpoint or first epoch, or {} if not recorded."""
    if folder.has("last.json"):
        facts = read_manifest(folder, "last.json")["facts"]
        if "arithmetic" in facts:
            return facts["arithmetic"]
    if folder.has("run.json"):
        return dict(read_document(folder, "run.json").get("arithmetic", {}))
    return {}


@contextmanager
def run_arithmetic(info: RunInfo) -> Iterator[None]:
    """Compute with the library and threads of a run, so that evaluation gives the same metrics."""
    recorded = info.get("arithmetic", {})
    if not recorded:
        yield
        return
    library, threads = choose_library("auto", recorded), _recorded_threads(recorded)
    arithmetic = Arithmetic.of_process(
        library, threads or torch.get_num_threads(), torch.device("cpu")
    )
    with arithmetic.applied():
        yield


def _arithmetic_for(config: Train, device: torch.device, reference: Facts) -> Arithmetic:
    """Return the arithmetic of this worker. Where a setting leaves a choice, follow the reference.

    Only the CPU has a choice of libraries. On a GPU, selecting oneDNN would allow TF32.
    """
    threads = config.threads or _recorded_threads(reference) or torch.get_num_threads()
    if device.type != "cpu":
        return Arithmetic.of_process("tf32" if config.tf32 else "blas", threads, device)
    products = choose_library(config.products, reference)
    if config.products == "onednn" and products != "onednn":
        raise Refusal(
            "train.products: 'onednn', which multiplies with less than float32's precision on this"
            " processor"
        )
    return Arithmetic.of_process(products, threads, device)


def _recorded_threads(facts: Facts) -> int | None:
    threads = facts.get("threads")
    return threads if isinstance(threads, int) else None


def _refuse_differences(differences: list[list[str]], run: str) -> None:
    """Raise `Refusal` for the first worker whose arithmetic differs."""
    for rank, found in enumerate(differences):
        if found:
            who = f"worker {rank} of {len(differences)}" if len(differences) > 1 else "this machine"
            reference = f"the run so far, in {run}" if run else "worker 0"
            raise Refusal(
                f"{who} would compute other last digits than {reference}: {', '.join(found)};"
                f" {WAY_OUT}"
            )
