"""The trials of a sweep as Optuna remembers them on disk: which one comes next, and how each ended.

Whatever a sweep is told is written down before the next trial begins. Trials that had begun when a
sweep was killed come first when it goes on, under their old numbers and with their old values. Each
trial is drawn with randomness of its own, so that those after a pause are the same as without one.
"""

import warnings
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from distvae.files.refusal import Refusal
from distvae.tune.results import Result
from distvae.tune.space import Space

if TYPE_CHECKING:
    import optuna

FILE = "optuna.db"
"""The file of a sweep's folder that trials are remembered in."""
STUDY = "sweep"
"""What Optuna calls the trials in that file."""
SEEDS = 2**32
"""How many seeds a sampler knows."""
FAILURES_TO_GIVE_UP = 3
"""So many failures before any success end a sweep: the others would fail as well."""


class Setting(NamedTuple):
    """A trial to run."""

    number: int
    """From one."""
    values: dict[str, Any]
    """What varies, by dotted key."""


class OptunaStudy:
    """What a sweep has tried, and will try."""

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
        for first in space.combinations() if space.search == "grid" else space.branches():
            self.study.enqueue_trial(space.fixed(first), skip_if_exists=True)
        self.cut_short = [trial.number for trial in self._trials("RUNNING")]

    def next(self) -> Setting | None:
        """The trial that a pause cut short, or else a new one; nothing when all have begun, or
        there is no hope.
        """
        if self.cut_short:
            return self._taken_up(self._trial(self.cut_short.pop(0)))
        begun = len(self._trials("RUNNING", "COMPLETE", "PRUNED", "FAIL"))
        if begun >= self.space.trials or self.all_failed:
            return None
        self.study.sampler = _sampler(self.space, begun)
        return self._taken_up(self.study.ask())

    def _taken_up(self, trial: "optuna.Trial") -> Setting:
        """The values that are noted for a trial, or else are noted now."""
        if "values" not in trial.user_attrs:
            trial.set_user_attr("values", self._drawn(trial))
        return Setting(trial.number + 1, dict(trial.user_attrs["values"]))

    def _drawn(self, trial: "optuna.Trial") -> dict[str, Any]:
        """What varies. What was tried before is tried with another seed."""
        values = self.space.suggest(trial)
        earlier = [t for t in self.study.get_trials(deepcopy=False) if t.number < trial.number]
        if (
            repeats := sum(t.params == trial.params for t in earlier)
        ) and "train.seed" not in values:
            values["train.seed"] = self.space.base.train.seed + repeats * self.space.seeds
        return values

    def halts(self, number: int, bounds: Iterable[tuple[int, float]]) -> bool:
        """Whether a trial whose epochs had these bounds is not worth going on with."""
        if self.space.scheduler == "none":
            return False
        trial = self._trial(number - 1)
        (mode,) = self.space.metrics.values()
        known = self.study.get_trials(deepcopy=False)[number - 1].intermediate_values
        for epoch, bound in bounds:
            if epoch not in known:  # else trained again after its process died
                trial.report(bound if mode == "max" else -bound, epoch)
        return bool(trial.should_prune())

    def close(self, result: Result) -> None:
        """Note how a trial ended, for good."""
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
        ended = self._trials("COMPLETE", "PRUNED", "FAIL")
        return [
            Result(**trial.user_attrs["result"]) for trial in ended if "result" in trial.user_attrs
        ]

    @property
    def all_failed(self) -> bool:
        """Whether all trials have failed so far, and enough of them."""
        states = [result.state for result in self.results]
        return len(states) >= FAILURES_TO_GIVE_UP and set(states) == {"failed"}

    def _trials(self, *states: str) -> list[Any]:
        return [
            trial for trial in self.study.get_trials(deepcopy=False) if trial.state.name in states
        ]

    def _trial(self, index: int) -> "optuna.Trial":
        import optuna

        return optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[index]._trial_id)


def read_trials(folder: Path) -> "list[optuna.trial.FrozenTrial]":
    """The trials that a sweep's folder remembers, looked at and left alone; none where no trial
    began.
    """
    import optuna

    if not (folder / FILE).is_file():
        return []
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # rw: after a crash, roll back
    uri = f"sqlite:///file:{quote(str((folder / FILE).absolute()))}?mode=rw&uri=true"
    try:
        storage = optuna.storages.RDBStorage(
            uri, skip_compatibility_check=True, skip_table_creation=True
        )
        study = optuna.load_study(study_name=STUDY, storage=storage)
        return list(study.get_trials())
    except KeyError:
        return []  # cut off before the study was begun
    except Exception as error:
        raise Refusal(
            f"{folder / FILE}: cannot be read: {' '.join(str(error).split())[:200]}"
        ) from error


def _sampler(space: Space, begun: int) -> Any:
    """What draws the next trial, when so many have begun."""
    import optuna

    samplers, seed = optuna.samplers, (1_000_003 * space.seed + begun) % SEEDS
    if space.search in ("grid", "random"):  # all of a grid is set already
        return samplers.RandomSampler(seed)
    if space.search == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, space.trials // 5)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return samplers.TPESampler(seed=seed, constant_liar=True)


def _pruner(space: Space) -> Any:
    import optuna

    kinds: dict[str, Any] = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "asha": optuna.pruners.SuccessiveHalvingPruner,
    }
    return kinds[space.scheduler]()
