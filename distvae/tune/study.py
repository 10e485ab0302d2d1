"""The trials of a sweep as Optuna stores them on disk: the next trial, and how trials ended.

A trial is drawn in memory and stored with all its settings in one transaction, before it starts.
When a sweep is resumed, the trials that were running come first, under their old numbers and with
their old settings. Each trial is drawn with its own seed, so a resumed sweep tries the trials that
an undisturbed sweep tries.

Poor trials are stopped by Optuna's pruners, which read the bounds stored with each trial and
therefore work the same after a resume. Pruners compare one objective only. Trials that are judged
by a metric are stopped by the same rules, read from the judgments in the folders of the trials.
"""

import json
import math
import statistics
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from distvae.files.refusal import Refusal, cause
from distvae.files.storage import existing_sqlite_uri, sqlite_uri
from distvae.files.untrusted import Plain
from distvae.tune.results import EndedEpoch, Result
from distvae.tune.space import Space

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

    from distvae.train.run_folder import Lineage

FILE = "optuna.db"
"""The file of a sweep's folder that holds the trials."""
STUDY = "sweep"
"""Optuna's name for the trials in that file."""
JUDGMENTS = "judged.jsonl"
"""The file of a trial's folder with a line for each judgment."""
ENDED = ("COMPLETE", "PRUNED", "FAIL")
FAILURES_TO_GIVE_UP = 3
"""A sweep ends after this number of failed trials if no trial succeeded: the rest would fail too.
"""
SEEDS = 2**32
"""The number of seeds that a sampler takes."""
REDUCTION = 4
"""One in REDUCTION trials that reach a rung of successive halving continues."""
ENOUGH = 5
"""Finished trials after which the median of their judgments stops others."""
LEAST_WORTH = -sys.float_info.max
"""The worth of a judgment that is not finite: above a trial that failed, below every other."""

