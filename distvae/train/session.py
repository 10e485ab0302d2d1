"""Train a run in its folder: begin or resume, record every epoch, and save checkpoints."""

import json
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from distvae.config import Amortised, Config, Train
from distvae.data.dataset import Dataset, recorded_facts
from distvae.estep import assemble
from distvae.estep.store import KeepsPopulations, PopulationFile
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.files.untrusted import Plain
from distvae.interface import Persistent, Searches, prepare
from distvae.models.likelihoods import support_of
from distvae.numerics.arithmetic import Arithmetic, choose_library
from distvae.train import checkpoint
from distvae.train.batches import BLOCK, split_rows
from distvae.train.checkpoint import CheckpointFacts, Place, read_document, read_manifest, weights
from distvae.train.cost import DataSize, check_fits_in_memory
from distvae.train.loop import Epoch, Interrupted, Trainer
from distvae.train.run_folder import (
    EPOCHS,
    RunInfo,
    check_ownership,
    drop_later_epochs,
    has_saved_state,
    is_owner,
    open_folder,
    read_info,
    take_ownership,
    update_info,
)
from distvae.train.team import ALONE, Team, select_device

Facts = Mapping[str, Plain]
"""Recorded facts of an `Arithmetic`."""
WAY_OUT = "the same expected, or train.bits=any to accept the difference"
SEEN_WITHIN = 10.0
"""Seconds within which other machines must see a file after it was written."""


@dataclass(frozen=True)
class RunOptions:
    """Options for starting, resuming, saving and stopping a training in a run folder."""

    recipe: str = ""
    resume: bool = False
    force: bool = False
    stop: Callable[[], object] = lambda: False
    """Called between batches; training stops when the result is true."""
    owner: str = ""
    """The owner of the run folder, if it is not this process."""
    recall: Callable[[Trainer, tuple[int, int] | None], bool] = lambda trainer, saved: False
    """Restores a state that is later than the saved epoch and batch, if there is a later state;
    returns whether it did.
    """
    save_every: int = 0
    """Always save after each multiple of this number of epochs, whatever it costs; 0 for never."""
    begun: Callable[[Trainer], object] = lambda trainer: None
    """Called when training starts or resumes."""
    between: Callable[[Trainer], object] = lambda trainer: None
    """Called between batches, by all workers at the same batches."""


def fit(
    config: Config,
    dataset: Dataset,
    out: Place,
    options: RunOptions | None = None,
    *,
    recipe: str = "",
    resume: bool = False,
    force: bool = False,
    stop: Callable[[], object] = lambda: False,
    team: Team = ALONE,
    device: torch.device | None = None,
) -> Generator[Epoch, None, None]:
    """Train into the folder `out`, a path or a URI, and yield a record after each epoch.

    `options` replaces `recipe`, `resume`, `force` and `stop`. `device` is by default the device of
    `train.device`.
    """
    options = options or RunOptions(recipe, resume, force, stop)
    folder = Folder.of(out)
    agree_on_arithmetic(config.train, device, team, folder if options.resume else None).apply()
    resumes = options.resume and has_saved_state(folder)
    trainer = build_trainer(config, dataset, team, device, resumes=resumes)
    yield from train_in_folder(trainer, config, dataset, out, options)


def train_in_folder(
    trainer: Trainer, config: Config, dataset: Dataset, out: Place, options: RunOptions
) -> Iterator[Epoch]:
    """Train as `fit` does, with a new trainer for the configuration."""
    folder, is_chief = Folder.of(out), trainer.team.rank == 0
    owner = _begin_or_resume(trainer, config, dataset, folder, options)
    options.begun(trainer)
    savings = Savings(folder, trainer, owner)

    def stop() -> object:
        options.between(trainer)
        return options.stop()

    try:
        for epoch in trainer.run(stop):
            if is_chief:
                check_ownership(folder, owner)
                if epoch.best:
                    best = weights(trainer.model, trainer.estep)
                    checkpoint.save(folder, "best", best, {"epoch": epoch.epoch})
                folder.append(EPOCHS, json.dumps(epoch.metrics()).encode() + b"\n")
            savings.after(epoch, options.save_every)
            yield epoch
    except Interrupted:
        savings.save()
        raise
    finally:
        if is_chief and is_owner(folder, owner):
            seconds, epochs = trainer.position.seconds, trainer.position.epoch
            update_info(folder, seconds=seconds, epochs=epochs, range=trainer.range)


