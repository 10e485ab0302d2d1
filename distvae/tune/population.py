"""Population-based training (Jaderberg et al., 2017) of the trials of a sweep.

All trials of a generation train until an epoch and are judged there. Then branches of the best
quarter, which continue from its states with other settings, replace the worst quarter, and the next
generation begins. Everything follows from Optuna's study and from the judgments in the folders of
the trials, so a sweep that was killed continues as if nothing had happened.

Ray Tune's `PopulationBasedTraining` is not used. It gives the state of one trial to another trial,
whose records would then mix two models, and it keeps in memory which trial replaced which.
"""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from distvae.config import Config
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain, check_plain, path_inside
from distvae.tune.space import SHARE, Axis, Choice, Interval, Space
from distvae.tune.study import (
    ENDED,
    LEAST_WORTH,
    NextTrial,
    OptunaStudy,
    make_sampler,
    read_worths,
)
from distvae.tune.trial import saved_epoch
from distvae.tune.validation import INHERITED

if TYPE_CHECKING:
    from distvae.train.run_folder import Lineage

REDRAWN = 0.25
"""The probability that a setting is drawn again instead of moved."""
FACTOR = 1.25
"""The factor by which a setting with a logarithmic axis changes."""
STEP = 0.1
"""The step of a setting along another interval, as a share of its length."""
TRIES = 100
"""The largest number of draws until a branch has other settings than its parent."""


def open_study(space: Space, folder: Path) -> OptunaStudy:
    """Return the trials of a sweep, which form a population if the space says so."""
    is_population = space.scheduler == "population" and space.judge is not None
    return PopulationStudy(space, folder) if is_population else OptunaStudy(space, folder)


class PopulationStudy(OptunaStudy):
    """The trials of a population, generation by generation."""

    def __init__(self, space: Space, folder: Path) -> None:
        super().__init__(space, folder)
        assert space.judge is not None
        self.interval, self.trials = space.judge.interval, folder / "trials"
        self.running: set[int] = set()
        """Trials that were handed out and have not reached the end of the generation."""
        while (begun := len(self.stored("RUNNING", *ENDED))) < space.trials:
            self.draw(begun)
        births = [lineage["epoch"] for _, lineage in self._branches()]
        self.end = max(births, default=0)
        """The epoch at which the present generation is judged."""
        if births:  # a kill may have left the last replacement unfinished
            self._replace()
        self.end += self.interval

    @property
    def is_done(self) -> bool:
        """True if the last generation has ended, or all trials of a generation failed."""
        is_last = self.until is None and not (self._ready() or self.running or self.losers())
        return is_last or self.all_failed

    @property
    def waits(self) -> bool:
        """True if no trial can train before a running trial has reached the judgment."""
        return not self._ready() and bool(self.running)

    @property
    def all_failed(self) -> bool:
        """True if each trial of the present generation has failed, so that none can go on."""
        stored = self.stored()
        return all(stored[number - 1].state.name == "FAIL" for number in self.members(self.end))

    @property
    def until(self) -> int | None:
        """The epoch after which the present generation pauses; None for the last generation."""
        return None if self.end >= self.space.base.train.epochs else self.end

    def next_trial(self) -> NextTrial | None:
        """Return a trial that has not finished its generation; None if there is none now."""
        ready = self._ready()
        if not (ready or self.running or self.until is None) and self._replace():
            self.end += self.interval
            ready = self._ready()
        if not ready:
            return None
        self.running.add(ready[0])
        return NextTrial(ready[0], self.values(ready[0]), self.until)

    def pause(self, number: int) -> None:
        """Note that a trial has reached the epoch after which it pauses."""
        self.running.discard(number)

    def losers(self) -> list[tuple[int, int]]:
        """Return the replaced trials without a recorded end, each with the branch in its place."""
        stored = self.stored()
        replaced = [(lineage["replaces"], number) for number, lineage in self._branches()]
        return [each for each in replaced if stored[each[0] - 1].state.name not in ENDED]

    def members(self, epoch: int) -> list[int]:
        """Return the trials of the generation that trains until an epoch."""
        earlier = [each for each in self._branches() if each[1]["epoch"] < epoch]
        branches = [number for number, _ in self._branches()]
        first = [each.number + 1 for each in self.stored() if each.number + 1 not in branches]
        replaced = {lineage["replaces"] for _, lineage in earlier}
        found = [*first, *(number for number, _ in earlier)]
        return [number for number in found if number not in replaced]

    def _branches(self) -> "list[tuple[int, Lineage]]":
        """Return the trials that continue another trial, with their lineages."""
        found = [(each.number + 1, each.user_attrs.get("lineage")) for each in self.stored()]
        return [(number, lineage) for number, lineage in found if lineage is not None]

    def _ready(self) -> list[int]:
        """Return the trials to train until the end of the present generation."""
        stored, ready = self.stored(), []
        for number in self.members(self.end):
            is_open = stored[number - 1].state.name not in ENDED and number not in self.running
            if is_open and (self.until is None or self.end not in self._worths(number)):
                ready.append(number)
        return ready

    def _worths(self, number: int) -> dict[int, float]:
        worths = read_worths(self.trials / str(number), self.space)
        return {epoch: worth[0] for epoch, worth in worths.items()}

    def _replace(self) -> bool:
        """Branch from the best trials at the end of a generation, or finish this after a kill.

        A trial whose training ended early has its last worth. Return whether there are branches.
        """
        stored, worths = self.stored(), {}
        for number in self.members(self.end):
            known = [each for each in self._worths(number).items() if each[0] <= self.end]
            has_failed = stored[number - 1].state.name in ENDED
            worths[number] = -math.inf if has_failed else max(known, default=(0, LEAST_WORTH))[1]
        begun = [number for number, lineage in self._branches() if lineage["epoch"] == self.end]
        for loser, better in choose_replacements(worths)[len(begun) :]:
            lineage: Lineage = {"parent": better, "epoch": self.end, "replaces": loser}
            begun.append(self._record(lineage))
        for number in begun:
            self._make_folder(number)
        return bool(begun)

    def _record(self, lineage: "Lineage") -> int:
        """Record a branch with perturbed settings, and return its number."""
        number = len(self.stored()) + 1
        chance = np.random.default_rng([self.space.seed, number])
        values = perturb(self.space, self.values(lineage["parent"]), chance)
        parameters = {}
        for axis in self.space.active_axes(values):
            value = values[axis.key]
            parameters[axis.name] = str(value) if isinstance(axis.span, Choice) else value
        sampler = make_sampler(self.space, number)  # which has nothing to draw
        self.store(sampler, parameters, values=values, lineage=lineage)
        return number

    def _make_folder(self, number: int) -> None:
        """Make the folder of a branch, unless it exists."""
        target, lineage = self.trials / str(number), self.lineage(number)
        if lineage is not None and not (target / "run.json").exists():
            config = self.space.config(self.values(number))
            branch(path_inside(self.trials, str(lineage["parent"])), target, config, lineage)


