"""Train one model in batches of several sizes, with its rates held or scaled.

The base is the recipe as it is. All other trainings have its seed and its epochs, and count warmups
in rows. With `same_time` each is also trained for as many epochs as take the processor time of
the base. Finished trainings are rows of the table `batches`. Those that are kept are not trained
again.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import median

from distvae.bench.output import Output
from distvae.bench.timing import timed_call
from distvae.config import Config, flatten
from distvae.config.train import Scaling
from distvae.data import open_dataset
from distvae.data.dataset import Dataset
from distvae.data.signals import Signal
from distvae.files.plain import Plain
from distvae.report.results.rows import find_row
from distvae.tasks.fidelity import fidelity
from distvae.tasks.pictures import QualityPoint, draw_now, quality_by_batch
from distvae.tasks.presets import corrupted_windows
from distvae.tasks.restoration import Restoration, Stage
from distvae.train.bits import agree_on_arithmetic
from distvae.train.session import build_trainer
from distvae.train.stopping import Diverged
from distvae.tune.space import vary

TABLE = "batches"
"""The table of the rows."""
SCALINGS: tuple[Scaling, ...] = ("none", "root", "linear")
Scores = Mapping[str, float]


@dataclass(frozen=True)
class Sizes:
    """The batches to train in."""

    batches: tuple[int, ...]
    scalings: tuple[Scaling, ...] = SCALINGS
    same_time: bool = False
    """Train each also for the processor time of the base."""
    rows: int | None = None
    """About how many rows to train on, evenly spaced; None: all. A restoration takes all."""


@dataclass(frozen=True)
class BatchCase:
    """A training of a recipe in batches of some size."""

    recipe: str
    base: Config
    batch: int
    rows: int | None = None
    """About how many rows are trained on; None: all."""
    scaling: Scaling = "none"
    epochs: int = 0
    """Instead of the recipe's, if it is not 0."""

    @property
    def config(self) -> Config:
        """Return the configuration of the training."""
        settings: dict[str, Plain] = {
            "train.batch": self.batch,
            "train.scale_rate": self.scaling,
            "train.base_batch": self.base.train.batch,
            "train.epochs": self.epochs or self.base.train.epochs,
        }
        return vary(self.base, settings)

    @property
    def way(self) -> str:
        """Return what happens to the rates, in a word."""
        return "held" if self.scaling == "none" else self.scaling

    @property
    def section(self) -> str:
        """Return the heading under which the row stands."""
        return self.recipe if self.rows is None else f"{self.recipe}, {self.rows} rows"

    @property
    def name(self) -> str:
        """Return the name of its row."""
        train = self.config.train
        rows = "" if self.rows is None else f"-{self.rows}-rows"
        return f"{self.recipe}{rows}-{self.batch}-{self.way}-{train.epochs}-s{train.seed}"


@dataclass(frozen=True)
class Result:
    """The quality of a training, epoch by epoch."""

    bounds: list[float]
    """Validation bounds, nats per row."""
    psnrs: list[float]
    """PSNR of a restored picture, empty for other data."""
    processor_s: float
    """Processor seconds of the median epoch, times the number of epochs."""
    diverged: bool

    @property
    def bound(self) -> float:
        """Return the bound of the weights that are used: the last of a restoration, else the best;
        NaN after a divergence.
        """
        if self.diverged:
            return math.nan
        return self.bounds[-1] if self.psnrs else max(self.bounds)

    @property
    def quality(self) -> float:
        """Return PSNR of a restoration, the bound of other trainings."""
        return self.psnrs[-1] if self.psnrs and not self.diverged else self.bound

    def figures(self) -> dict[str, float | list[float]]:
        """Return the figures of the row."""
        found: dict[str, float | list[float]] = {
            "processor_s": round(self.processor_s, 2),
            "diverged": float(self.diverged),
            "bound_by_epoch": self.bounds,
        }
        if not self.diverged:
            found["val_bound"] = self.bound
        if self.psnrs:
            found["psnr_by_epoch"] = self.psnrs
        if self.psnrs and not self.diverged:
            found["psnr"] = self.quality
        return found

    @classmethod
    def read(cls, figures: Mapping[str, object]) -> "Result":
        """Return the result that a row holds."""
        bounds, psnrs = figures["bound_by_epoch"], figures.get("psnr_by_epoch", [])
        seconds, diverged = figures["processor_s"], figures["diverged"]
        assert isinstance(bounds, list)
        assert isinstance(psnrs, list)
        assert isinstance(seconds, float | int)
        return cls(bounds, psnrs, seconds, bool(diverged))


Results = dict[BatchCase, Result]


def bench_batches(
    recipe: str, base: Config, sizes: Sizes, output: Output, picture: Path | None = None
) -> None:
    """Train a recipe in batches of each size, and show the quality of each."""
    first = BatchCase(recipe, base, base.train.batch, sizes.rows)
    results = {first: finish(first, output)}
    for case in cases_of(first, sizes):
        results[case] = finish(case, output)
        longer = lengthen(case, results[case], results[first])
        if sizes.same_time and longer:
            results[longer] = finish(longer, output)
    if not output.json:
        print("\n".join(batch_table_lines(results)))
    if picture is not None:
        label = "PSNR, dB" if results[first].psnrs else "validation bound, nats per row"
        draw_now(partial(quality_by_batch, list(points_of(results)), recipe, label), picture)