def _begin_or_resume(
    trainer: Trainer, config: Config, dataset: Dataset, folder: Folder, options: RunOptions
) -> str:
    """Restore the state of a run that resumes, and return the owner of the folder."""
    team, owner = trainer.team, options.owner
    run = (config, dataset, folder, options.recipe, options.resume, options.force)
    saved, refusal = False, ""
    if team.rank == 0:
        try:
            saved = open_folder(*run)
        except Refusal as error:
            refusal = str(error)
    saved, refusal = team.gather((saved, refusal))[0]
    if refusal:  # on all workers
        raise Refusal(refusal)
    point = None
    if saved:
        point = checkpoint.epoch_and_batch(checkpoint.read_manifest(folder, "last.json")["facts"])
    recalled = options.recall(trainer, point)
    if saved and not recalled:
        _restore(trainer, folder)
    if team.rank == 0:
        owner = owner or take_ownership(folder)
        check_ownership(folder, owner)
        now, before = trainer.arithmetic.facts(), recorded_arithmetic(folder)
        if before and now != before:
            changes = [*read_info(folder).get("arithmetic_before", [])]
            changes.append({"until": trainer.position.epoch, **before})
            update_info(folder, arithmetic_before=changes)
        noise = trainer.ending.noise
        update_info(folder, arithmetic=now, val_rows=trainer.val_rows, noise=noise)
        drop_later_epochs(folder, trainer.position.epoch)
        if not recalled:
            checkpoint.restore_best(folder)
    team.barrier()
    return owner


def _restore(trainer: Trainer, folder: Folder) -> None:
    """Restore the last state. If it cannot be read, the error names the previous state."""
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


def build_trainer(
    config: Config,
    dataset: Dataset,
    team: Team = ALONE,
    device: torch.device | None = None,
    copies: int = 1,
    resumes: bool = False,
) -> Trainer:
    """Return a new trainer whose model and E-step are prepared for the data.

    `device` is by default the device of `train.device`. `copies` is the number of copies of the
    populations in this machine's memory. With `resumes`, populations are not drawn, because they
    will be read.
    """
    ranges = refuse_unfit(config, dataset)
    check_fits_in_memory(config, DataSize.of(dataset), team.size, copies)
    model, estep = assemble(config, dataset.dims, dataset.shape)
    if not isinstance(estep, Searches):
        dataset.split_names("val")  # refuses data without rows to validate on
    train = dataset.splits["train"]
    held = split_rows(config, len(train), team.size).held(team.rank, team.size)
    facts = recorded_facts(train)

    def blocks() -> Iterator[torch.Tensor]:
        for first in range(0, len(train), BLOCK):
            yield torch.from_numpy(train[first : first + BLOCK].copy())

    prepare(model, blocks(), held, config.train.seed, facts)
    if resumes and isinstance(estep, KeepsPopulations):
        estep.allocate(held)
    else:
        prepare(estep, blocks(), held, config.train.seed, facts)
    # Searches keep populations only for training rows.
    val = train if isinstance(estep, Searches) else dataset.splits["val"]
    trainer = Trainer(config.train, model, estep, train, val, team, device, dataset.scale)
    trainer.range = ranges["train"]
    return trainer


def refuse_unfit(config: Config, dataset: Dataset) -> dict[str, tuple[float, float]]:
    """Refuse values without a density under the likelihood, or without a logarithm if needed.

    Return the smallest and the largest value of each split. Missing values (NaN) are left out.
    """
    dataset.split_names("train")  # refuses data without rows to train on
    ranges = {}
    for split in dataset.split_names("all"):
        rows = dataset.splits[split]
        low = high = math.nan
        if facts := recorded_facts(rows):
            low, high = facts.range
        else:
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK]
                low = float(np.fmin.reduce(block, axis=None, initial=low))
                high = float(np.fmax.reduce(block, axis=None, initial=high))
        for value in (low, high):
            _refuse_value(config, dataset.name, split, value)
        ranges[split] = low, high
    return ranges


