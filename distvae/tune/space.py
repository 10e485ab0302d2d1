"""A search space: a recipe, what varies around it, and what its trials are ranked by."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from distvae.config import Config, flatten, from_dict, to_dict
from distvae.config.recipes import override
from distvae.tune.axes import Axis

if TYPE_CHECKING:
    import optuna


Search = Literal["tpe", "nsga2", "grid", "random"]
Scheduler = Literal["none", "asha", "median"]
ROW = "row"
"""The key of the axis that chooses among named rows."""


@dataclass(frozen=True)
class Row:
    """One row of a table: a configuration of its own, and what was published for it."""

    recipe: str
    config: Config
    published: Mapping[str, float] = field(default_factory=dict)
    """By figure."""


@dataclass(frozen=True)
class Space:
    """What `distvae tune` explores."""

    name: str
    about: str
    recipe: str
    """What the trials depart from: the name of a recipe, or a file."""
    base: Config
    """Its configuration, with what the space fixes."""
    metrics: Mapping[str, Literal["max", "min"]]
    trials: int
    concurrent: int | None
    """Trials side by side; None: one per core."""
    seed: int
    search: Search
    """How trials are chosen."""
    seeds: int
    """Runs of each trial, whose mean counts."""
    scheduler: Scheduler
    """What stops trials early, by their bounds."""
    axes: tuple[Axis, ...]
    rows: Mapping[str, Row] = field(default_factory=dict)
    """What the axis `row` chooses from, as far as it is there: trials that differ in more than one
    key.
    """
    command: str = ""
    """What repeats a sweep over rows."""
    split: str = "val"
    """What trials are judged on: choosing among them must not see the test data; a table of rows
    chooses nothing.
    """

    @cached_property
    def given(self) -> dict[str, Any]:
        """The dotted keys that no axis varies, and their values."""
        return {key: value for key, value in flatten(self.base).items() if key not in self.varied}

    @cached_property
    def varied(self) -> set[str]:
        """The dotted keys that some axis varies, or that rows do not share."""
        base = flatten(self.base)
        apart = [
            {k for k, v in flatten(row.config).items() if base.get(k) != v}
            for row in self.rows.values()
        ]
        return {axis.key for axis in self.axes}.union(*apart)

    @cached_property
    def deciding(self) -> set[str]:
        """The keys that some axis's condition asks about."""
        return {key for axis in self.axes for key in axis.when}

    def suggest(self, trial: "optuna.Trial") -> dict[str, Any]:
        """Dotted keys and values of one trial: an axis is asked for only where its conditions
        hold.
        """
        values: dict[str, Any] = {}
        for axis in self.axes:
            if axis.applies(self.given | values):
                values[axis.key] = axis.span.suggest(trial, axis.name)
        return values

    def config(self, values: Mapping[str, Any]) -> Config:
        """The validated configuration of a trial."""
        base = self.rows[values[ROW]].config if ROW in values else self.base
        return vary(base, {key: value for key, value in values.items() if key != ROW})

    def recipe_of(self, values: Mapping[str, Any]) -> str:
        """What a trial departs from."""
        return self.rows[values[ROW]].recipe if ROW in values else self.recipe

    def published(self, values: Mapping[str, Any]) -> Mapping[str, float]:
        """The figures that were published for a trial."""
        return self.rows[values[ROW]].published if ROW in values else {}

    def pinned(self, assignments: Mapping[str, Any]) -> "Space":
        """The same space with some keys set, which then no longer vary."""
        axes = tuple(axis for axis in self.axes if axis.key not in assignments)
        rows = {
            name: replace(row, config=vary(row.config, assignments))
            for name, row in self.rows.items()
        }
        return replace(self, base=self.config(assignments), axes=axes, rows=rows)

    def active(self, values: dict[str, Any]) -> list[Axis]:
        """The axes that apply to a trial."""
        return [axis for axis in self.axes if axis.applies(self.given | values)]

    def branches(self) -> Iterator[dict[str, Any]]:
        """Every reachable combination of the deciding values; one value stands for those of every
        other axis.
        """
        yield from self._combined(self.axes, self.deciding, {})

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Every reachable combination of all values, of rows those that there are."""
        for values in self._combined(self.axes, self.varied, {}):
            if ROW not in values or values[ROW] in self.rows:
                yield values

    def _combined(
        self, axes: Sequence[Axis], keys: set[str], values: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Every reachable combination of the values of some keys, and one value of every other
        axis.
        """
        if not axes:
            yield values
        elif not axes[0].applies(self.given | values):
            yield from self._combined(axes[1:], keys, values)
        else:
            for value in axes[0].span.corners[: None if axes[0].key in keys else 1]:
                yield from self._combined(axes[1:], keys, values | {axes[0].key: value})

    def fixed(self, values: dict[str, Any]) -> dict[str, str]:
        """What a sampler is told to take of these values: all of a grid, else the deciding ones."""
        keys = self.varied if self.search == "grid" else self.deciding
        return {
            axis.name: str(values[axis.key]) for axis in self.active(values) if axis.key in keys
        }


def vary(base: Config, values: Mapping[str, Any]) -> Config:
    """A configuration with dotted keys set; a changed kind starts from the defaults of its
    family.
    """
    return from_dict(override(to_dict(base), values))