Worth = tuple[float, ...]
"""The metrics by which a trial is judged, with such signs that larger is better."""
Worths = Mapping[int, Worth]
"""The worth of a trial by epoch."""


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
        self.space, self.folder = space, folder
        self.storage = _storage(sqlite_uri((folder / FILE).absolute()))
        self.study = optuna.create_study(
            storage=self.storage,
            study_name=STUDY,
            directions=[f"{mode}imize" for mode in space.metrics.values()],
            pruner=make_pruner(space),
            load_if_exists=True,
        )
        running = self.stored("RUNNING")
        if self.stored("WAITING") or any("values" not in trial.user_attrs for trial in running):
            raise Refusal(
                f"{folder}: version 0.2.0 stored trials here before it drew their values; --force,"
                " which begins the sweep anew, or another -o expected"
            )
        self.presets = list(space.presets())
        self.interrupted = self.unended

    def stored(self, *states: str) -> "list[FrozenTrial]":
        """Return the stored trials in some states; without states, all of them."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if not states or trial.state.name in states]

    @property
    def is_done(self) -> bool:
        """True if no trial is left to begin or to continue."""
        if self.stored("RUNNING"):
            return False
        return len(self.stored(*ENDED)) >= self.space.trials or self.all_failed

    @property
    def waits(self) -> bool:
        """True if no trial can begin before a running trial has paused or ended.

        If the first trials failed, the trials still running decide whether others begin.
        """
        return self._only_failures and not self.interrupted and bool(self.stored("RUNNING"))

    def next_trial(self) -> NextTrial | None:
        """Return an interrupted trial, or else a new trial; None if no trial can begin now."""
        if self.interrupted:
            number = self.interrupted.pop(0)
            return NextTrial(number, self.values(number))
        begun = len(self.stored("RUNNING", *ENDED))
        if begun >= self.space.trials or self._only_failures:
            return None
        return self.draw(begun)

    def draw(self, begun: int) -> NextTrial:
        """Draw and store a new trial after `begun` trials have begun."""
        trials = self.stored()
        known = set()
        for each in trials:
            known.add(frozenset(each.system_attrs.get("fixed_params", each.params).items()))
        new = (preset for preset in self.presets if frozenset(preset.items()) not in known)
        uses_earlier = self.space.search in ("tpe", "nsga2")
        return self.store(make_sampler(self.space, begun), next(new, None), uses_earlier)

    def store(
        self,
        sampler: "BaseSampler",
        parameters: Mapping[str, Plain] | None,
        uses_earlier: bool = False,
        **facts: object,
    ) -> NextTrial:
        """Draw a trial in memory, and store it as running.

        It takes the parameters given; the sampler draws the rest, by the earlier trials if
        `uses_earlier`. A trial with the parameters of an earlier trial has another seed.
        """
        import optuna
        from optuna.trial import TrialState, create_trial

        trials = self.stored()
        study = optuna.create_study(directions=self.study.directions, sampler=sampler)
        study.add_trials(trials if uses_earlier else [])
        if parameters is not None:
            study.enqueue_trial(dict(parameters))
        values = self.space.suggest(study.ask())
        drawn = study.get_trials()[-1]
        repeats = sum(each.params == drawn.params for each in trials)
        if repeats and "train.seed" not in values:
            values["train.seed"] = self.space.base.train.seed + repeats * self.space.seeds
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=drawn.params,
                distributions=drawn.distributions,
                user_attrs={"values": values, **facts},
                system_attrs=drawn.system_attrs,
            )
        )
        return NextTrial(len(trials) + 1, values)

    def values(self, number: int) -> dict[str, Plain]:
        """Return the settings of a trial that has begun."""
        return dict(self.stored()[number - 1].user_attrs["values"])

    @property
    def unended(self) -> list[int]:
        """The trials that have begun and not ended."""
        return [trial.number + 1 for trial in self.stored("RUNNING")]

    def lineage(self, number: int) -> "Lineage | None":
        """Return where a trial of a population continues from; None if it starts from scratch."""
        found: Lineage | None = self.stored()[number - 1].user_attrs.get("lineage")
        return found

    def losers(self) -> list[tuple[int, int]]:
        """Return the replaced trials without a recorded end, each with the branch in its place."""
        return []

    def pause(self, number: int) -> None:
        """Note that a trial has reached the epoch after which it pauses."""

    def should_stop(self, number: int, epochs: Iterable[EndedEpoch]) -> bool:
        """Return whether the scheduler stops a trial early, after these epochs."""
        if self.space.scheduler in ("none", "population"):
            return False
        if self.space.judge is not None:
            return any(self._is_poor(number, ended.epoch) for ended in epochs if ended.seed == 0)
        trial = self._trial(number)
        (mode,) = self.space.metrics.values()
        known = self.stored()[number - 1].intermediate_values
        for epoch, bound, _ in epochs:
            if epoch not in known:  # otherwise it was trained again after its process died
                trial.report(bound if mode == "max" else -bound, epoch)
                if trial.should_prune():
                    return True
        return False

    def _is_poor(self, number: int, epoch: int) -> bool:
        """Return whether the scheduler stops a trial by its judgment after an epoch."""
        if not is_judged(self.space, epoch):
            return False
        worths = {}
        for trial in self.stored():
            folder = self.folder / "trials" / str(trial.number + 1)
            worths[trial.number + 1] = read_worths(folder, self.space)
        own = worths.pop(number)
        if self.space.scheduler == "asha":
            return halves(own, worths, epoch)
        finished = [worths[trial.number + 1] for trial in self.stored("COMPLETE")]
        return below_median(own, finished, epoch)

    def record_result(self, result: Result) -> None:
        """Record how a trial ended."""
        from optuna.trial import TrialState

        self.pause(result.number)
        self._trial(result.number).set_user_attr("result", asdict(result))
        if result.state == "finished":
            values = [result.figures[name] for name in self.space.metrics]
            self.study.tell(result.number - 1, values)
        else:
            state = TrialState.PRUNED if result.state == "halted" else TrialState.FAIL
            self.study.tell(result.number - 1, state=state)

    @property
    def results(self) -> list[Result]:
        """The trials that have ended."""
        ended = [trial.user_attrs for trial in self.stored(*ENDED)]
        return [Result(**attributes["result"]) for attributes in ended if "result" in attributes]

    @property
    def all_failed(self) -> bool:
        """True if the sweep is given up: enough trials failed, and no other ended or can go on."""
        return self._only_failures and not self.stored("RUNNING")

    @property
    def _only_failures(self) -> bool:
        """True if enough trials have ended to give up, all of them with a failure."""
        states = [result.state for result in self.results]
        return len(states) >= FAILURES_TO_GIVE_UP and set(states) == {"failed"}

    def _trial(self, number: int) -> "Trial":
        """Return Optuna's handle of a stored trial."""
        import optuna

        study_id = self.storage.get_study_id_from_name(STUDY)
        found = self.storage.get_trial_id_from_study_id_trial_number(study_id, number - 1)
        return optuna.Trial(self.study, found)


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


def make_sampler(space: Space, begun: int) -> "BaseSampler":
    """Return the sampler of the next trial, after `begun` trials have begun."""
    import optuna

    samplers = optuna.samplers
    seed = (1_000_003 * space.seed + begun) % SEEDS
    if space.search in ("grid", "random"):
        return samplers.RandomSampler(seed)
    if space.search == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, space.trials // 5)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return samplers.TPESampler(seed=seed, constant_liar=True)


