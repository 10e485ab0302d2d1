"""Read the folder of a finished, failed or interrupted sweep or run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.config import Config
from distvae.config.schema import check_value, field_types
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import (
    Tree,
    path_inside,
    read_figures,
    read_json,
    refuse_strange_entries,
)
from distvae.tasks.restoration import STAGES
from distvae.train.run_folder import RunInfo, read_config, read_epochs, read_info, read_records
from distvae.tune.baselines import read_baselines
from distvae.tune.folder import SWEEP_FILE
from distvae.tune.results import DIRECTIONS, Result, rank
from distvae.tune.space import Axis, Directions, as_written, constant_keys, read_axes
from distvae.tune.study import FILE, read_trials
from distvae.tune.trial import FAILURE

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

PLAN = ("metrics", "trials", "concurrent", "seed", "seeds", "search", "scheduler")
"""The fields of a space that sweep.json records unchanged."""
SWEEP_KEYS = ("name", "recipe", "config", "axes", *PLAN)
"""The keys that sweep.json must hold."""
CUT_OFF = "interrupted, or still running"
"""The cause given for a trial that has neither a result nor an error."""


@dataclass(frozen=True)
class RunResults:
    """The contents of a run folder, each read when it is needed: a sweep may have 1000 runs."""

    folder: Path

    @cached_property
    def info(self) -> RunInfo:
        """The contents of run.json: program, machine and data."""
        return read_info(self.folder)

    @cached_property
    def epochs(self) -> list[dict[str, float]]:
        """The records of the epochs."""
        return read_epochs(self.folder)

    @cached_property
    def stages(self) -> list[Tree]:
        """The records that a restoration writes after each epoch."""
        return read_stages(self.folder)

    @cached_property
    def figures(self) -> Mapping[str, Mapping[str, float | None]]:
        """The metrics of each evaluated split."""
        summaries = sorted(self.folder.glob("evaluation/*/summary.json"))
        return {path.parent.name: read_figures(path) for path in summaries}

    @cached_property
    def config(self) -> Config:
        """The resolved configuration."""
        return read_config(self.folder, self.info)


def read_stages(folder: Path) -> list[Tree]:
    """Return a restoration's records in the order of epochs.

    An epoch that was trained twice, after a crash, has two records, and the later record counts.
    """
    by_epoch = {stage["epoch"]: stage for stage in read_records(folder, STAGES)}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


@dataclass(frozen=True)
class Trial:
    """One trial: its result and its runs."""

    result: Result
    runs: list[RunResults]
    """One run for each seed that started."""


@dataclass(frozen=True)
class Sweep:
    """The contents of a sweep folder."""

    folder: Path
    facts: Tree
    """The contents of sweep.json."""
    trials: list[Trial]
    """The finished trials, best first, then the unfinished trials."""
    sampled: "list[FrozenTrial]"
    """The trials as the sampler's study stores them."""
    baselines: list[Result] = field(default_factory=list)

    @property
    def metrics(self) -> Directions:
        """The metrics that rank the trials."""
        metrics: Directions = self.facts["metrics"]
        return metrics

    @cached_property
    def axes(self) -> Sequence[Axis]:
        """The axes of the space; none of a table of rows."""
        axes = [] if self.facts.get("rows") else [as_written(axis) for axis in self.facts["axes"]]
        return read_axes(axes) if axes else ()

    @cached_property
    def constant(self) -> set[str]:
        """The varied keys that have a single value."""
        return constant_keys(self.axes)

    @property
    def split(self) -> str:
        """The split on which the trials were evaluated."""
        return str(self.facts.get("split", "val"))

    @cached_property
    def finished(self) -> list[Trial]:
        """The finished trials, best first."""
        return [trial for trial in self.trials if trial.result.state == "finished"]

    @property
    def runs(self) -> list[RunResults]:
        """The runs of all trials."""
        return [run for trial in self.trials for run in trial.runs]


def read_results(folder: Path) -> Sweep | RunResults:
    """Read a folder. Raise `Refusal` if it is neither a sweep folder nor a run folder."""
    refuse_strange_entries(folder)
    if (folder / SWEEP_FILE).is_file():
        return read_sweep(folder)
    if (folder / "run.json").is_file():
        return RunResults(folder)
    raise Refusal(
        f"{folder}: contains neither a sweep ({SWEEP_FILE}) nor a run (run.json); "
        "a folder made by 'distvae tune', 'train' or 'denoise --run' is expected"
    )


def read_sweep(folder: Path) -> Sweep:
    """Read a sweep from its study and from the folders of its trials."""
    facts = read_json(folder / SWEEP_FILE)
    for key in SWEEP_KEYS:
        if key not in facts:
            raise Refusal(
                f"{folder / SWEEP_FILE}: '{key}' is missing; a file written by distvae is expected"
            )
    for name, direction in facts["metrics"].items():
        if direction not in [*DIRECTIONS]:
            raise Refusal(
                f"{folder / SWEEP_FILE}: metrics.{name}: {shown(direction)}; max or min expected"
            )
    sampled = read_trials(folder)
    begun = [trial for trial in sampled if trial.state.name != "WAITING"]  # as 0.2.0 stored grids
    results = [_stored_result(trial, folder / FILE) for trial in begun]
    trials = []
    for result in rank(results, facts["metrics"]):
        trials.append(_read_trial(path_inside(folder, f"trials/{result.number}"), result))
    return Sweep(folder, facts, trials, sampled, read_baselines(folder))


def _stored_result(trial: "FrozenTrial", file: Path) -> Result:
    """Return a trial's result from the study, or a result that only says that the trial started."""
    known = trial.user_attrs
    if "result" not in known:
        begun = Result.of(trial.number + 1, known.get("values", {}), known.get("lineage"))
        return replace(begun, cause=CUT_OFF)
    try:
        result = Result(**known["result"])
    except TypeError as error:
        raise Refusal(f"{file}: trial {trial.number + 1} is not as distvae writes it") from error
    kinds = field_types(Result)
    for name in ("number", "state"):
        check_value(f"{file}: {name}", kinds[name], getattr(result, name))
    return result


def _read_trial(folder: Path, result: Result) -> Trial:
    """Read a trial's runs. An unfinished trial takes the progress of its first run."""
    seeds: dict[int, Path] = {}
    for path in folder.glob("seed-*"):
        seed = path.name.removeprefix("seed-")
        if not seed.isdecimal():
            raise Refusal(
                f"{path}: not the folder of a seed; seed-N with a whole number N expected"
            )
        seeds[int(seed)] = path
    folders = [folder, *(seeds[seed] for seed in sorted(seeds))]
    runs = [RunResults(each) for each in folders if (each / "run.json").is_file()]
    if result.state != "training":
        return Trial(result, runs)
    if (folder / FAILURE).is_file():
        cause = (folder / FAILURE).read_text().partition("\n")[0]
        return Trial(replace(result, state="failed", cause=cause), runs)
    if runs and runs[0].epochs:
        latest = runs[0].epochs[-1]
        result = replace(result, epoch=int(latest["epoch"]), bound=latest["val_bound"])
        result.seconds = sum(run.epochs[-1]["seconds"] for run in runs if run.epochs)
    return Trial(result, runs)
