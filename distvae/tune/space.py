"""A search space: a recipe, the settings that vary around it, and the figures to rank trials by."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from distvae.config import Config, flatten, from_dict, to_dict
from distvae.config.recipes import override
from distvae.files.plain import Plain
from distvae.tune.axes import Axis

if TYPE_CHECKING:
    import optuna


Search = Literal["tpe", "nsga2", "grid", "random"]
Scheduler = Literal["none", "asha", "median", "population"]
SHARE = 4
"""One in so many trials of a population is replaced at once."""
ROW = "row"
"""The key of the axis that chooses among named rows."""


@dataclass(frozen=True)
class Judge:
    """Metric by which the scheduler compares trials while they train, instead of their bounds."""

    metric: str
    """One of the metrics of the space."""
    interval: int
    """Epochs from one judgment of a trial to the next."""
    sample: int = 1000
    """Rows, or recordings, of the split on which a trial is judged, at most."""


@dataclass(frozen=True)
class Row:
    """One row of a table: a configuration of its own, and the figures published for it."""

    recipe: str
    config: Config
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Space:
    """The search space of a sweep."""

    name: str
    about: str
    recipe: str
    """The name or file of the recipe that trials vary."""
    base: Config
    """The configuration of the recipe, with the settings that the space fixes."""
    metrics: Mapping[str, Literal["max", "min"]]
    trials: int
    concurrent: int | None
    """Trials side by side; None for one per core."""
    seed: int
    search: Search
    """How trials are chosen."""
    seeds: int
    """Runs of each trial, whose figures are averaged."""
    scheduler: Scheduler
    """Which rule stops poor trials early, or replaces them."""
    axes: tuple[Axis, ...]
    judge: Judge | None = None
    """What that rule compares; None for bounds."""
    rows: Mapping[str, Row] = field(default_factory=dict)
    """The rows that the axis `row` chooses from and whose data is available.

    Rows make trials that differ in more than one key.
    """
    command: str = ""
    """The command that repeats a sweep over rows."""
    split: str = "val"
    """The split that trials are evaluated on.

    Choosing among trials must not see the test data; a table of rows does not choose.
    """

    whole_grid: bool = False
    """Whether a grid has a trial for each combination, because its file names no number."""

    @property
    def count(self) -> int:
        """The number of trials, those of a population that replace others included."""
        if self.scheduler != "population" or self.judge is None:
            return self.trials
        turns = count_turns(self.base.train.epochs, self.judge.interval)
        return self.trials + turns * count_replaced(self.trials)

    @cached_property
    def fixed(self) -> dict[str, Plain]:
        """The settings that no axis varies, by dotted key."""
        return {key: value for key, value in flatten(self.base).items() if key not in self.varied}

    @cached_property
    def varied(self) -> set[str]:
        """The dotted keys that an axis varies, or in which rows differ from the base."""
        base = flatten(self.base)
        keys = {axis.key for axis in self.axes}
        for row in self.rows.values():
            keys |= {key for key, value in flatten(row.config).items() if base.get(key) != value}
        return keys

    @cached_property
    def condition_keys(self) -> set[str]:
        """The keys that the condition of some axis depends on."""
        return {key for axis in self.axes for key in axis.when}

    def suggest(self, trial: "optuna.Trial") -> dict[str, Plain]:
        """Return the values that Optuna suggests for the axes whose conditions hold."""
        values: dict[str, Plain] = {}
        for axis in self.axes:
            if axis.applies(self.fixed | values):
                values[axis.key] = axis.span.suggest(trial, axis.name)
        return values

    def row_of(self, values: Mapping[str, Plain]) -> Row | None:
        """Return the row that a trial chose, if there are rows."""
        return self.rows[str(values[ROW])] if ROW in values else None

    def config(self, values: Mapping[str, Plain]) -> Config:
        """Return the validated configuration of a trial."""
        row = self.row_of(values)
        settings = {key: value for key, value in values.items() if key != ROW}
        return vary(row.config if row else self.base, settings)

    def epochs(self, values: Mapping[str, Plain]) -> int:
        """Return the epochs of each seed of a trial."""
        row = self.row_of(values)
        config = row.config if row else self.base
        varied = values.get("train.epochs")
        return varied if isinstance(varied, int) else config.train.epochs

    def recipe_of(self, values: Mapping[str, Plain]) -> str:
        """Return the recipe that a trial varies."""
        row = self.row_of(values)
        return row.recipe if row else self.recipe

    def published(self, values: Mapping[str, Plain]) -> Mapping[str, float]:
        """Return the figures published for a trial."""
        row = self.row_of(values)
        return row.published if row else {}

    def pinned(self, assignments: Mapping[str, Plain]) -> "Space":
        """Return the space with some settings fixed, which then no longer vary."""
        axes = tuple(axis for axis in self.axes if axis.key not in assignments)
        rows = {
            name: replace(row, config=vary(row.config, assignments))
            for name, row in self.rows.items()
        }
        return replace(self, base=self.config(assignments), axes=axes, rows=rows)

    def active_axes(self, values: Mapping[str, Plain]) -> list[Axis]:
        """Return the axes whose conditions hold for a trial."""
        settings = {**self.fixed, **values}
        return [axis for axis in self.axes if axis.applies(settings)]

    def branches(self) -> Iterator[dict[str, Plain]]:
        """Yield each reachable combination of the values that conditions depend on.

        Every other axis has one of its values.
        """
        yield from self._combined(self.axes, self.condition_keys, {})

    def combinations(self) -> Iterator[dict[str, Plain]]:
        """Yield each reachable combination of all values, without rows whose data is missing."""
        for values in self._combined(self.axes, self.varied, {}):
            if ROW not in values or values[ROW] in self.rows:
                yield values

    def _combined(
        self, axes: Sequence[Axis], keys: set[str], values: dict[str, Plain]
    ) -> Iterator[dict[str, Plain]]:
        """Yield each reachable combination of the values of some keys, with one value elsewhere."""
        if not axes:
            yield values
            return
        axis, *rest = axes
        if not axis.applies(self.fixed | values):
            yield from self._combined(rest, keys, values)
            return
        tried = axis.span.corners if axis.key in keys else axis.span.corners[:1]
        for value in tried:
            yield from self._combined(rest, keys, values | {axis.key: value})

    def preset_parameters(self, values: Mapping[str, Plain]) -> dict[str, str]:
        """Return the parameters that the sampler must take, as it names them.

        In a grid these are all values, otherwise those that conditions depend on.
        """
        keys = self.varied if self.search == "grid" else self.condition_keys
        return {
            axis.name: str(values[axis.key])
            for axis in self.active_axes(values)
            if axis.key in keys
        }


def vary(base: Config, values: Mapping[str, Plain]) -> Config:
    """Return a configuration with some settings changed.

    A changed kind starts from the defaults of its family.
    """
    return from_dict(override(to_dict(base), values))


def count_replaced(size: int) -> int:
    """Return how many trials of a population of such a size are replaced at once."""
    return size // SHARE


def count_turns(epochs: int, interval: int) -> int:
    """Return how often trials are replaced in so many epochs: after each interval but the last."""
    return math.ceil(epochs / interval) - 1
