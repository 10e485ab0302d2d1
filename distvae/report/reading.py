"""What the folder of a sweep or of a run says, whether it ended well, ended badly, or was cut
off.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_json
from distvae.tune.results import Directions, Result, rank

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from distvae.config import Config

FACTS = (
    *("name", "recipe", "config", "metrics", "trials", "concurrent"),
    *("seed", "seeds", "search", "scheduler", "axes"),
)
"""What sweep.json has to say."""
CUT_OFF = "cut off, or still under way"
"""Why a trial that nobody ended has no result."""


@dataclass(frozen=True)
class Evidence:
    """What a run left in its folder."""

    folder: Path
    info: Mapping[str, Any]
    """Of run.json: the program, the machine, the data."""
    epochs: list[dict[str, float]]
    stages: list[dict[str, Any]]
    """Of a restoration: where it stood after each epoch."""
    figures: Mapping[str, Mapping[str, float | None]]
    """What judging said, by split."""

    @classmethod
    def of(cls, folder: Path) -> "Evidence":
        """What a run's folder holds."""
        from distvae.tasks.restoration import STAGES
        from distvae.train.run import read_epochs, read_info, read_records

        judged = {
            path.parent.name: read_json(path)
            for path in sorted(folder.glob("evaluation/*/summary.json"))
        }
        last = {
            stage["epoch"]: stage for stage in read_records(folder, STAGES)
        }  # of those trained twice
        return cls(
            folder, read_info(folder), read_epochs(folder), [last[n] for n in sorted(last)], judged
        )

    @cached_property
    def config(self) -> "Config":
        """The resolved configuration."""
        from distvae.train.run import read_config

        return read_config(self.folder, dict(self.info))

    @property
    def unit(self) -> str:
        """What a row of the data is."""
        return str(self.info["unit"])

    @property
    def judged(self) -> list[str]:
        """The splits that it was judged on, the test data first."""
        return sorted(self.figures, key=lambda split: (split != "test", split))

    def at(self, split: str) -> Path:
        """The folder of what judging wrote about a split."""
        return self.folder / "evaluation" / split


@dataclass(frozen=True)
class Trial:
    """One trial: what came of it, and what its runs left."""

    result: Result
    runs: list[Evidence]
    """One for each seed that began."""


@dataclass(frozen=True)
class Sweep:
    """What is known of a sweep."""

    folder: Path
    facts: Mapping[str, Any]
    """Of sweep.json: what is explored."""
    trials: list[Trial]
    """The best in the first figure first, then what did not finish."""
    concluded: bool
    """Whether it ended by itself or by Ctrl-C, and ranked what there was."""
    remembered: "list[FrozenTrial]"
    """What the sampler was told."""

    @property
    def metrics(self) -> Directions:
        """What trials are ranked by."""
        found: Directions = self.facts["metrics"]
        return found

    @property
    def split(self) -> str:
        """What its trials were judged on."""
        return str(self.facts.get("split", "val"))

    @cached_property
    def finished(self) -> list[Trial]:
        """The trials that were judged, best first."""
        return [trial for trial in self.trials if trial.result.state == "finished"]

    @cached_property
    def runs(self) -> list[Evidence]:
        """The runs of all trials."""
        return [run for trial in self.trials for run in trial.runs]


def read(folder: Path) -> Sweep | Evidence:
    """What a folder tells of; one that is neither a sweep's nor a run's is refused."""
    from distvae.tune.sweep_file import SWEEP_FILE

    if (folder / SWEEP_FILE).is_file():
        return read_sweep(folder)
    if (folder / "run.json").is_file():
        return Evidence.of(folder)
    raise Refusal(
        f"{folder}: neither a sweep ({SWEEP_FILE}) nor a run (run.json) is in it; "
        "a folder that 'distvae tune', 'train' or 'denoise --run' made is expected"
    )


def read_sweep(folder: Path) -> Sweep:
    """A sweep's folder: its results, and what the ledger knows beyond them."""
    from distvae.tune.optuna_study import read_trials
    from distvae.tune.sweep_file import SWEEP_FILE

    facts = read_json(folder / SWEEP_FILE)
    if missing := [name for name in FACTS if name not in facts]:
        raise Refusal(
            f"{folder / SWEEP_FILE}: says nothing of {missing[0]}; one that this distvae wrote is"
            " expected"
        )
    told = _listed(folder / "results.json")
    memory = read_trials(folder)
    beyond = [_remembered(trial) for trial in memory if trial.state.name != "WAITING"]
    results = _joined(told, beyond)
    if results != told:
        results = rank(results, facts["metrics"])
    trials = [_trial(folder / "trials" / str(result.number), result) for result in results]
    concluded = (folder / "results.json").is_file() and results == told
    return Sweep(folder, facts, trials, concluded, memory)


def _joined(told: list[Result], beyond: list[Result]) -> list[Result]:
    """What results.json says, then what happened since it was written."""
    since = {result.number: result for result in beyond}
    ended = {number for number, result in since.items() if result.state != "training"}
    kept = [since[r.number] if r.state == "stopped" and r.number in ended else r for r in told]
    known = {result.number for result in told}
    return [*kept, *(result for result in beyond if result.number not in known)]


def _remembered(trial: "FrozenTrial") -> Result:
    """A trial as the ledger has it: ended with a result, or begun."""
    if "result" in trial.user_attrs:
        return Result(**trial.user_attrs["result"])
    return Result(trial.number + 1, dict(trial.user_attrs.get("values", {})), cause=CUT_OFF)


def _trial(folder: Path, result: Result) -> Trial:
    """A trial with its evidence; one that nobody ended is as far as its first run came."""
    from distvae.tune.trial import FAILURE

    places = [folder, *sorted(folder.glob("seed-*"), key=_seed)]
    runs = [Evidence.of(place) for place in places if (place / "run.json").is_file()]
    if result.state != "training":
        return Trial(result, runs)
    if (folder / FAILURE).is_file():
        cause = (folder / FAILURE).read_text().partition("\n")[0]
        return Trial(replace(result, state="failed", cause=cause), runs)
    if epochs := [epoch for run in runs[:1] for epoch in run.epochs]:
        result = replace(result, epoch=int(epochs[-1]["epoch"]), bound=epochs[-1]["val_bound"])
        result.seconds = sum(run.epochs[-1]["seconds"] for run in runs if run.epochs)
    return Trial(result, runs)


def _seed(folder: Path) -> int:
    seed = folder.name.removeprefix("seed-")
    if not seed.isdecimal():
        raise Refusal(f"{folder}: no folder of a seed; seed-N, with a whole number for N, expected")
    return int(seed)


def _listed(path: Path) -> list[Result]:
    """The trials of results.json, where a sweep came that far."""
    if not path.is_file():
        return []
    try:
        return [Result(**trial) for trial in read_json(path)["trials"]]
    except (KeyError, TypeError) as error:
        raise Refusal(f"{path}: no list of trials as this distvae writes it") from error