class Replacement(NamedTuple):
    """A trial that ends, and the better trial that a branch continues in its place."""

    loser: int
    better: int


def choose_replacements(worths: Mapping[int, float]) -> list[Replacement]:
    """Return the replacements of a generation: the worst trial by the best, and so on.

    Of equal trials the earlier is better. A trial that failed, with a worth of minus infinity, has
    no branches.
    """
    ranked = sorted(worths, key=lambda number: (-worths[number], number))
    count = len(ranked) // SHARE
    betters = [number for number in ranked[:count] if worths[number] > -math.inf]
    if not betters:
        return []
    losers = ranked[: -count - 1 : -1]
    return [Replacement(loser, betters[i % len(betters)]) for i, loser in enumerate(losers)]


def perturb(
    space: Space, values: Mapping[str, Plain], chance: np.random.Generator
) -> dict[str, Plain]:
    """Return settings near a trial's settings, within the axes of the space, and different.

    The seed of the trial is kept.
    """
    inherited = {key: values[key] for key in INHERITED if key in values}
    for _ in range(TRIES):
        perturbed: dict[str, Plain] = {}
        for axis in space.axes:
            if axis.applies(space.fixed | perturbed):
                perturbed[axis.key] = _perturb_value(axis, values.get(axis.key), chance)
        perturbed |= inherited
        if perturbed != values:
            break
    return perturbed


def _perturb_value(axis: Axis, value: Plain, chance: np.random.Generator) -> Plain:
    if axis.key in INHERITED:
        return value
    span, redrawn = axis.span, chance.random() < REDRAWN
    if isinstance(span, Choice):
        if redrawn or value not in span.values:
            return span.values[chance.integers(len(span.values))]
        return value
    if not redrawn and isinstance(value, int | float):
        sign = 1 if chance.random() < 0.5 else -1
        moved = _moved(span, value, sign)
        return _moved(span, value, -sign) if moved == value else moved  # at the end, go back
    if span.log:
        return _within(span, math.exp(chance.uniform(math.log(span.low), math.log(span.high))))
    return _within(span, chance.uniform(span.low, span.high))


def _moved(span: Interval, value: float, sign: int) -> float:
    """Return a number beside another number of an interval, above it for a sign of 1."""
    target = value * FACTOR**sign if span.log else value + sign * STEP * (span.high - span.low)
    if isinstance(span.low, int):
        target = round(target)
        target = target if target != value else value + sign
    return _within(span, target)


def _within(span: Interval, number: float) -> float:
    """Return the nearest number of an interval, an integer if its ends are integers."""
    nearest = min(max(number, span.low), span.high)
    return round(nearest) if isinstance(span.low, int) else float(nearest)


def branch(origin: Path, target: Path, config: Config, lineage: "Lineage") -> None:
    """Make a run that continues from the last state of another run; the folder appears complete.

    A branch has the weights, the moments of the optimiser, the populations and the position of its
    parent. Its records begin with its own first epoch, and its best weights are the best since
    then: under other settings the objectives of earlier epochs need not compare. Raise `Refusal` if
    the last state of the parent is not its state after the epoch of the lineage.
    """
    from distvae.train import checkpoint
    from distvae.train.run_folder import config_yaml, read_info

    if saved_epoch(origin) != lineage["epoch"]:
        raise Refusal(
            f"{origin}: its last state is not that of epoch {lineage['epoch']}, from which trial"
            f" {target.name} continues; the folder as the sweep left it expected"
        )
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)

    manifest = checkpoint.read_manifest(origin, "last.json")
    facts = manifest["facts"]
    populations = [population["file"] for population in facts.get("populations", [])]
    for name in (manifest["tensors"], *populations):
        check_plain(name, str(origin / "last.json"))
        try:
            os.link(origin / name, partial / name)  # nobody writes into these files
        except OSError:
            shutil.copyfile(origin / name, partial / name)
    position = facts["position"]
    position["best"], position["best_epoch"] = -math.inf, position["epoch"]
    facts["best"] = None
    (partial / "last.json").write_text(json.dumps(manifest, indent=1))

    text = config_yaml(config)
    (partial / "config.yaml").write_bytes(text)
    info = read_info(origin)
    info["config_sha256"] = hashlib.sha256(text).hexdigest()
    info["begun"], info["lineage"] = time.strftime("%Y-%m-%dT%H:%M:%S%z"), lineage
    info["epochs"] = lineage["epoch"]
    info.pop("config_sha256_before", None)
    (partial / "run.json").write_text(json.dumps(info, indent=1))

    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
