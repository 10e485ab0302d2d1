"""One trial of a sweep: a run for each of its seeds, trained and evaluated. Uses no Ray."""

import json
import math
import secrets
import shutil
import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

from distvae.config import flatten
from distvae.config.recipes import describe
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder
from distvae.files.untrusted import path_inside, read_figures
from distvae.track import Tracker, run_tags
from distvae.tune.branching import lineage_tags, saved_epoch
from distvae.tune.figures import average_figures, compare_with_published
from distvae.tune.judgments import judge_if_due
from distvae.tune.space import Space

if TYPE_CHECKING:
    from distvae.machines.worker_group import WorkerGroup
    from distvae.train.epoch import Epoch

FIGURES = "figures.json"
"""The file of a finished run of a trial: what it reported at its end."""
FAILURE = "failure.txt"
"""The file of a trial's folder that says why it failed: the cause in a line, then a traceback."""


class Report(TypedDict, total=False):
    """An epoch (`epoch`, `seed`, `bound`, `metrics`), or how a trial ended."""

    epoch: int
    seed: int
    """Which of the trial's seeds was trained, from 0."""
    bound: float
    """The bound on validation data, in nats per data point."""
    metrics: dict[str, float]
    """All figures of the epoch, as they are recorded."""
    figures: dict[str, float]
    stopped: bool
    """Whether the trial was interrupted and can be resumed."""
    paused: bool
    """Whether the trial has reached the epoch until which it was to train."""
    failure: str


@dataclass(frozen=True)
class Trials:
    """The space, the folder and the workers that all trials of a sweep share."""

    space: Space
    folder: Path
    """The folder that contains those of the trials."""
    group: "WorkerGroup | None" = None
    """The workers of each trial; without them its own process trains."""
    place: Mapping[str, str] = field(default_factory=dict)
    """Tags for MLflow that say where this process runs."""
    gpus: tuple[int, ...] | None = None
    """The GPUs that Ray assigned to this process, by their places among the visible ones; None
    without Ray.
    """
    owner: str = field(default_factory=partial(secrets.token_hex, 8))
    """A name of this sweep: trials ignore a request to stop an earlier sweep in the folder."""

    def folder_of(self, number: int) -> Path:
        """Return the folder of a trial."""
        return path_inside(self.folder, str(number))

    def runs(
        self, number: int, values: Mapping[str, Plain], until: int | None = None
    ) -> list["TrialRun"]:
        """Return the runs of a trial: the trial itself, or one below it for each seed.

        They train until an epoch, or to their end.
        """
        if self.space.seeds == 1:
            return [TrialRun(self, self.folder_of(number), str(number), dict(values), until)]
        first = int(cast(int, values.get("train.seed", self.space.base.train.seed)))
        runs = []
        for index in range(self.space.seeds):
            seed = first + index
            folder = self.folder_of(number) / f"seed-{seed}"
            seeded = {**values, "train.seed": seed}
            runs.append(TrialRun(self, folder, f"{number}.{index + 1}", seeded))
        return runs