def _refuse_value(config: Config, name: str, split: str, value: float) -> None:
    low, high = support_of(config.model)
    if math.isnan(value):
        raise Refusal(
            f"{name}: every value of split '{split}' is missing; some observed ones expected"
        )
    if value < low or value > high or math.isinf(value):
        likelihood = getattr(config.model, "likelihood", "")
        field = f"model.likelihood: '{likelihood}'" if likelihood else f"data.kind: '{name}'"
        wanted = f"finite values from {low:g} to {high:g}"
        if math.isinf(value):
            wanted = "finite values that 32 bits can hold, below 3.4e38,"
    elif value < 0 and isinstance(config.estep, Amortised) and config.estep.takes_logarithm:
        field = f"estep.input: '{config.estep.input}'"
        wanted = "values of 0 or more, or standard or raw,"
    else:
        return
    raise Refusal(
        f"{field} with a value of {value:g} in split '{split}' of {name}; {wanted} expected"
    )


class Savings:
    """Saves the state of a run after epochs, with little overhead.

    Epochs that a crash loses are trained again, with the same result.
    """

    share = 0.05
    """The maximum share of the time that saving takes."""
    pause = 2.0
    """The minimum seconds between two saves."""

    def __init__(self, folder: Folder, trainer: Trainer, owner: str) -> None:
        self.folder, self.trainer, self.owner = folder, trainer, owner
        self.due = 0.0

    def after(self, epoch: Epoch, every: int = 0) -> None:
        """Save after the last epoch, after every `every`-th epoch, or if a save is due."""
        over = self.trainer.ending.is_reached(self.trainer.position)
        over = over or bool(every and epoch.epoch % every == 0)
        if over or self.trainer.team.gather(time.monotonic() >= self.due)[0]:
            self.save()

    def save(self) -> None:
        """Save the populations first, then the checkpoint that names them."""
        began, trainer, team = time.monotonic(), self.trainer, self.trainer.team
        tensors, position = trainer.state()
        team.barrier()  # worker 0 may still be deleting files that no checkpoint names
        generation = f"{position['epoch']:05}-{position['batch']:05}"
        files = []
        if isinstance(trainer.estep, Persistent):
            files = trainer.estep.save(self.folder.place, generation)
        saved = team.gather(files)
        if team.rank == 0:
            check_ownership(self.folder, self.owner)
            populations = [kept for worker in saved for kept in worker]
            self._refuse_unseen(populations)
            facts: CheckpointFacts = {
                "position": position,
                "populations": populations,
                "arithmetic": trainer.arithmetic.facts(),
            }
            checkpoint.save_last(self.folder, tensors, facts)
        now = time.monotonic()
        self.due = now + max(self.pause, (now - began) / self.share)

    def _refuse_unseen(self, populations: Iterable[PopulationFile]) -> None:
        """Refuse files that another worker saved but this worker cannot see. A checkpoint that
        names them could not be read.
        """
        deadline = time.monotonic() + SEEN_WITHIN
        for kept in populations:
            while self.folder.size(kept["file"]) != kept["bytes"]:
                if time.monotonic() > deadline:
                    raise Refusal(
                        f"{self.folder}: {kept['file']} is not there, though another worker saved"
                        " it; a storage that all machines see expected (is it mounted on each of"
                        " them?)"
                    )
                time.sleep(0.1)


def agree_on_arithmetic(
    config: Train,
    device: torch.device | None = None,
    team: Team = ALONE,
    folder: Folder | None = None,
) -> Arithmetic:
    """Return the arithmetic of this worker, which follows the run in `folder`, or else worker 0.

    Raise `Refusal` if a worker cannot compute the same bits, unless `train.bits` is `any`.
    """
    device = device or select_device(config.device)
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
