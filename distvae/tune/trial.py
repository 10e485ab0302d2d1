"""One trial of a sweep: an ordinary run for each of its seeds, judged, in a folder of its own. It
knows no Ray.
"""

import math
import secrets
import shutil
import statistics
import traceback
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distvae.config import flatten
from distvae.config.recipes import describe
from distvae.files.refusal import Refusal
from distvae.track import Tracker, run_tags
from distvae.tune.space import Space

if TYPE_CHECKING:
    from distvae.machines.worker_group import WorkerGroup
    from distvae.train.epoch import Epoch

Report = dict[str, Any]

FAILURE = "failure.txt"
"""The file of a trial's folder that says why it failed: the cause in a line, then where."""


@dataclass(frozen=True)
class Trials:
    """What the trials of a sweep have in common."""

    space: Space
    folder: Path
    """Where the folders of the trials are."""
    group: "WorkerGroup | None" = None
    """The workers of each; without them its own process trains."""
    place: Mapping[str, str] = field(default_factory=dict)
    """Where the process runs that runs them, as MLflow's tags."""
    gpus: tuple[int, ...] | None = None
    """Those that Ray assigned this process, by their places among those it sees; None: there is no
    Ray.
    """
    owner: str = field(default_factory=partial(secrets.token_hex, 8))
    """Who may ask them to stop: this sweep, not an earlier one in its folder that may still be
    there.
    """

    def at(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / str(number)

    def runs(self, number: int, values: Mapping[str, Any]) -> list["Attempt"]:
        """The runs of a trial: it is one itself, or has one below it for each seed."""
        if self.space.seeds == 1:
            return [Attempt(self, self.at(number), str(number), dict(values))]
        first = int(values.get("train.seed", self.space.base.train.seed))
        return [
            Attempt(
                self,
                self.at(number) / f"seed-{seed}",
                f"{number}.{k + 1}",
                {**values, "train.seed": seed},
            )
            for k, seed in enumerate(range(first, first + self.space.seeds))
        ]


@dataclass(frozen=True)
class Attempt:
    """One run of a trial."""

    trials: Trials
    folder: Path
    name: str
    values: dict[str, Any]

    def tracker(self) -> Tracker:
        """The record of the run, below the sweep's, whose process sends it."""
        space = self.trials.space
        try:
            params = flatten(space.config(self.values))
        except Refusal:  # the run itself will say so
            params = self.values
        parent, place = self.trials.folder.parent, dict(self.trials.place)
        tags = run_tags(space.recipe_of(self.values), self.folder, parent) | place
        name = f"{self.name} {describe(self.values)}"
        return Tracker(None, space.name, name, self.folder, params, tags, parent)

    @property
    def ended(self) -> bool:
        """Whether it was judged."""
        return (self.folder / "evaluation" / self.trials.space.split / "summary.json").exists()

    def epochs(self, tracker: Tracker) -> Iterator[Report]:
        """Train, from where an earlier attempt was cut short; a report after each epoch."""
        if not (
            self.folder / "run.json"
        ).exists():  # what may be there was cut short before it was of use
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        for told in self._trained():
            if isinstance(told, str):
                continue  # of workers that began anew, which the run folder remembers
            tracker.epoch(told)
            yield {"epoch": told.epoch, "bound": told.val_bound}

    def _trained(self) -> "Generator[Epoch | str, None, None]":
        """Epochs as they come, of a training in this process or in workers, until all trials are
        asked to stop.
        """
        from distvae.data import open_dataset
        from distvae.files.storage import Folder
        from distvae.machines import driver, stop_files
        from distvae.train.devices import select_device
        from distvae.train.run_folder import open_folder
        from distvae.train.session import fit

        trials, folder = self.trials, Folder(self.folder)
        config, recipe = trials.space.config(self.values), trials.space.recipe_of(self.values)
        dataset, stop = (
            open_dataset(config.data, quiet=True),
            stop_files.stop_requested(Folder(trials.folder), trials.owner),
        )
        if trials.group is None:
            device = select_device(config.train.device, trials.gpus)
            yield from fit(
                config, dataset, folder, recipe=recipe, resume=True, stop=stop, device=device
            )
        else:
            open_folder(config, dataset, folder, recipe, resume=True, force=False)
            yield from driver.lead_workers(config, recipe, folder, trials.group, stop)

    def judged(self, tracker: Tracker) -> dict[str, float]:
        """The figures of the trained model."""
        from distvae.tasks.evaluate import evaluate
        from distvae.train.run import Run

        run, space = Run.open(self.folder), self.trials.space
        summary = evaluate(run, split=space.split, force=True, progress=False).summary
        figures = _best_epoch(run.epochs()) | summary
        beside = against(figures, space.published(self.values))
        tracker.evaluation(summary | beside, self.folder / "evaluation" / space.split)
        tracker.model()
        figures |= beside
        for name in space.metrics:
            if not math.isfinite(figures.get(name, math.nan)):
                raise ArithmeticError(f"judging gave no {name}")
        return {name: value for name, value in figures.items() if math.isfinite(value)}

    def run(self) -> Iterator[Report]:
        """Train and judge; the last report has the figures."""
        from distvae.train.loop import Interrupted

        tracker = self.tracker()
        try:
            yield from self.epochs(tracker)
            yield {"figures": self.judged(tracker)}
        except Interrupted:
            tracker.close("KILLED")
            raise
        except Exception:
            tracker.close("FAILED")
            raise
        tracker.close("FINISHED")


def run_trial(
    trials: Trials, number: int, values: Mapping[str, Any]
) -> Generator[Report, None, None]:
    """Report each epoch of the first seed, and at last the figures, means over all seeds, or why
    there are none.

    A file in the folder of the trials asks all of them to stop; one that was is reported as such.

    A report of nothing says that an epoch of another seed has ended, so that a trial may be stopped
    there.
    """
    from distvae.train.loop import Interrupted

    folder, found = trials.at(number), list[dict[str, float]]()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for attempt in trials.runs(number, values):
            for report in attempt.run():
                if "figures" in report:
                    found.append(report["figures"])
                else:
                    yield {} if found else report
    except Interrupted:
        yield {"stopped": True}
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        (folder / FAILURE).write_text(f"{cause}\n\n{traceback.format_exc()}")
        yield {"failure": cause}
    else:
        yield {"figures": averaged(found)}


def against(figures: Mapping[str, float], published: Mapping[str, float]) -> dict[str, float]:
    """What was published for figures, and what these have beyond it."""
    known = {name: value for name, value in published.items() if name in figures}
    return {f"{name}_published": value for name, value in known.items()} | {
        f"{name}_difference": figures[name] - value for name, value in known.items()
    }


def averaged(found: list[dict[str, float]]) -> dict[str, float]:
    """Means of the figures that all seeds have, and if there are several their standard
    deviations.
    """
    names = [name for name in found[0] if all(name in figures for figures in found)]
    if len(found) == 1:
        return dict(found[0])
    values = {name: [figures[name] for figures in found] for name in names}
    spread = {
        f"{name}_spread": statistics.stdev(v)
        for name, v in values.items()
        if not name.endswith("_std")
    }
    return {name: statistics.fmean(v) for name, v in values.items()} | spread


def _best_epoch(epochs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    best = max(epochs, key=lambda record: record["val_objective"])
    return {name: best[name] for name in ("val_bound", "val_objective")}