def cases_of(first: BatchCase, sizes: Sizes) -> Iterator[BatchCase]:
    """Yield the trainings beside the base, for as many epochs."""
    for batch in sizes.batches:
        for scaling in sizes.scalings:
            if batch != first.batch:
                yield replace(first, batch=batch, scaling=scaling)


def lengthen(case: BatchCase, result: Result, base: Result) -> BatchCase | None:
    """Return the training for as many epochs as take the time of the base, if these are more."""
    if result.diverged:
        return None
    epochs = case.config.train.epochs
    longer = round(epochs * base.processor_s / result.processor_s)
    return replace(case, epochs=longer) if longer > epochs else None


def finish(case: BatchCase, output: Output) -> Result:
    """Return the result of a training: the one that is kept, or else of a new one."""
    row = find_row(output.folder, TABLE, case.name) if output.folder else None
    if row is not None:
        return Result.read(row.all_figures)
    result, train = train_case(case), case.config.train
    settings: dict[str, Plain] = {
        "recipe": case.recipe,
        "train.batch": train.batch,
        "train.scale_rate": train.scale_rate,
        "train.base_batch": case.base.train.batch,
        "train.epochs": train.epochs,
        "train.seed": train.seed,
        "rows": case.rows or "all",
        **_window_settings(case.base),
    }
    facts: dict[str, str | float] = {
        "table": TABLE,
        "section": case.section,
        "epochs": train.epochs,
    }
    figures = result.figures()
    output.keep(case.name, figures, settings, facts)
    told = {name: value for name, value in figures.items() if not isinstance(value, list)}
    output.show({"row": case.name, **settings, **told}, _tell(case.name, told))
    return result


def _window_settings(config: Config) -> dict[str, Plain]:
    """Return what decides how many windows of a picture there are, and how noisy it is."""
    windows = corrupted_windows(config)
    if windows is None:
        return {}
    settings = flatten(config)
    return {key: settings[key] for key in ("data.noise", "data.drop", "data.stride")}


def _tell(name: str, figures: Mapping[str, float]) -> str:
    return f"{name}: " + ", ".join(f"{key} {value:.5g}" for key, value in figures.items())


def train_case(case: BatchCase) -> Result:
    """Train, and measure quality after each epoch. Scoring takes no part in the time."""
    result = Result([], [], 0.0, diverged=False)
    seconds: list[float] = []
    epochs = train_epochs(case)
    try:
        while True:
            score, spent = timed_call(next, epochs, None, clock=time.process_time)
            if score is None:
                break
            seconds.append(spent)
            scores = score()
            result.bounds.append(round(scores["val_bound"], 4))
            if "psnr" in scores:
                result.psnrs.append(round(scores["psnr"], 4))
    except Diverged:
        result = replace(result, diverged=True)
    # The first epoch of a process compiles.
    return replace(result, processor_s=len(seconds) * median(seconds or [0.0]))


def train_epochs(case: BatchCase) -> Iterator[Callable[[], Scores]]:
    """Train, and yield after each epoch a function that returns its scores: the bound, and PSNR
    where a picture is restored.
    """
    config = case.config
    windows = corrupted_windows(config)
    if windows is None:
        dataset = open_part(case.base, case.rows)
        agree_on_arithmetic(config.train).apply()
        for epoch in build_trainer(config, dataset).run():
            yield partial(dict, val_bound=epoch.val_bound)
        return
    clean = windows.clean()
    restoration = Restoration(config, windows.corrupt(clean).values)
    for stage in restoration.run():
        yield partial(_score_stage, stage, clean, restoration)


@cache
def open_part(config: Config, rows: int | None) -> Dataset:
    """Return data of which about so many rows are trained on; other splits shrink with them."""
    dataset = open_dataset(config.data, quiet=True)
    step = 1 if rows is None else max(1, len(dataset.splits["train"]) // rows)
    return replace(dataset, splits={name: part[::step] for name, part in dataset.splits.items()})


def _score_stage(stage: Stage, clean: Signal, restoration: Restoration) -> Scores:
    return {"val_bound": stage.bound, **fidelity(clean, restoration.restored())}


def batch_table_lines(results: Results) -> Iterator[str]:
    """Yield the lines of a table, with differences from the base."""
    base = next(iter(results.values()))
    yield f"{'batch':>6} {'rate':8} {'epochs':>6} {'quality':>9} {'beside base':>12} {'seconds':>8}"
    for case, result in results.items():
        numbers = f"{result.quality:9.3f} {result.quality - base.quality:+12.3f}"
        epochs, seconds = case.config.train.epochs, result.processor_s
        yield f"{case.batch:6} {case.way:8} {epochs:6} {numbers} {seconds:8.1f}"


def points_of(results: Results) -> Iterator[QualityPoint]:
    """Yield the points of the picture: those for the epochs of the base, and those for its time."""
    first, *others = results
    for case in others:
        for one in (first, case):
            lasting = "the same time" if case.epochs else "the same epochs"
            yield QualityPoint(case.way, lasting, one.batch, results[one].quality)
