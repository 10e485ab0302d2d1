"""The ledger of a population: its trials generation by generation, as Optuna's study stores them.

A generation trains until an epoch, and is judged there. When all of its trials are, the worst are
replaced, and the next generation begins. Everything follows from the ledger and from the judgments
in the folders of the trials, so that a sweep that was killed goes on as if it had not been.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distvae.files.plain import Plain
from distvae.files.untrusted import path_inside
from distvae.tune.branching import branch
from distvae.tune.judgments import LEAST_WORTH, read_worths
from distvae.tune.population import choose_replacements, perturb
from distvae.tune.space import Judge, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from distvae.train.documents import Lineage

ENDED = ("COMPLETE", "PRUNED", "FAIL")


class Generations:
    """The trials of a population, in a study that has its first generation already."""

    def __init__(self, space: Space, judge: Judge, study: "Study", trials: Path) -> None:
        self.space, self.judge, self.study, self.trials = space, judge, study, trials
        self.running: set[int] = set()
        """Trials that were handed out and have not reached the end of the generation."""
        self.queue: list[int] = []
        self._begin_generation(self._resume())

    @property
    def waits(self) -> bool:
        """True if there is nothing to hand out before a running trial has ended its generation."""
        return not self.queue and bool(self.running)

    @property
    def is_done(self) -> bool:
        """True if the last generation has ended."""
        return self.until is None and not (self.queue or self.running or self.losers())

    @property
    def all_failed(self) -> bool:
        """True if each trial of the present generation has failed, so that none can go on."""
        ledger = self._ledger()
        return all(ledger[number].state.name == "FAIL" for number in self.members(self.end))

    @property
    def until(self) -> int | None:
        """The epoch until which the present generation trains; None for the last, to the end."""
        return None if self.end >= self.space.base.train.epochs else self.end

    def take(self) -> int | None:
        """Return the next trial to train, if there is one now."""
        if not self.queue and not self.running:
            self._turn()
        if not self.queue:
            return None
        self.running.add(number := self.queue.pop(0))
        return number

    def values(self, number: int) -> dict[str, Plain]:
        """Return the settings of a trial."""
        return dict(self._ledger()[number].user_attrs["values"])

    def lineage(self, number: int) -> "Lineage | None":
        """Return where a trial continues from, if it is a branch."""
        found: Lineage | None = self._ledger()[number].user_attrs.get("lineage")
        return found

    def losers(self) -> list[tuple[int, int]]:
        """Return the trials that were replaced and whose end is not recorded, with the branches."""
        ledger = self._ledger()
        successors = {
            trial.user_attrs["lineage"]["replaces"]: number
            for number, trial in ledger.items()
            if "lineage" in trial.user_attrs
        }
        return [pair for pair in successors.items() if ledger[pair[0]].state.name not in ENDED]

    def _ledger(self) -> "dict[int, FrozenTrial]":
        return {trial.number + 1: trial for trial in self.study.get_trials(deepcopy=False)}

    def _resume(self) -> int:
        """Complete the branches that were begun last, and return the epoch where they begin."""
        births = [
            trial.user_attrs["lineage"]["epoch"]
            for trial in self._ledger().values()
            if "lineage" in trial.user_attrs
        ]
        begun = max(births, default=0)
        if begun:
            self._replace(begun)
        return begun

    def _begin_generation(self, start: int) -> None:
        """Queue the trials that train from an epoch to the next judgment, and did not do so yet."""
        self.end = start + self.judge.interval
        ledger = self._ledger()
        for number in self.members(self.end):
            ended = ledger[number].state.name in ENDED
            if not ended and (self.until is None or self.end not in self._worths(number)):
                self.queue.append(number)

    def _turn(self) -> None:
        """Begin the next generation, unless this is the last one or nothing of it is left."""
        if self.until is not None and self._replace(self.end):
            self._begin_generation(self.end)

    def members(self, epoch: int) -> list[int]:
        """Return the trials of the generation that trains until an epoch."""
        ledger = self._ledger()
        first = [number for number, trial in ledger.items() if "lineage" not in trial.user_attrs]
        branches = {
            number: trial.user_attrs["lineage"]["replaces"]
            for number, trial in ledger.items()
            if trial.user_attrs.get("lineage", {"epoch": epoch})["epoch"] < epoch
        }
        return [number for number in (*first, *branches) if number not in branches.values()]

    def _worths(self, number: int) -> dict[int, float]:
        return read_worths(self.trials / str(number), self.space)

    def _worth(self, number: int, epoch: int) -> float:
        """Return what a trial is worth; if its training ended early, what it was worth last."""
        if self._ledger()[number].state.name in ENDED:
            return -math.inf  # it failed
        known = [item for item in self._worths(number).items() if item[0] <= epoch]
        return max(known, default=(0, LEAST_WORTH))[1]

    def _replace(self, epoch: int) -> bool:
        """Branch from the best trials after an epoch; do what is missing of that.

        Return whether there are branches.
        """
        ledger = self._ledger()
        worths = {number: self._worth(number, epoch) for number in self.members(epoch)}
        planned = choose_replacements(worths)
        begun = [n for n, t in ledger.items() if _begins_at(t, epoch)]
        for loser, better in planned[len(begun) :]:
            lineage: Lineage = {"parent": better, "epoch": epoch, "replaces": loser}
            begun.append(self._record(lineage))
        for number in begun:
            self._make_folder(number)
        return bool(begun)

    def _record(self, lineage: "Lineage") -> int:
        """Record a branch with perturbed settings, and return its number."""
        from optuna.trial import TrialState, create_trial

        number = len(self._ledger()) + 1
        chance = np.random.default_rng([self.space.seed, number])
        values = perturb(self.space, self.values(lineage["parent"]), chance)
        axes = self.space.active_axes(values)
        distributions = {axis.name: axis.span.distribution() for axis in axes}
        trial = create_trial(
            state=TrialState.RUNNING,
            params={axis.name: axis.span.parameter(values[axis.key]) for axis in axes},
            distributions=distributions,
            user_attrs={"values": values, "lineage": lineage},
        )
        self.study.add_trial(trial)
        return number

    def _make_folder(self, number: int) -> None:
        """Make the folder of a branch, from which it trains on."""
        target, lineage = self.trials / str(number), self.lineage(number)
        if lineage is None or (target / "run.json").exists():
            return
        config = self.space.config(self.values(number))
        branch(path_inside(self.trials, str(lineage["parent"])), target, config, lineage)


def _begins_at(trial: "FrozenTrial", epoch: int) -> bool:
    lineage: Lineage | None = trial.user_attrs.get("lineage")
    return lineage is not None and lineage["epoch"] == epoch