@dataclass(frozen=True)
class TrialRun:
    """One run of a trial."""

    trials: Trials
    folder: Path
    name: str
    values: dict[str, Plain]
    until: int | None = None
    """The epoch after which it pauses; None for none."""

    def tracker(self) -> Tracker:
        """Return the run's record in MLflow, below that of the sweep, whose process sends it."""
        space = self.trials.space
        params: Mapping[str, Plain] = self.values
        sinks: Sequence[str] = ()
        with suppress(Refusal):  # training will raise it again
            config = space.config(self.values)
            params, sinks = flatten(config), config.train.sinks
        sweep_folder = self.trials.folder.parent
        tags = run_tags(space.recipe_of(self.values), self.folder, sweep_folder)
        tags |= dict(self.trials.place) | lineage_tags(self.folder)
        tags |= {f"varied.{key}": str(value) for key, value in self.values.items()}
        name = f"{self.name} {describe(self.values)}"
        return Tracker(self.folder, None, space.name, name, params, tags, sweep_folder, sinks)

    @property
    def evaluation(self) -> Path:
        """The folder of the run's evaluation."""
        return self.folder / "evaluation" / self.trials.space.split

    @property
    def evaluated(self) -> bool:
        """True if the run has been evaluated."""
        return (self.evaluation / "summary.json").exists()

    def run(self) -> Iterator[Report]:
        """Train and evaluate; the last report has the figures."""
        from distvae.train.stopping import Interrupted

        if (self.folder / FIGURES).exists():  # another seed of the trial goes on
            yield {"figures": cast(dict[str, float], read_figures(self.folder / FIGURES))}
            return
        tracker = self.tracker()
        try:
            yield from self._train(tracker)
            figures = self._evaluate(tracker) if self.until is None else {}
        except (Interrupted, GeneratorExit):  # asked to stop, or halted
            tracker.close("KILLED")
            raise
        except Exception:
            tracker.close("FAILED")
            raise
        if self.until is None:
            tracker.close("FINISHED")
            Folder(self.folder).write(FIGURES, json.dumps(figures).encode())
            yield {"figures": figures}
        else:
            tracker.pause()
            yield {"paused": True}

    def _train(self, tracker: Tracker) -> Iterator[Report]:
        """Train, or resume training, and report each epoch; judge those that are judged."""
        from distvae.train.epoch import Epoch
        from distvae.train.run import read_epochs

        if not (self.folder / "run.json").exists():
            # a run that was killed before this file exists has nothing to resume
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        space, finished = self.trials.space, saved_epoch(self.folder)
        if judge_if_due(self.folder, space, finished):
            last = read_epochs(self.folder)[-1]
            yield {"epoch": int(last["epoch"]), "bound": last["val_bound"], "metrics": last}
        if finished == self.until:
            return
        with closing(self._events()) as events:
            for event in events:
                if isinstance(event, Epoch):  # else workers were restarted, as it is recorded
                    tracker.epoch(event)
                    judge_if_due(self.folder, space, event.epoch)
                    yield {
                        "epoch": event.epoch,
                        "bound": event.val_bound,
                        "metrics": event.metrics(),
                    }
                    if event.epoch == self.until:
                        return

    def _events(self) -> "Generator[Epoch | str, None, None]":
        """Yield the epochs of a training in this process or in workers, until asked to stop."""
        from distvae.data import open_dataset
        from distvae.machines import driver, stop_files
        from distvae.train.devices import select_device
        from distvae.train.run_folder import open_folder
        from distvae.train.session import RunOptions, fit_with

        trials, folder = self.trials, Folder(self.folder)
        config = trials.space.config(self.values)
        recipe = trials.space.recipe_of(self.values)
        dataset = open_dataset(config.data, quiet=True)
        stop = stop_files.stop_requested(Folder(trials.folder), trials.owner)
        if trials.group is None:
            device = select_device(config.train.device, trials.gpus)
            every = trials.space.judge.interval if trials.space.judge else 0
            options = RunOptions(recipe, resume=True, stop=stop, save_every=every)
            yield from fit_with(config, dataset, folder, options, device=device)
        else:
            open_folder(config, dataset, folder, recipe, resume=True, force=False)
            yield from driver.lead_workers(config, recipe, folder, trials.group, stop)

    def _evaluate(self, tracker: Tracker) -> dict[str, float]:
        """Return the figures of the trained model, the published ones beside them."""
        from distvae.tasks.evaluate import evaluate
        from distvae.train.run import Run, best_epoch

        run, space = Run.open(self.folder), self.trials.space
        # the rows of a table are all shown; of other trials only those that the report shows
        summary = evaluate(
            run, split=space.split, force=True, progress=False, with_pictures=bool(space.rows)
        ).summary
        kept = best_epoch(run.path, epochs := run.epochs())
        best = {name: kept[name] for name in ("val_bound", "val_objective")}
        figures = best | summary
        comparison = compare_with_published(figures, space.published(self.values))
        tracker.figures(best, int(epochs[-1]["epoch"]))  # MLflow shows the last
        tracker.figures(summary | comparison)
        figures |= comparison
        for name in space.metrics:
            if not math.isfinite(figures.get(name, math.nan)):
                raise ArithmeticError(f"the evaluation gave no {name}")
        return {name: value for name, value in figures.items() if math.isfinite(value)}


def run_trial(
    trials: Trials, number: int, values: Mapping[str, Plain], until: int | None = None
) -> Generator[Report, None, None]:
    """Report each epoch, and in the end how the trial ended.

    It ends early after an epoch until which it is to train. The figures are means over all seeds. A
    file in the folder of the trials asks all of them to stop.
    """
    from distvae.train.stopping import Interrupted

    folder = trials.folder_of(number)
    folder.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, float]] = []
    try:
        for run in trials.runs(number, values, until):
            for report in run.run():
                if "paused" in report:
                    yield report
                    return
                if "figures" in report:
                    found.append(report["figures"])
                else:
                    yield {**report, "seed": len(found)}
    except Interrupted:
        yield {"stopped": True}
    except Exception as error:
        (folder / FAILURE).write_text(f"{cause(error)}\n\n{traceback.format_exc()}")
        yield {"failure": cause(error)}
    else:
        yield {"figures": average_figures(found)}
