"""The trials of a sweep as Optuna stores them on disk: which comes next, and how each ended.

Everything is written down before the next trial starts. When a sweep is resumed, the trials that
were running come first, under their old numbers and with their old values. Each trial is drawn with
a seed of its own, so that trials after a pause are the same as without one.
"""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distvae.files.plain import Plain
from distvae.files.refusal import Refusal, cause
from distvae.files.sqlite import existing_sqlite_uri, sqlite_uri
from distvae.tune.early_stopping import below_median, halves
from distvae.tune.generations import ENDED, Generations
from distvae.tune.judgments import is_judged, read_worths
from distvae.tune.results import EndedEpoch, Result
from distvae.tune.samplers import make_pruner, make_sampler, sampler_of_rest
from distvae.tune.space import Space

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

    from distvae.train.documents import Lineage

FILE = "optuna.db"
"""The file of a sweep's folder that holds the trials."""
STUDY = "sweep"
"""Optuna's name for the trials in that file."""
FAILURES_TO_GIVE_UP = 3
"""A sweep ends if so many trials failed and none succeeded: the others would fail as well."""


class NextTrial(NamedTuple):
    """A trial to run."""

    number: int
    """Counted from one."""
    values: dict[str, Plain]
    """The varied settings, by dotted key."""
    until: int | None = None
    """The epoch after which it pauses; None for none."""


