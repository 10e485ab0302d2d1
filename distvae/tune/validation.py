"""Refusing a space at the door for what would fail in the middle of a sweep.

Every value of every axis, in every combination of the choices that conditions ask about, has to be
a valid configuration; an axis may vary only where its key exists; trials are ranked only by figures
that compare.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from distvae.config import Config
from distvae.config.registry import FAMILIES
from distvae.config.schema import field_types
from distvae.data.family import recordings_of
from distvae.files.refusal import Refusal, nearest, shown
from distvae.tasks.closeness import offered
from distvae.tasks.measuring import MEASURES, figures_of, refuse_impossible
from distvae.tasks.metrics import of_recordings
from distvae.tasks.presets import corrupted_windows
from distvae.train.cost import DataSize
from distvae.train.cost import check_fits_in_memory as afford_training
from distvae.tune.axes import Axis, Choice
from distvae.tune.space import ROW, Space

OF_TRAINING = ("val_bound", "val_objective")
BOUNDS = (*OF_TRAINING, "bound", "objective", "iw_bound")
SPARSITY = ("hoyer", "effective_atoms", "live_atoms")
COMBINATIONS = 10_000
"""Of values, at most, each of which is looked at before a sweep begins."""
SHARED = ("train.threads", "eval.processes")
"""What a sweep sets itself, for its trials share the processors."""
CHANGE_THE_BOUND = ("data.", "model.kind", "model.likelihood")
"""Bounds under different priors, likelihoods or data do not compare."""


def validate_space(space: Space) -> None:
    """Refuse a space some of whose trials could not run, or could not be compared."""
    count_combinations(
        space.branches(),
        "axes: more than {} combinations of values that conditions ask about; fewer expected",
    )
    reached: set[str] = set()
    for values in space.branches():
        active = space.active(values)
        reached |= {axis.name for axis in active}
        _admit_branch(space, values, active)
    for i, axis in enumerate(space.axes):
        _admit_conditions(space, axis, space.axes[:i])
        if axis.name not in reached:
            raise Refusal(f"{axis.path}.when: its conditions never hold together")
    _admit_ranking(space)
    _admit_search(space)


def count_combinations(combinations: Iterator[dict[str, Any]], otherwise: str) -> int:
    """Return how many combinations there are, or refuse them in those words where they are too many
    to look at.
    """
    count = sum(1 for _ in islice(combinations, COMBINATIONS + 1))
    if count > COMBINATIONS:
        raise Refusal(otherwise.format(f"{COMBINATIONS:,}"))
    return count


def _admit_search(space: Space) -> None:
    """A grid has no intervals, repeated seeds do not vary, and what stops trials early compares
    bounds.
    """
    for axis in space.axes:
        if space.search == "grid" and not isinstance(axis.span, Choice):
            raise Refusal(
                f"{axis.path}: an interval has no grid; a choice expected, or another search"
            )
        if space.seeds > 1 and axis.key == "train.seed":
            raise Refusal(
                f"{axis.path}: varies, and seeds: {space.seeds} repeats every trial; one of the two"
                " expected"
            )
        if space.scheduler != "none" and axis.key.startswith(CHANGE_THE_BOUND):
            raise Refusal(
                f"scheduler: {space.scheduler} compares bounds, which do not compare where"
                f" {axis.key} varies"
            )
    if space.scheduler != "none" and len(space.metrics) > 1:
        raise Refusal(
            f"scheduler: {space.scheduler} serves one figure; metrics names"
            f" {', '.join(space.metrics)}"
        )


def _admit_conditions(space: Space, axis: Axis, earlier: Sequence[Axis]) -> None:
    known = {a.key for a in earlier} | set(space.given)
    for key, wanted in axis.when.items():
        path = f"{axis.path}.when.{key}"
        if key in known:
            _admit_wanted(path, wanted, [a for a in earlier if a.key == key])
        elif key in {a.key for a in space.axes}:
            raise Refusal(f"{path}: does not vary before this axis; move its axis up")
        else:
            raise Refusal(f"{path}: no such key; {nearest(key, known)}")


def _admit_wanted(path: str, wanted: tuple[Any, ...], asked: list[Axis]) -> None:
    if any(not isinstance(axis.span, Choice) for axis in asked):
        raise Refusal(f"{path}: is an interval; only a choice can be a condition")
    values = [value for axis in asked for value in axis.span.corners]
    for value in wanted:
        if values and value not in values:
            raise Refusal(
                f"{path}: {shown(value)} is never chosen; {nearest(value, map(str, values))}"
            )


def _admit_branch(space: Space, values: dict[str, Any], active: list[Axis]) -> None:
    """Every value of every axis that varies here makes a configuration, the others being at their
    first value.
    """
    where = (
        ", ".join(f"{key} {values[key]}" for key in sorted(space.deciding & set(values)))
        or "every trial"
    )
    for axis in active:
        if sum(other.key == axis.key for other in active) > 1:
            raise Refusal(
                f"{axis.path}: {axis.key} varies twice for {where}; conditions that exclude each"
                " other expected"
            )
        _admit_key(space, axis, values)
    for axis, tried in _corners(space, values, active):
        try:
            refuse_impossible(space.config(tried))
        except Refusal as error:
            raise Refusal(f"{axis.path}: {error} (for {where})") from error


def _corners(
    space: Space, values: dict[str, Any], active: list[Axis]
) -> Iterator[tuple[Axis, dict[str, Any]]]:
    """Each axis that varies with such values, and these with each value of it that has to be
    valid.
    """
    for axis in active:
        for value in [values[axis.key]] if axis.key in space.deciding else axis.span.corners:
            yield axis, values | {axis.key: value}


def afford(space: Space, data: DataSize, workers: int = 1, holds: bool = True) -> None:
    """Refuse a space some of whose trials on such data take more memory than this machine has
    free.
    """
    for values in space.branches():
        for axis, tried in _corners(space, values, space.active(values)):
            if tried.get(ROW, "") not in {"", *space.rows}:
                continue  # a row of a table that is left out here
            try:
                afford_training(space.config(tried), data, workers, holds)
            except Refusal as error:
                raise Refusal(f"{axis.path}: {error}") from error


def _admit_key(space: Space, axis: Axis, values: Mapping[str, Any]) -> None:
    """A field that only some families have may vary only with them."""
    if axis.key in SHARED:
        raise Refusal(
            f"{axis.path}: trials share the processors, so none varies this; {axis.key} set for all"
            " expected"
        )
    section, _, name = axis.key.partition(".")
    families = FAMILIES.get(section, {})
    having = [kind for kind, cls in families.items() if name in field_types(cls)]
    kind = str(values.get(f"{section}.kind", space.given.get(f"{section}.kind")))
    if having and kind in families and kind not in having:
        wanted = having[0] if len(having) == 1 else f"[{', '.join(having)}]"
        raise Refusal(
            f"{axis.path}: {section}.kind '{kind}' has no {name}; add when: {{{section}.kind:"
            f" {wanted}}} to this axis"
        )


def _admit_ranking(space: Space) -> None:
    """Trials are ranked by figures that they have, and by bounds only under one prior, likelihood
    and dataset.
    """
    figures = _figures(space.base)
    for name in space.metrics:
        _admit_clean(space, name)
        _admit_measured(space.base, name)
        if name not in figures:
            raise Refusal(
                f"metrics.{name}: no such figure of these trials; {nearest(name, figures)}"
            )
        for axis in space.axes:
            if name in BOUNDS and axis.key.startswith(CHANGE_THE_BOUND):
                raise Refusal(
                    f"metrics.{name}: bounds do not compare where {axis.key} varies; "
                    "a figure of quality or sparsity expected, such as pesq_wb or hoyer"
                )


def _figures(base: Config) -> tuple[str, ...]:
    measured = figures_of(base.eval.metrics)
    if recordings_of(base.data) is not None:
        return (*measured, "hoyer_active", *SPARSITY, *OF_TRAINING)
    found = [name for name in measured if name not in of_recordings(measured)]
    return (
        "squared_error",
        *SPARSITY,
        *OF_TRAINING,
        "bound",
        "objective",
        *found,
        *_of_clean(base),
    )


def _admit_measured(base: Config, name: str) -> None:
    """What is ranked by is also measured."""
    for measure in MEASURES:
        if measure not in base.eval.metrics and name in figures_of([measure]):
            raise Refusal(
                f"metrics.{name}: not measured; eval.metrics: [{measure}] among the fixed settings"
                " expected"
            )


def _of_clean(config: Config) -> tuple[str, ...]:
    """The figures that compare with what was clean."""
    windows = corrupted_windows(config)
    return () if windows is None else offered(len(windows.window) == 2)


def _admit_clean(space: Space, name: str) -> None:
    """Every trial has a figure that compares with what was clean."""
    if recordings_of(space.base.data) is not None or name not in (*offered(True), *offered(False)):
        return
    kinds = [axis for axis in space.axes if axis.key in ("model.kind", "data.noise", "data.drop")]
    varied = [{axis.key: value} for axis in kinds for value in axis.span.corners]
    for values in [{}, *space.branches(), *varied]:
        if corrupted_windows(space.config(values)) is None:
            where = (
                ", ".join(f"{key} {value}" for key, value in values.items() if key in space.varied)
                or "every trial"
            )
            raise Refusal(
                f"metrics.{name}: compares with what was clean before it was made worse (not so for"
                f" {where}); data.kind patches with data.noise or data.drop above 0 and a Gaussian"
                " tvae expected"
            )
