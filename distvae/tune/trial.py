"""One trial of a sweep: a run for each of its seeds, trained and evaluated. Uses no Ray."""

import json
import math
import secrets
import shutil
import statistics
import sys
import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict, cast

from distvae.config import flatten
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder
from distvae.files.untrusted import Plain, path_inside, read_figures
from distvae.numerics.metrics import without_spreads
from distvae.track import Status, Tracker, run_tags
from distvae.track.tracker import read_record
from distvae.tune.results import Result, shown_in_report
from distvae.tune.space import Space
from distvae.tune.study import judge_if_due

if TYPE_CHECKING:
    from distvae.machines.cluster import WorkerGroup
    from distvae.train.loop import Epoch
    from distvae.train.run_folder import Lineage

FIGURES = "figures.json"
"""The file of a finished run of a trial, with its figures."""
FAILURE = "failure.txt"
"""The file of a trial's folder that says why it failed: the cause in a line, then a traceback."""
LAST_PICTURE = "learning.png"
"""The picture that is drawn last: a run that has it has all pictures."""


class Report(TypedDict, total=False):
    """An epoch (`epoch`, `seed`, `bound`, `metrics`), or how a trial ended."""

    epoch: int
    seed: int
    """The index of the seed that was trained, from 0."""
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


class TrialProgress(NamedTuple):
    """The progress of a trial that has begun and not ended."""

    epoch: int = 0
    """Epochs finished of the seed that was trained last."""
    bound: float | None = None
    """The bound on validation data after that epoch."""
    seconds: float = 0.0
    """The time of its own epochs, of all seeds."""
    seed: int = 0
    """The index of the seed that was trained last, from 0."""


NO_PROGRESS = TrialProgress()


@dataclass(frozen=True)
class Trials:
    """The space, the folder and the workers that all trials of a sweep share."""

    space: Space
    folder: Path
    """The folder with a folder for each trial."""
    group: "WorkerGroup | None" = None
    """The workers of each trial; without them its own process trains."""
    place: Mapping[str, str] = field(default_factory=dict)
    """Tags for MLflow that say where this process runs."""
    gpus: tuple[int, ...] | None = None
    """The GPUs that Ray assigned to this process, as indices of the visible GPUs; None without Ray.
    """
    storage: str = field(default="", repr=False)
    """The URI of the folder of an object store that keeps the sweep; empty for none."""
    home: Path | None = None
    """The folder of the trials on the machine of the sweep; None if it is `folder`."""
    owner: str = field(default_factory=partial(secrets.token_hex, 8))
    """A name of this sweep: trials ignore a request to stop an earlier sweep in the folder."""

    @property
    def shared(self) -> Folder:
        """The folder of the trials that all processes see."""
        return Folder(self.storage).subfolder("trials") if self.storage else Folder(self.folder)

    def folder_of(self, number: int) -> Path:
        """Return the folder of a trial."""
        return path_inside(self.folder, str(number))

    def runs(
        self, number: int, values: Mapping[str, Plain], until: int | None = None
    ) -> list["TrialRun"]:
        """Return the runs of a trial: the trial itself, or a run below it for each seed.

        They train until an epoch, or to their end.
        """
        if self.space.seeds == 1:
            folder = self.folder_of(number)
            return [TrialRun(self, folder, str(number), dict(values), until, folder)]
        first = int(cast(int, values.get("train.seed", self.space.base.train.seed)))
        runs = []
        for index in range(self.space.seeds):
            folder = self.folder_of(number) / f"seed-{first + index}"
            seeded = {**values, "train.seed": first + index}
            judged_in = None if index else self.folder_of(number)
            runs.append(
                TrialRun(self, folder, f"{number}.{index + 1}", seeded, judged_in=judged_in)
            )
        return runs

    def undrawn(self, ranked: Sequence[Result]) -> list["TrialRun"]:
        """Return the runs of trials in the report that have no pictures yet."""
        found = []
        for result in shown_in_report(ranked):
            for run in self.runs(result.number, result.values):
                if run.evaluated and not (run.evaluation / LAST_PICTURE).exists():
                    found.append(run)
        return found

    def progress(
        self, number: int, values: Mapping[str, Plain], lineage: "Lineage | None"
    ) -> TrialProgress:
        """Return the progress of a trial, from its folder. The time of a branch is its own."""
        records = [_last_epoch(run.folder) for run in self.runs(number, values)]
        found = [record for record in records if record]
        if not found:
            return NO_PROGRESS
        seconds = sum(record.get("seconds", 0.0) for record in found)
        if lineage is not None:
            parent = _last_epoch(self.folder_of(lineage["parent"]), lineage["epoch"])
            seconds -= parent.get("seconds", 0.0)
        last = found[-1]
        return TrialProgress(int(last["epoch"]), last["val_bound"], seconds, len(found) - 1)

    def close_records(self, number: int, values: Mapping[str, Plain], status: Status) -> None:
        """Close the records of a trial that its process has not closed."""
        for run in self.runs(number, values):
            if run.folder.exists() and "status" not in read_record(run.folder):
                run.tracker().close(status)