class OptunaStudy:
    """The trials that a sweep has tried, and will try."""

    def __init__(self, space: Space, folder: Path) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = _storage(sqlite_uri((folder / FILE).absolute()))
        directions = [
            "maximize" if mode == "max" else "minimize" for mode in space.metrics.values()
        ]
        self.space, self.folder = space, folder
        self.study = optuna.create_study(
            storage=storage,
            study_name=STUDY,
            directions=directions,
            pruner=make_pruner(space),
            load_if_exists=True,
        )
        self._enqueue()
        self.interrupted = [trial.number for trial in self._trials("RUNNING")]
        self.generations = self._generations()

    def _enqueue(self) -> None:
        """Enqueue the trials of a grid, or one for each way that conditions hold, once."""
        space = self.space
        known = set()
        for trial in self._trials():
            known.add(frozenset(trial.system_attrs.get("fixed_params", trial.params).items()))
        for values in space.combinations() if space.search == "grid" else space.branches():
            parameters = space.preset_parameters(values)
            if frozenset(parameters.items()) not in known:
                known.add(frozenset(parameters.items()))
                self.study.enqueue_trial(parameters)

    @property
    def is_done(self) -> bool:
        """True if no trial is left to begin or to continue."""
        if self.generations is not None:
            return self.generations.is_done or self.all_failed
        if self._trials("RUNNING"):
            return False
        return len(self._trials(*ENDED)) >= self.space.trials or self.all_failed

    @property
    def waits(self) -> bool:
        """True if there is no trial to begin before one that trains has paused or ended.

        If the first trials failed, those that still train decide whether others begin.
        """
        if self.generations is not None:
            return self.generations.waits
        return self._only_failures and not self.interrupted and bool(self._trials("RUNNING"))

    def next_trial(self) -> NextTrial | None:
        """Return an interrupted trial, or else a new one; None if there is none now.

        All have begun then, or the first ones failed. In a population, return a trial that has not
        finished its generation.
        """
        if self.generations is not None:
            return self._next_of(self.generations)
        if self.interrupted:
            return self._begun_before(self.interrupted.pop(0))
        begun = len(self._trials("RUNNING", "COMPLETE", "PRUNED", "FAIL"))
        if begun >= self.space.trials or self._only_failures:
            return None
        self.study.sampler = make_sampler(self.space, begun)
        return self._with_values(self.study.ask())

    def _next_of(self, generations: Generations) -> NextTrial | None:
        """Return the next trial of a population."""
        number = generations.take()
        if number is None:
            return None
        return NextTrial(number, generations.values(number), generations.until)

    def _generations(self) -> Generations | None:
        """Return the ledger of the population, after drawing its first generation."""
        if self.space.scheduler != "population" or self.space.judge is None:
            return None
        while (begun := len(self._trials("RUNNING", *ENDED))) < self.space.trials:
            self.study.sampler = make_sampler(self.space, begun)
            self._with_values(self.study.ask())
        for trial in self._trials("RUNNING")[: self.space.trials]:
            self._begun_before(trial.number)
        return Generations(self.space, self.space.judge, self.study, self.folder / "trials")

    def pause(self, number: int) -> None:
        """Note that a trial has reached the epoch after which it pauses."""
        if self.generations is not None:
            self.generations.running.discard(number)

    def lineage(self, number: int) -> "Lineage | None":
        """Return where a trial continues from, if it does."""
        return self.generations.lineage(number) if self.generations is not None else None

    def losers(self) -> list[tuple[int, int]]:
        """Return trials that were replaced and whose end is not recorded, with their successors."""
        return self.generations.losers() if self.generations is not None else []

    def values(self, number: int) -> dict[str, Plain]:
        """Return the settings of a trial that has begun."""
        return dict(self.study.get_trials(deepcopy=False)[number - 1].user_attrs["values"])

    def _begun_before(self, index: int) -> NextTrial:
        """Return a trial that began before a pause, which may have interrupted its drawing."""
        if "values" not in self._trials()[index].user_attrs:
            self.study.sampler = sampler_of_rest(self.space, self.study, index)
        return self._with_values(self._trial(index))

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

    @property
    def unended(self) -> list[int]:
        """The trials that have begun and not ended."""
        return [each.number + 1 for each in self._trials("RUNNING") if "values" in each.user_attrs]

    def should_stop(self, number: int, epochs: Iterable[EndedEpoch]) -> bool:
        """Return whether the scheduler stops a trial early, after these epochs."""
        if self.space.scheduler in ("none", "population"):
            return False
        if self.space.judge is not None:
            return any(self._is_poor(number, ended.epoch) for ended in epochs)
        trial = self._trial(number - 1)
        (mode,) = self.space.metrics.values()
        known = self.study.get_trials(deepcopy=False)[number - 1].intermediate_values
        for epoch, bound, _ in epochs:
            if epoch not in known:  # otherwise it was trained again after its process died
                trial.report(bound if mode == "max" else -bound, epoch)
                if trial.should_prune():
                    return True
        return False

    def _is_poor(self, number: int, epoch: int) -> bool:
        """Return whether the scheduler stops a trial by its judgment after an epoch."""
        judge = self.space.judge
        if judge is None or not is_judged(judge, epoch):
            return False
        folder, numbers = self.folder / "trials", [trial.number + 1 for trial in self._trials()]
        worths = {other: read_worths(folder / str(other), self.space) for other in numbers}
        own = worths.pop(number)
        if self.space.scheduler == "asha":
            return halves(own, worths, epoch, judge.interval)
        complete = {trial.number + 1 for trial in self._trials("COMPLETE")}
        finished = {other: worths[other] for other in worths if other in complete}
        return below_median(own, finished, epoch)

    def record_result(self, result: Result) -> None:
        """Record how a trial ended."""
        from optuna.trial import TrialState

        self.pause(result.number)
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
        """True if the sweep is given up: enough trials failed, and no other ended or can go on."""
        if self.generations is not None:
            return self.generations.all_failed
        return self._only_failures and not self._trials("RUNNING")

    @property
    def _only_failures(self) -> bool:
        """True if enough trials have ended to give up, all of them with a failure."""
        states = [result.state for result in self.results]
        return len(states) >= FAILURES_TO_GIVE_UP and set(states) == {"failed"}

    def _trials(self, *states: str) -> "list[FrozenTrial]":
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if not states or trial.state.name in states]

    def _trial(self, index: int) -> "Trial":
        import optuna

        return optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[index]._trial_id)


def _storage(url: str, **options: bool) -> "RDBStorage":
    """Return Optuna's view of a database. It leaves no connection open between operations."""
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import NullPool

    return RDBStorage(url, engine_kwargs={"poolclass": NullPool}, **options)


def read_trials(folder: Path) -> "list[FrozenTrial]":
    """Return the trials recorded in a sweep's folder, without changing the file."""
    import optuna

    if not (folder / FILE).is_file():
        return []
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    uri = existing_sqlite_uri(folder / FILE)
    try:
        storage = _storage(uri, skip_compatibility_check=True, skip_table_creation=True)
        study = optuna.load_study(study_name=STUDY, storage=storage)
        return list(study.get_trials())
    except KeyError:
        return []  # killed before the study was created
    except Exception as error:
        raise Refusal(f"{folder / FILE}: cannot be read: {cause(error)[:200]}") from error
