"""One trial of a sweep: an ordinary run, judged, in a folder of its own. It knows no Ray."""

import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distvae.config import Config, from_dict
from distvae.track import Tracker
from distvae.tune.results import describe

FAILURE = "failure.txt"
"""The file of a trial's folder that says why it failed: the cause in a line, then where."""
SPLIT = "val"
"""What trials are judged on: choosing among them must not see the test data."""


@dataclass(frozen=True)
class Trials:
    """What the trials of a sweep have in common."""

    folder: Path
    """Where the folders of the trials are."""
    recipe: str
    metrics: tuple[str, ...]
    experiment: str
    parent: str | None
    """The id of the sweep's record in MLflow."""
    root: Path
    """The folder of runs, where an embedded MLflow store is."""

    def at(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / str(number)

    def tracker(self, setting: Mapping[str, Any]) -> Tracker:
        """The record of a trial, below the sweep's."""
        config, number = from_dict(setting["config"]), int(setting["number"])
        name = f"{number + 1} {describe(setting['values'])}"
        return Tracker.open(config, self.recipe, self.at(number), self.experiment, self.parent, name, self.root)


def run_trial(trials: Trials, setting: Mapping[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
    """Train and judge; report each epoch, and at the end the figures."""
    tracker = trials.tracker(setting)
    tracker.folder.mkdir(parents=True)
    try:
        figures = _train_and_judge(trials, from_dict(setting["config"]), tracker, report)
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        (tracker.folder / FAILURE).write_text(f"{cause}\n\n{traceback.format_exc()}")
        tracker.close("FAILED")
        raise
    tracker.close("FINISHED")
    report({"figures": figures, **{name: figures[name] for name in trials.metrics}})


def _train_and_judge(
    trials: Trials, config: Config, tracker: Tracker, report: Callable[[dict[str, Any]], None]
) -> dict[str, float]:
    from distvae.data import open_dataset
    from distvae.tasks.evaluate import evaluate
    from distvae.train.run import Run
    from distvae.train.session import fit

    folder = tracker.folder
    for record in fit(config, open_dataset(config.data, quiet=True), folder, recipe=trials.recipe):
        tracker.epoch(record)
        report({"epoch": record.epoch, "bound": record.val_bound})
    run = Run.open(folder)
    summary = evaluate(run, split=SPLIT, progress=False).summary
    tracker.evaluation(summary, folder / "evaluation" / SPLIT)
    tracker.checkpoint(folder)
    figures = _best_epoch(run.epochs()) | summary
    for name in trials.metrics:
        if not math.isfinite(figures.get(name, math.nan)):
            raise ArithmeticError(f"judging gave no {name}")
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _best_epoch(epochs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    best = max(epochs, key=lambda record: record["val_objective"])
    return {name: best[name] for name in ("val_bound", "val_objective")}
