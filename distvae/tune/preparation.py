"""Settings that are decided before a sweep starts: threads, trials side by side, data."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.machines.cluster import MachineResources
from distvae.machines.driver import with_absolute_paths
from distvae.system.processors import available_cores
from distvae.tune.resources import TrialResources
from distvae.tune.space import Space

if TYPE_CHECKING:
    from distvae.data.dataset import Dataset

DEFAULT_RESOURCES = TrialResources()
"""Trials train in their own processes on this machine."""


def prepare_space(
    space: Space,
    pinned: Mapping[str, Plain],
    trials: int | None = None,
    concurrent: int | None = None,
    resources: TrialResources = DEFAULT_RESOURCES,
) -> Space:
    """Return the space to explore, with the pinned settings and those that all trials share.

    Trials that are processes of this machine share its cores equally; a worker, or a process
    elsewhere, has one thread. All trials use the same library for matrix products. Without the
    package pesq, trials are ranked by ESTOI instead. Refuse pinned settings with which trials have
    no figure to be ranked by.
    """
    from distvae.numerics.arithmetic import choose_library
    from distvae.tune.validation import check_ranking

    on_this_machine = resources.address is None and resources.group is None
    slots, threads = concurrent or space.concurrent, 1
    if on_this_machine:
        slots = slots or available_cores()
        threads = max(1, available_cores() // slots)
    common: dict[str, Plain] = {
        "train.threads": threads,
        "train.products": choose_library(space.base.train.products),
        "eval.processes": 1,
    }
    space = space.pinned(common | dict(pinned))
    space = replace(space, trials=trials or _count_trials(space), concurrent=slots)
    space = _rank_without_pesq(space)
    if pinned and not space.rows:  # rows have figures of their own
        check_ranking(space)
    return space


def _count_trials(space: Space) -> int:
    """Return the trials of a space: those of its file, or all that are left of a whole grid."""
    return sum(1 for _ in space.combinations()) if space.whole_grid else space.trials


def limit_concurrency(
    space: Space, resources: TrialResources, machines: MachineResources, requested: int | None
) -> Space:
    """Return the space with as many trials side by side as it wants and the machines can take.

    Raise `Refusal` if more were requested than fit.
    """
    fitting = resources.max_concurrent(machines, threads_per_trial(space))
    if requested and requested > fitting:
        shortage = resources.describe_shortage(machines, threads_per_trial(space), requested)
        raise Refusal(f"--concurrent: {shortage}; at most {fitting} expected")
    return replace(space, concurrent=min(space.concurrent or fitting, fitting))


def threads_per_trial(space: Space) -> int:
    """Return the threads of each process that trains."""
    return space.base.train.threads or 1


def concurrent_trials(space: Space) -> int:
    """Return how many trials run side by side."""
    return space.concurrent or 1


def _warn_of_choice_by_test(space: Space, dataset: "Dataset") -> None:
    """Say that trials are chosen by the rows that test them, where no others validate."""
    train, val, test = (dataset.splits[name] for name in ("train", "val", "test"))
    if space.split == "val" and val is test and val is not train:
        hint = "; without validation rows, data.holdout=N takes N training rows for them"
        print(
            f"{dataset.name}: the same rows validate and test, so trials are chosen by the rows"
            f" that test them{hint if hasattr(space.base.data, 'holdout') else ''}",
            file=sys.stderr,
        )


def _rank_without_pesq(space: Space) -> Space:
    """Replace PESQ by ESTOI among the metrics if the package pesq is not installed."""
    from distvae.tasks.recording_scores import available_metrics

    measured = space.base.eval.metrics
    missing = [name for name in space.metrics if name in measured and not available_metrics([name])]
    if not missing:
        return space
    print(
        f"{', '.join(missing)}: the package pesq is not installed; ranked by estoi instead",
        file=sys.stderr,
    )
    metrics = {}
    for name, direction in space.metrics.items():
        metrics["estoi" if name in missing else name] = direction
    measurable = [*dict.fromkeys([*available_metrics(measured), "estoi"])]
    return replace(space.pinned({"eval.metrics": measurable}), metrics=metrics)


def open_data(space: Space, quiet: bool, resources: TrialResources) -> "tuple[Space, Dataset]":
    """Prepare the data of all trials. Return the space with its absolute path, and the data.

    Refuse a device, data, or a lack of memory that every trial would refuse.
    """
    from distvae.data import open_dataset
    from distvae.train.cost import COPIES_OF_A_WORKER, DataSize
    from distvae.train.devices import select_device
    from distvae.tune.validation import check_memory

    on_this_machine = resources.address is None
    resources.refuse_hidden_gpus(space.base.train.device)
    if on_this_machine:
        select_device(space.base.train.device)
    dataset = open_dataset(space.base.data, quiet=quiet)
    if not quiet:
        _warn_of_choice_by_test(space, dataset)
    data_varies = any(key.startswith("data.") for key in space.varied)
    if on_this_machine and not data_varies:
        size = DataSize.of(dataset)
        copies = 1 if resources.group is None else COPIES_OF_A_WORKER
        check_memory(space, size, resources.max_workers, copies)
    if "data.path" in space.varied:
        return space, dataset
    config = with_absolute_paths(space.config({"data.path": dataset.origin}))
    return space.pinned({"data.path": config.data.path}), dataset
