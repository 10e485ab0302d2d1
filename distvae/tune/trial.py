"""One trial of a sweep: an ordinary run, judged, in a folder of its own. It knows no Ray."""

import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distvae.config import flatten
from distvae.refusal import Refusal
from distvae.track import Store, Tracker, run_tags
from distvae.tune.results import describe
from distvae.tune.space import Space

Report = Callable[[dict[str, Any]], None]

FAILURE = "failure.txt"
"""The file of a trial's folder that says why it failed: the cause in a line, then where."""
SPLIT = "val"
"""What trials are judged on: choosing among them must not see the test data."""


@dataclass(frozen=True)
class Trials:
    """What the trials of a sweep have in common."""

    space: Space
    folder: Path
    """Where the folders of the trials are."""
    store: Store
    parent: str | None
    """The id of the sweep's record in MLflow."""

    def at(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / str(number)

    def tracker(self, number: int, values: Mapping[str, Any]) -> Tracker:
        """The record of a trial, below the sweep's."""
        try:
            params = flatten(self.space.config(values))
        except Refusal:  # the trial itself will say so
            params = dict(values)
        tags = run_tags(self.space.recipe, self.at(number), self.parent)
        name = f"{number} {describe(values)}"
        return Tracker(self.store, self.space.name, name, self.at(number), params, tags)


def run_trial(trials: Trials, number: int, values: Mapping[str, Any], report: Report) -> None:
    """Train and judge; report each epoch, and at the end the figures."""
    tracker = trials.tracker(number, values)
    tracker.folder.mkdir(parents=True)
    try:
        figures = _train_and_judge(trials.space, values, tracker, report)
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        (tracker.folder / FAILURE).write_text(f"{cause}\n\n{traceback.format_exc()}")
        tracker.close("FAILED")
        raise
    tracker.close("FINISHED")
    report({"figures": figures, **{name: figures[name] for name in trials.space.metrics}})


def _train_and_judge(space: Space, values: Mapping[str, Any], tracker: Tracker, report: Report) -> dict[str, float]:
    from distvae.data import open_dataset
    from distvae.tasks.evaluate import evaluate
    from distvae.train.run import Run
    from distvae.train.session import fit

    config, folder = space.config(values), tracker.folder
    for record in fit(config, open_dataset(config.data, quiet=True), folder, recipe=space.recipe):
        tracker.epoch(record)
        report({"epoch": record.epoch, "bound": record.val_bound})
    run = Run.open(folder)
    summary = evaluate(run, split=SPLIT, progress=False).summary
    tracker.evaluation(summary, folder / "evaluation" / SPLIT)
    tracker.checkpoint(folder)
    figures = _best_epoch(run.epochs()) | summary
    for name in space.metrics:
        if not math.isfinite(figures.get(name, math.nan)):
            raise ArithmeticError(f"judging gave no {name}")
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _best_epoch(epochs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    best = max(epochs, key=lambda record: record["val_objective"])
    return {name: best[name] for name in ("val_bound", "val_objective")}