def saved_epoch(folder: Path) -> int:
    """Return the epoch of a run's last state; 0 if there is none, -1 if it is within an epoch."""
    from distvae.train import checkpoint

    if not (folder / "run.json").exists() or not (folder / "last.json").exists():
        return 0
    facts = checkpoint.read_manifest(folder, "last.json")["facts"]
    epoch, batch = checkpoint.epoch_and_batch(facts)
    return -1 if batch else epoch


def _last_epoch(folder: Path, until: float = math.inf) -> Mapping[str, float]:
    """Return the record of the last epoch of a run, at most `until`; {} if there is none."""
    from distvae.train.run_folder import read_epochs

    if folder.exists():
        with suppress(Refusal):  # the evaluation of the trial will say what is damaged
            records = [record for record in read_epochs(folder) if record["epoch"] <= until]
            return records[-1] if records else {}
    return {}


@dataclass(frozen=True)
class TrialRun:
    """One run of a trial."""

    trials: Trials
    folder: Path
    name: str
    values: dict[str, Plain]
    until: int | None = None
    """The epoch after which it pauses; None for none."""
    judged_in: Path | None = None
    """The folder that keeps its judgments; None if another seed of its trial is judged."""

    def tracker(self) -> Tracker:
        """Return the run's record in MLflow, below the record of the sweep, whose process sends it.

        The tags of a branch say which trial it continues.
        """
        from distvae.train.run_folder import read_info

        space = self.trials.space
        params: Mapping[str, Plain] = self.values
        sinks: Sequence[str] = ()
        with suppress(Refusal):  # training will raise it again
            config = space.config(self.values)
            params, sinks = flatten(config), config.train.sinks
        home = self.trials.home or self.trials.folder
        sweep_folder, folder = home.parent, home / self.folder.relative_to(self.trials.folder)
        tags = run_tags(space.row_of(self.values).recipe, folder, sweep_folder)
        tags |= dict(self.trials.place)
        lineage = read_info(self.folder).get("lineage") if self.begun else None
        tags |= {f"lineage.{name}": str(value) for name, value in (lineage or {}).items()}
        tags |= {f"varied.{key}": str(value) for key, value in self.values.items()}
        label = Result(0, self.values).label(space.constant)
        name = f"{self.name} {label}"
        tags["mlflow.note.content"] = (
            f"Trial {self.name} of {space.name}: {label}. To use its model, type"
            f" `distvae encode {folder} DATA -o codes.parquet`."
        )
        return Tracker(self.folder, None, space.name, name, params, tags, sweep_folder, sinks)

    @property
    def begun(self) -> bool:
        """True if the run has begun to train."""
        return (self.folder / "run.json").is_file()

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
        from distvae.train.loop import Interrupted

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
        """Train, or resume training, and report each epoch; judge the run where it is due."""
        from distvae.train.loop import Epoch
        from distvae.train.run_folder import read_epochs

        if not self.begun:  # it may have been killed before it had anything to resume
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        finished = saved_epoch(self.folder)
        if self._judge_if_due(finished):
            last = read_epochs(self.folder)[-1]
            yield {"epoch": int(last["epoch"]), "bound": last["val_bound"], "metrics": last}
        if finished == self.until:
            return
        with closing(self._events()) as events:
            for event in events:
                if isinstance(event, Epoch):  # otherwise workers were restarted
                    tracker.epoch(event)
                    self._judge_if_due(event.epoch)
                    yield {
                        "epoch": event.epoch,
                        "bound": event.val_bound,
                        "metrics": event.metrics(),
                    }
                    if event.epoch == self.until:
                        return

    def _judge_if_due(self, epoch: int) -> bool:
        """Judge the run after an epoch if it is due; return whether it is."""
        space, folder = self.trials.space, self.judged_in
        return folder is not None and judge_if_due(self.folder, folder, space, epoch)

    def _events(self) -> "Generator[Epoch | str, None, None]":
        """Yield the epochs of a training in this process or in workers, until asked to stop."""
        from distvae.data import open_dataset
        from distvae.machines import driver
        from distvae.machines.worker import stop_requested
        from distvae.train.run_folder import open_folder
        from distvae.train.session import RunOptions, fit
        from distvae.train.team import select_device

        trials, folder = self.trials, Folder(self.folder)
        config = trials.space.config(self.values)
        recipe = trials.space.row_of(self.values).recipe
        dataset = open_dataset(config.data, quiet=True)
        stop = stop_requested(trials.shared, trials.owner)
        if trials.group is None:
            device = select_device(config.train.device, trials.gpus)
            every = trials.space.judge.interval if trials.space.judge else 0
            options = RunOptions(recipe, resume=True, stop=stop, save_every=every)
            yield from fit(config, dataset, folder, options, device=device)
        else:
            open_folder(config, dataset, folder, recipe, resume=True, force=False)
            yield from driver.lead_workers(config, recipe, folder, trials.group, stop)

    def _evaluate(self, tracker: Tracker) -> dict[str, float]:
        """Return the figures of the trained model, with the published figures of its row."""
        from distvae.tasks.evaluate import evaluate
        from distvae.train.run import Run
        from distvae.train.run_folder import best_epoch

        run, space = Run.open(self.folder), self.trials.space
        # the report shows the pictures of all rows, but of other trials only those it chooses
        summary = evaluate(
            run, split=space.split, force=True, progress=False, with_pictures=bool(space.rows)
        ).summary
        kept = best_epoch(run.path, epochs := run.epochs())
        best = {name: kept[name] for name in ("val_bound", "val_objective")}
        figures = best | summary
        comparison = {}
        for name, published in space.row_of(self.values).published.items():
            if name in figures:
                comparison[f"{name}_published"] = published
                comparison[f"{name}_difference"] = figures[name] - published
        tracker.figures(best, int(epochs[-1]["epoch"]))  # MLflow shows the last
        tracker.figures(summary | comparison)
        figures |= comparison
        for name in space.metrics:
            if not math.isfinite(figures.get(name, math.nan)):
                raise ArithmeticError(f"the evaluation gave no {name}")
        return {name: value for name, value in figures.items() if math.isfinite(value)}

    def draw(self) -> None:
        """Draw the pictures of the run. A failure is printed; the figures stand."""
        from distvae.tasks.evaluate import write_pictures
        from distvae.train.run import Run

        try:
            write_pictures(Run.open(self.folder), self.trials.space.split, self.evaluation)
        except Exception as error:
            print(
                f"{self.folder}: its pictures could not be drawn: {cause(error)}", file=sys.stderr
            )


def run_trial(
    trials: Trials, number: int, values: Mapping[str, Plain], until: int | None = None
) -> Generator[Report, None, None]:
    """Report each epoch, and in the end how the trial ended.

    The trial pauses after the epoch `until`. The figures are means over all seeds. A file in the
    folder of the trials asks all of them to stop.
    """
    from distvae.train.loop import Interrupted

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


def average_figures(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the means of the figures that all seeds have, with their standard deviations."""
    if len(found) == 1:
        return dict(found[0])
    shared = [name for name in found[0] if all(name in figures for figures in found)]
    values = {name: [figures[name] for figures in found] for name in shared}
    averages = {name: statistics.fmean(values[name]) for name in shared}
    spreads = {f"{name}_spread": statistics.stdev(values[name]) for name in without_spreads(shared)}
    return averages | spreads