def make_pruner(space: Space) -> "BasePruner":
    """Return Optuna's pruner for the scheduler of a space."""
    from optuna import pruners

    if space.scheduler == "median":
        return pruners.MedianPruner()
    if space.scheduler == "asha":
        return pruners.SuccessiveHalvingPruner()
    return pruners.NopPruner()


def is_judged(space: Space, epoch: int) -> bool:
    """Return whether trials are judged after an epoch: after a multiple of the interval, which for
    successive halving is the interval times 1, 4, 16, ...
    """
    if space.judge is None or epoch <= 0 or epoch % space.judge.interval:
        return False
    multiple = epoch // space.judge.interval
    while space.scheduler == "asha" and multiple % REDUCTION == 0:
        multiple //= REDUCTION
    return space.scheduler != "asha" or multiple == 1


def halves(own: Worths, others: Mapping[int, Worths], epoch: int) -> bool:
    """Return whether asynchronous successive halving stops a trial that was judged after an epoch.

    A trial continues if it is among the best quarter of the trials that have been judged there so
    far, or the best of them while they are fewer than four. By several metrics, a trial is better
    than another trial if it is on an earlier front, so no trial stops that no other trial
    dominates.
    """
    if epoch not in own:
        return False
    reached = [worths[epoch] for worths in others.values() if epoch in worths]
    better = count_better(own[epoch], reached)
    return better >= max(1, (len(reached) + 1) // REDUCTION)


def count_better(own: Worth, others: Iterable[Worth]) -> int:
    """Return how many points are on fronts before the front of `own`.

    The first front has the points that no point dominates: no other point is better in one metric
    and as good in all metrics. The next front has these points without the first front, and so on.
    """
    points, better = np.array([own, *others]), 0
    while True:
        other = points[:, None]
        dominated = ((other >= points).all(2) & (other > points).any(2)).any(0)
        if not dominated.item(0):
            return better
        better += int((~dominated).sum())
        points = points[dominated]


def below_median(own: Worths, finished: Iterable[Worths], epoch: int) -> bool:
    """Return whether a trial's best worth until an epoch is below the median of finished trials.

    Only the first metric counts.
    """
    if epoch not in own:
        return False
    reached = [worths[epoch][0] for worths in finished if epoch in worths]
    best = max(worth[0] for at, worth in own.items() if at <= epoch)
    return len(reached) >= ENOUGH and best < statistics.median(reached)


def read_judgments(folder: Path) -> dict[int, dict[str, float]]:
    """Return the judgments of a trial: the metrics by epoch."""
    file = folder / JUDGMENTS
    judgments: dict[int, dict[str, float]] = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        record = json.loads(line)
        judgments.setdefault(record["epoch"], {})[record["metric"]] = record["value"]
    return judgments


def judge_if_due(run: Path, trial: Path, space: Space, epoch: int) -> bool:
    """Judge a run after an epoch that it has just trained, if the space asks for it. The folder of
    its trial keeps the judgment.

    Return whether it does. An earlier judgment stays, so that a trial that is trained again after a
    crash compares as before.
    """
    from distvae.files.paths import atomic_file
    from distvae.tasks.evaluate import judge_run
    from distvae.train.run_folder import read_epochs

    judge = space.judge
    if judge is None or not is_judged(space, epoch):
        return False
    trained = read_epochs(run)
    if not trained or int(trained[-1]["epoch"]) != epoch:
        return False
    judgments = read_judgments(trial)
    if epoch not in judgments:
        judgments[epoch] = judge_run(run, space.judged, space.split, judge.sample)
        with atomic_file(trial / JUDGMENTS) as path, path.open("w") as file:
            for at, metrics in judgments.items():
                for metric, value in metrics.items():
                    record = {"epoch": at, "metric": metric, "value": value}
                    file.write(json.dumps(record) + "\n")
    return True


def read_worths(folder: Path, space: Space) -> dict[int, Worth]:
    """Return the worth of a trial at each judgment."""
    signs = [1 if space.metrics[metric] == "max" else -1 for metric in space.judged]
    worths = {}
    for epoch, metrics in read_judgments(folder).items():
        values = [metrics.get(metric, math.nan) for metric in space.judged]
        pairs = zip(signs, values, strict=True)
        worths[epoch] = tuple(s * v if math.isfinite(v) else LEAST_WORTH for s, v in pairs)
    return worths
