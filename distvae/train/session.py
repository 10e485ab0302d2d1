"""One run in its folder: begin or resume, write down every epoch, keep the best weights and the
last state.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from distvae.config import Config
from distvae.data.dataset import Dataset, Rows
from distvae.estep import assemble
from distvae.estep.store import KeepsPopulations, PopulationStore
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.interface import Persistent, Searches, prepare
from distvae.models.likelihoods import support_of
from distvae.numerics.lanes import Lanes
from distvae.train import checkpoint
from distvae.train.batches import BLOCK
from distvae.train.bits import agree_on_arithmetic, recorded_arithmetic
from distvae.train.checkpoint import Place
from distvae.train.cost import DataSize, check_fits_in_memory
from distvae.train.epoch import Epoch
from distvae.train.loop import Interrupted, Trainer
from distvae.train.run import read_info
from distvae.train.run_folder import (
    check_ownership,
    drop_later_epochs,
    is_owner,
    open_folder,
    take_ownership,
    update_info,
)
from distvae.train.saving import Savings, save_when_asked
from distvae.train.team import ALONE, Team
from distvae.train.weights import weights


@dataclass(frozen=True)
class RunOptions:
    """How a training in a run folder starts and stops."""

    recipe: str = ""
    resume: bool = False
    force: bool = False
    stop: Callable[[], object] = lambda: False
    """Asked between batches; training stops when it returns something true."""
    must_save: Callable[[], bool] = lambda: False
    """Asked between batches by all workers, which get one answer; if true they save at once."""
    owner: str = ""
    """The owner of the run folder, if it is not this process."""


def fit(
    config: Config,
    dataset: Dataset,
    out: Place,
    *,
    recipe: str = "",
    resume: bool = False,
    force: bool = False,
    stop: Callable[[], object] = lambda: False,
    team: Team = ALONE,
    device: torch.device | None = None,
) -> Iterator[Epoch]:
    """Train into the folder `out`, a path or a URI, and yield a record after each epoch.

    Training runs on the device, by default that of `train.device`.
    """
    agree_on_arithmetic(config.train, device, team, Folder.of(out) if resume else None).apply()
    trainer = build_trainer(config, dataset, team, device=device)
    return train_in_folder(trainer, config, dataset, out, RunOptions(recipe, resume, force, stop))


def train_in_folder(
    trainer: Trainer, config: Config, dataset: Dataset, out: Place, options: RunOptions
) -> Iterator[Epoch]:
    """Train with an untrained trainer of that configuration, as `fit` does."""
    team, folder = trainer.team, Folder.of(out)
    is_chief = team.rank == 0
    if _on_first_worker(team, lambda: _open(config, dataset, folder, options)):
        _restore(trainer, folder)
    owner = options.owner
    if is_chief:
        owner = owner or take_ownership(folder)
        check_ownership(folder, owner)
        _note_arithmetic(folder, trainer)
        drop_later_epochs(folder, trainer.position.epoch)
        checkpoint.restore_best(folder)
    team.barrier()
    savings = Savings(folder, trainer, owner)
    try:
        for epoch in trainer.run(save_when_asked(savings, options.must_save, options.stop)):
            if is_chief:
                _record_epoch(folder, trainer, epoch, owner)
            savings.after(epoch)
            yield epoch
    except Interrupted:
        savings.save()
        raise
    finally:
        if is_chief and is_owner(folder, owner):
            seconds, epochs = trainer.position.seconds, trainer.position.epoch
            update_info(folder, seconds=seconds, epochs=epochs, range=trainer.range)


def _open(config: Config, dataset: Dataset, folder: Folder, options: RunOptions) -> bool:
    """Open the run folder; return whether it holds a state to resume from."""
    return open_folder(config, dataset, folder, options.recipe, options.resume, options.force)


def _restore(trainer: Trainer, folder: Folder) -> None:
    """Resume from the last state; if it cannot be read, name the state before it."""
    try:
        tensors, facts = checkpoint.load(folder, "last")
        trainer.restore(tensors, facts["position"])
        if isinstance(trainer.estep, Persistent):
            trainer.estep.load(folder.place, facts["populations"])
    except Refusal as error:
        if (epoch := checkpoint.previous_epoch(folder)) is None:
            raise
        raise Refusal(
            f"{error}; --previous resumes from the checkpoint before it, of epoch {epoch}"
        ) from error


def _note_arithmetic(folder: Folder, trainer: Trainer) -> None:
    """Record how a run is computed from now on, and how it was computed before if that differs."""
    now, before = trainer.arithmetic.facts(), recorded_arithmetic(folder)
    if now != before:
        if before:
            changes = read_info(folder).get("arithmetic_before", [])
            changes = [*changes, {"until": trainer.position.epoch, **before}]
            update_info(folder, arithmetic=now, arithmetic_before=changes)
        else:
            update_info(folder, arithmetic=now)


def _on_first_worker(team: Team, function: Callable[[], bool]) -> bool:
    """Call a function on the first worker, and return or raise its result on all."""
    result, refusal = False, ""
    if team.rank == 0:
        try:
            result = function()
        except Refusal as error:
            refusal = str(error)
    result, refusal = team.gather((result, refusal))[0]
    if refusal:
        raise Refusal(refusal)
    return bool(result)


def build_trainer(
    config: Config,
    dataset: Dataset,
    team: Team = ALONE,
    store: PopulationStore | None = None,
    device: torch.device | None = None,
) -> Trainer:
    """Return an untrained trainer that has seen its data.

    Populations go to the store, if one is given. Training runs on the device, by default that of
    `train.device`.
    """
    ranges = _refuse_unfit(config, dataset)
    check_fits_in_memory(config, DataSize.of(dataset), team.size, holds=store is None)
    model, estep = assemble(config, dataset.dims, dataset.shape)
    if store is not None:
        assert isinstance(estep, KeepsPopulations)
        estep.use_store(store)
    train = dataset.splits["train"]
    held = split_rows(config, len(train), team.size).held(team.rank, team.size)
    for part in (model, estep):
        prepare(part, _blocks(train), held, config.train.seed)
    # Populations are kept for rows in training alone.
    val = train if isinstance(estep, Searches) else dataset.splits["val"]
    trainer = Trainer(config.train, model, estep, train, val, team, device)
    trainer.range = ranges["train"]
    return trainer


def _refuse_unfit(config: Config, dataset: Dataset) -> dict[str, tuple[float, float]]:
    """Refuse values that the likelihood has no density for, or that have no logarithm.

    Return the smallest and the largest value of each split. Missing values (NaN) are left out.
    """
    ranges = {}
    for split in dataset.split_names("all"):
        rows = dataset.splits[split]
        if len(rows):
            ranges[split] = _range(rows)
            for value in ranges[split]:
                _refuse_value(config, dataset.name, split, value)
    return ranges


def _refuse_value(config: Config, name: str, split: str, value: float) -> None:
    low, high = support_of(config.model)
    inputs = getattr(config.estep, "input", "raw")
    if math.isnan(value):
        raise Refusal(
            f"{name}: every value of split '{split}' is missing; some observed ones expected"
        )
    if value < low or value > high or math.isinf(value):
        likelihood = getattr(config.model, "likelihood", "")
        field = f"model.likelihood: '{likelihood}'" if likelihood else f"data.kind: '{name}'"
        wanted = f"finite values from {low:g} to {high:g}"
    elif value < 0 and inputs != "raw":
        field, wanted = f"estep.input: '{inputs}'", "values of 0 or more, or raw,"
    else:
        return
    raise Refusal(
        f"{field} with a value of {value:g} in split '{split}' of {name}; {wanted} expected"
    )


def _range(rows: Rows) -> tuple[float, float]:
    """Return the smallest and the largest observed value, or NaN if none is observed."""
    low = high = math.nan
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        low = float(np.fmin.reduce(block, axis=None, initial=low))
        high = float(np.fmax.reduce(block, axis=None, initial=high))
    return low, high


def split_rows(config: Config, rows: int, size: int) -> Lanes:
    """Return the lanes in which so many workers share the rows."""
    lanes, batch = Lanes.of(rows, config.train.batch), config.train.batch
    if size > lanes.count:
        raise Refusal(
            f"train.batch: {batch} can be shared by {lanes.count} workers at most, not by {size}"
        )
    return lanes


def _blocks(rows: Rows) -> Iterator[torch.Tensor]:
    return (torch.from_numpy(rows[i : i + BLOCK].copy()) for i in range(0, len(rows), BLOCK))


def _record_epoch(folder: Folder, trainer: Trainer, epoch: Epoch, owner: str) -> None:
    check_ownership(folder, owner)
    if epoch.best:
        checkpoint.save(
            folder, "best", weights(trainer.model, trainer.estep), {"epoch": epoch.epoch}
        )
    folder.append("epochs.jsonl", json.dumps(epoch.metrics()).encode() + b"\n")
