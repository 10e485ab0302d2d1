"""The trials of a sweep as Optuna stores them on disk: which comes next, and how each ended.

Everything is written down before the next trial starts. When a sweep is resumed, the trials that
were running come first, under their old numbers and with their old values. Each trial is drawn with
a seed of its own, so that trials after a pause are the same as without one.
"""

import warnings
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.tune.results import Result
from distvae.tune.space import Space

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

FILE = "optuna.db"
"""The file of a sweep's folder that holds the trials."""
STUDY = "sweep"
"""Optuna's name for the trials in that file."""
SEEDS = 2**32
"""The number of seeds that a sampler takes."""
FAILURES_TO_GIVE_UP = 3
"""A sweep ends if so many trials failed and none succeeded: the others would fail as well."""


class NextTrial(NamedTuple):
    """A trial to run."""

    number: int
    """Counted from one."""
    values: dict[str, Plain]
    """The varied settings, by dotted key."""


class OptunaStudy:
    """The trials that a sweep has tried, and will try."""

    def __init__(self, space: Space, folder: Path) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / FILE).absolute()}")
        directions = [
            "maximize" if mode == "max" else "minimize" for mode in space.metrics.values()
        ]
        self.space = space
        self.study = optuna.create_study(
            storage=storage,
            study_name=STUDY,
            directions=directions,
            pruner=_pruner(space),
            load_if_exists=True,
        )
        for values in space.combinations() if space.search == "grid" else space.branches():
            self.study.enqueue_trial(space.preset_parameters(values), skip_if_exists=True)
        self.interrupted = [trial.number for trial in self._trials("RUNNING")]

    def next_trial(self) -> NextTrial | None:
        """Return an interrupted trial, or else a new one; None if all have begun or all failed."""
        if self.interrupted:
            return self._with_values(self._trial(self.interrupted.pop(0)))
        begun = len(self._trials("RUNNING", "COMPLETE", "PRUNED", "FAIL"))
        if begun >= self.space.trials or self.all_failed:
            return None
        self.study.sampler = make_sampler(self.space, begun)
        return self._with_values(self.study.ask())

    def _with_values(self, trial: "Trial") -> NextTrial:
        """Return a trial with the values recorded for it, after recording them if it is new."""
        if "values" not in trial.user_attrs:
            trial.set_user_attr("values", self._draw_values(trial))
        return NextTrial(trial.number + 1, dict(trial.user_attrs["values"]))

    def _draw_values(self, trial: "Trial") -> dict[str, Plain]:
        """Return the values of a new trial; those tried before come with another seed."""
        values = self.space.suggest(trial)
        earlier = [t for t in self.study.get_trials(deepcopy=False) if t.number < trial.number]
        repeats = sum(t.params == trial.params for t in earlier)
        if repeats and "train.seed" not in values:
            values["train.seed"] = self.space.base.train.seed + repeats * self.space.seeds
        return values

    def should_stop(self, number: int, bounds: Iterable[tuple[int, float]]) -> bool:
        """Return whether the scheduler stops a trial early, after epochs with such bounds."""
        if self.space.scheduler == "none":
            return False
        trial = self._trial(number - 1)
        (mode,) = self.space.metrics.values()
        known = self.study.get_trials(deepcopy=False)[number - 1].intermediate_values
        for epoch, bound in bounds:
            if epoch not in known:  # otherwise it was trained again after its process died
                trial.report(bound if mode == "max" else -bound, epoch)
        return bool(trial.should_prune())

    def record_result(self, result: Result) -> None:
        """Record how a trial ended."""
        from optuna.trial import TrialState

        trial = self._trial(result.number - 1)
        trial.set_user_attr("result", asdict(result))
        if result.state == "finished":
            self.study.tell(trial.number, [result.figures[name] for name in self.space.metrics])
        else:
            state = TrialState.PRUNED if result.state == "halted" else TrialState.FAIL
            self.study.tell(trial.number, state=state)

    @property
    def results(self) -> list[Result]:
        """The trials that have ended."""
        return [
            Result(**trial.user_attrs["result"])
            for trial in self._trials("COMPLETE", "PRUNED", "FAIL")
            if "result" in trial.user_attrs
        ]

    @property
    def all_failed(self) -> bool:
        """True if enough trials have ended to give up, all of them with a failure."""
        states = [result.state for result in self.results]
        return len(states) >= FAILURES_TO_GIVE_UP and set(states) == {"failed"}

    def _trials(self, *states: str) -> "list[FrozenTrial]":
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state.name in states]

    def _trial(self, index: int) -> "Trial":
        import optuna

        return optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[index]._trial_id)


def read_trials(folder: Path) -> "list[FrozenTrial]":
    """Return the trials recorded in a sweep's folder, without changing the file."""
    import optuna

    if not (folder / FILE).is_file():
        return []
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # mode=rw lets SQLite roll back what a crash left
    uri = f"sqlite:///file:{quote(str((folder / FILE).absolute()))}?mode=rw&uri=true"
    try:
        storage = optuna.storages.RDBStorage(
            uri, skip_compatibility_check=True, skip_table_creation=True
        )
        study = optuna.load_study(study_name=STUDY, storage=storage)
        return list(study.get_trials())
    except KeyError:
        return []  # killed before the study was created
    except Exception as error:
        raise Refusal(
            f"{folder / FILE}: cannot be read: {' '.join(str(error).split())[:200]}"
        ) from error


def make_sampler(space: Space, begun: int) -> "BaseSampler":
    """Return the sampler of the next trial, after so many have begun."""
    import optuna

    samplers = optuna.samplers
    seed = (1_000_003 * space.seed + begun) % SEEDS
    if space.search in ("grid", "random"):  # all trials of a grid are enqueued already
        return samplers.RandomSampler(seed)
    if space.search == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, space.trials // 5)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return samplers.TPESampler(seed=seed, constant_liar=True)


def _pruner(space: Space) -> "BasePruner":
    """Return Optuna's pruner for the scheduler of a space."""
    import optuna

    pruners = optuna.pruners
    if space.scheduler == "median":
        return pruners.MedianPruner()
    if space.scheduler == "asha":
        return pruners.SuccessiveHalvingPruner()
    return pruners.NopPruner()
