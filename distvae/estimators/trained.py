"""A trained run in memory, and the codes and bounds that an estimator computes with it."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from operator import attrgetter
from pathlib import Path

import torch
from torch import Tensor

from distvae.config import Config
from distvae.data.dataset import Array, Dataset, Rows
from distvae.files.paths import check_writable_folder, given_path, make_folder
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.interface import Batch
from distvae.models.posteriors import active_code
from distvae.numerics.noise import VALIDATION, Noise, row_keys
from distvae.train import checkpoint
from distvae.train.checkpoint import load_weights, weights
from distvae.train.loop import Trainer
from distvae.train.progress import Progress
from distvae.train.run import InputFormat, Run
from distvae.train.run_folder import EPOCHS
from distvae.train.session import RunOptions, agree_on_arithmetic, fit, run_arithmetic

DOCUMENTS = ("run.json", "config.yaml", EPOCHS)
"""The files of a run folder that an estimator keeps besides checkpoints."""
CHECKPOINTS = ("best.json", "last.json")
"""The checkpoints that an estimator keeps, without the populations of training rows."""


class Trained:
    """A trained run, whose folder may be deleted. It is pickled as the files of the folder."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        """The content of each file, by name."""
        with self._unpacked() as path:
            self.run = Run.open(path)
            self.epochs = self.run.epochs()
            """The records of the epochs."""

    @classmethod
    def in_folder(cls, path: Path) -> "Trained":
        """Read the run in a folder."""
        folder = Folder(path)
        names = [*DOCUMENTS]
        for name in CHECKPOINTS:
            names += [name, checkpoint.read_manifest(folder, name)["tensors"]]
        return cls({name: folder.read(name) for name in names})

    def __reduce__(self) -> tuple[type["Trained"], tuple[Mapping[str, bytes]]]:
        return Trained, (self.files,)

    def follow(self, before: "Trained") -> None:
        """Prepend the records of the previous run, which this run continues."""
        self.files = {**self.files, EPOCHS: before.files[EPOCHS] + self.files[EPOCHS]}
        self.epochs = [*before.epochs, *self.epochs]

    def save(self, path: Path) -> None:
        """Write the files to a new run folder."""
        make_folder(path)
        if any(path.iterdir()):
            raise Refusal(f"{path}: exists and is not empty; a new folder expected")
        for name, content in self.files.items():
            (path / Path(name).name).write_bytes(content)

    @contextmanager
    def _unpacked(self) -> Iterator[Path]:
        """Yield a temporary folder with the files."""
        with temporary_folder() as path:
            self.save(path)
            yield path

    def give_weights(self, trainer: Trainer) -> None:
        """Initialise a trainer with the best weights of this run."""
        with self._unpacked() as path:
            tensors, _ = checkpoint.load(path, "best")
        _refuse_other_sizes(trainer, tensors)
        load_weights(trainer.model, trainer.estep, tensors)

    def give_state(self, trainer: Trainer) -> None:
        """Let a trainer continue this run on other rows. The range of values covers both."""
        with self._unpacked() as path:
            tensors, facts = checkpoint.load(path, "last")
        _refuse_other_sizes(trainer, tensors)
        position = facts["position"]
        epoch = position["epoch"]
        batches = math.ceil(self.run.info["rows"]["train"] / self.run.config.train.batch)
        position["shift"] = position.get("shift", 0) + epoch * (batches - trainer.batches)
        position |= {"best": -math.inf, "best_epoch": epoch, "sigma": math.inf}
        trainer.restore(tensors, position)
        known = (*trainer.range, *self.run.info.get("range", ()))
        trainer.range = (min(known), max(known))


def _refuse_other_sizes(trainer: Trainer, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights whose sizes differ from the trainer's."""
    wanted = {
        name: tuple(value.shape) for name, value in weights(trainer.model, trainer.estep).items()
    }
    fitted = {
        name: tuple(value.shape)
        for name, value in tensors.items()
        if name.startswith(("model.", "estep."))
    }
    for name in {**wanted, **fitted}:
        if wanted.get(name) != fitted.get(name):
            raise Refusal(
                f"{name.partition('.')[2]}: {wanted.get(name, 'none')} by these parameters, and"
                f" {fitted.get(name, 'none')} in the fitted model; a new fit, or parameters that"
                " change no size, expected"
            )


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield the path of a new folder inside a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="distvae-") as path:
        yield Path(path) / "run"


def train(
    config: Config,
    dataset: Dataset,
    folder: str | Path | None,
    options: RunOptions,
    progress: Progress,
) -> Trained:
    """Train into a folder, or into a temporary folder, and return the run.

    The threads and the precision of torch are restored afterwards.
    """
    place = temporary_folder() if folder is None else nullcontext(given_path(folder, "folder"))
    with place as path:
        check_writable_folder(path)
        try:
            with agree_on_arithmetic(config.train).applied():
                for epoch in fit(config, dataset, path, options):
                    progress.epoch(epoch)
        except KeyboardInterrupt as interrupt:
            if folder is not None and Folder(folder).has("best.json"):
                interrupt.add_note(f"distvae.load({str(folder)!r}) opens the run so far")
            raise
        progress.end()
        return Trained.in_folder(path)


def codes(run: Run, rows: Rows, active: bool = False) -> Array:
    """Return the codes of rows, (N, H). The code of a row depends only on its values. With
    `active`, values that are not active are zero.
    """
    code = active_code if active else attrgetter("code")
    return _in_blocks(run, rows, lambda x: code(run.posterior(x)))


def bounds(run: Run, rows: Rows) -> Array:
    """Return lower bounds of log p(x) of rows, (N,) nats, estimated by one draw.

    The bound of a row depends only on its values.
    """

    def bound(x: Tensor) -> Tensor:
        row = row_keys(x)
        noise = Noise(run.config.train.seed, VALIDATION, row)
        return run.model.bound(Batch.of(x, row), run.posterior(x, row), noise)

    return _in_blocks(run, rows, bound)


@torch.no_grad()
def _in_blocks(run: Run, rows: Rows, f: Callable[[Tensor], Tensor]) -> Array:
    """Apply a function of rows in blocks."""
    expected = InputFormat.of_run(run.config, run.dims, run.info, "X")
    with run_arithmetic(run.info):
        return run.in_blocks(expected.check_table(rows), f, expected)
