"""Checks of a search space before a sweep starts.

Every value of every axis must give a valid configuration, an axis may vary only where its key
exists, and trials are ranked only by figures that compare.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from distvae.config import Config
from distvae.config.registry import FAMILIES
from distvae.config.schema import field_types
from distvae.data.family import recordings_of
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal, nearest, shown
from distvae.numerics.figures import group_of
from distvae.numerics.measures import SPARSITY
from distvae.tasks.fidelity import fidelity_figures
from distvae.tasks.measures import MEASURES, figure_names
from distvae.tasks.presets import corrupted_windows
from distvae.tasks.recording_scores import recording_metrics
from distvae.train.cost import DataSize, check_fits_in_memory
from distvae.train.epoch import FIGURES_OF_TRAINING
from distvae.tune.axes import Axis, Choice
from distvae.tune.axis_errors import describe_values, refuse_trial
from distvae.tune.scheduler_check import bounds_differ_along, check_scheduler
from distvae.tune.space import ROW, Space

MAX_COMBINATIONS = 10_000
"""Combinations of values, each of which is checked before a sweep starts."""
SET_BY_SWEEP = ("train.threads", "eval.processes")
"""Settings that a sweep sets itself, because its trials share the processors."""


def validate_space(space: Space) -> None:
    """Refuse a space in which some trial could not run, or could not be compared with the others.

    Every value of every axis is tried, in every combination of the values that conditions depend
    on.
    """
    too_many = "axes: more than {} combinations of values that conditions ask about; fewer expected"
    count_combinations(space.branches(), too_many)
    reached: set[str] = set()
    for values in space.branches():
        active = space.active_axes(values)
        reached |= {axis.name for axis in active}
        _check_branch(space, values, active)
    for i, axis in enumerate(space.axes):
        _check_conditions(space, axis, space.axes[:i])
        if axis.name not in reached:
            raise Refusal(f"{axis.path}.when: its conditions never hold together")
    check_ranking(space)
    _check_search(space)
    check_scheduler(space)


def count_combinations(combinations: Iterator[dict[str, Plain]], message: str) -> int:
    """Return the number of combinations; raise `Refusal` with the message if there are too many."""
    count = sum(1 for _ in islice(combinations, MAX_COMBINATIONS + 1))
    if count > MAX_COMBINATIONS:
        raise Refusal(message.format(f"{MAX_COMBINATIONS:,}"))
    return count


def check_memory(space: Space, data: DataSize, workers: int = 1, copies: int = 1) -> None:
    """Refuse a space in which some trial takes more memory than this machine has free.

    The machine has so many copies of the populations of each worker.
    """
    for values in space.branches():
        for axis, tried in _corners(space, values, space.active_axes(values)):
            if tried.get(ROW, "") not in {"", *space.rows}:
                continue  # a row that is left out because its data is missing
            try:
                check_fits_in_memory(space.config(tried), data, workers, copies)
            except Refusal as error:
                raise Refusal(f"{axis.path}: {error}") from error


def _check_search(space: Space) -> None:
    """Refuse axes that do not suit the search or repeated seeds."""
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


def _check_conditions(space: Space, axis: Axis, earlier: Sequence[Axis]) -> None:
    """Refuse conditions on keys that do not exist, or that vary only later."""
    known = {other.key for other in earlier} | set(space.fixed)
    for key, wanted in axis.when.items():
        path = f"{axis.path}.when.{key}"
        if key in known:
            _check_wanted_values(path, wanted, [other for other in earlier if other.key == key])
        elif key in {other.key for other in space.axes}:
            raise Refusal(f"{path}: does not vary before this axis; move its axis up")
        else:
            raise Refusal(f"{path}: no such key; {nearest(key, known)}")


def _check_wanted_values(path: str, wanted: tuple[Plain, ...], axes: list[Axis]) -> None:
    """Refuse conditions on values that the axes they depend on never have."""
    if any(not isinstance(axis.span, Choice) for axis in axes):
        raise Refusal(f"{path}: is an interval; only a choice can be a condition")
    values = [value for axis in axes for value in axis.span.corners]
    for value in wanted:
        if values and value not in values:
            raise Refusal(
                f"{path}: {shown(value)} is never chosen; {nearest(value, map(str, values))}"
            )


def _check_branch(space: Space, values: dict[str, Plain], active: list[Axis]) -> None:
    """Refuse values of active axes that are no valid configuration with the first of the others."""
    where = _describe({key: values[key] for key in sorted(space.condition_keys & set(values))})
    for axis in active:
        if sum(other.key == axis.key for other in active) > 1:
            raise Refusal(
                f"{axis.path}: {axis.key} varies twice for {where}; conditions that exclude each"
                " other expected"
            )
        _check_key(space, axis, values)
    for axis, tried in _corners(space, values, active):
        refuse_trial(space, axis, tried)


def _describe(values: Mapping[str, Plain]) -> str:
    """Return the values in words."""
    return describe_values(values) or "every trial"


def _corners(
    space: Space, values: dict[str, Plain], active: list[Axis]
) -> Iterator[tuple[Axis, dict[str, Plain]]]:
    """Yield each active axis with the values of a trial for each of its corners."""
    for axis in active:
        decided = axis.key in space.condition_keys
        for value in [values[axis.key]] if decided else axis.span.corners:
            yield axis, values | {axis.key: value}


def _check_key(space: Space, axis: Axis, values: Mapping[str, Plain]) -> None:
    """Refuse a field that the family of the trial does not have."""
    if axis.key in SET_BY_SWEEP:
        raise Refusal(
            f"{axis.path}: trials share the processors, so it cannot vary; {axis.key} under 'fixed'"
            " expected"
        )
    section, _, name = axis.key.partition(".")
    families = FAMILIES.get(section, {})
    having = [kind for kind, cls in families.items() if name in field_types(cls)]
    kind = str(values.get(f"{section}.kind", space.fixed.get(f"{section}.kind")))
    if having and kind in families and kind not in having:
        wanted = having[0] if len(having) == 1 else f"[{', '.join(having)}]"
        raise Refusal(
            f"{axis.path}: {section}.kind '{kind}' has no {name}; add when: {{{section}.kind:"
            f" {wanted}}} to this axis"
        )


def check_ranking(space: Space) -> None:
    """Refuse figures that trials do not have, and bounds that do not compare."""
    figures = _figures(space.base)
    for name in space.metrics:
        _check_clean_reference(space, name)
        _check_measured(space.base, name)
        if name not in figures:
            raise Refusal(
                f"metrics.{name}: no such figure of these trials; {nearest(name, figures)}"
            )
        for axis in space.axes:
            if group_of(name) == "bound" and bounds_differ_along(axis):
                raise Refusal(
                    f"metrics.{name}: bounds do not compare where {axis.key} varies; "
                    "a figure of quality or sparsity expected, such as pesq_wb or hoyer"
                )


def _figures(base: Config) -> tuple[str, ...]:
    measured = figure_names(base.eval.metrics)
    if recordings_of(base.data) is not None:
        return (*measured, "hoyer_active", *SPARSITY, *FIGURES_OF_TRAINING)
    found = [name for name in measured if name not in recording_metrics(measured)]
    return (
        "squared_error",
        *SPARSITY,
        *FIGURES_OF_TRAINING,
        "bound",
        "objective",
        *found,
        *_figures_of_restoration(base),
    )


def _check_measured(base: Config, name: str) -> None:
    """Refuse a figure whose measure is not among `eval.metrics`."""
    for measure in MEASURES:
        if measure not in base.eval.metrics and name in figure_names([measure]):
            raise Refusal(
                f"metrics.{name}: not measured; eval.metrics: [{measure}] among the fixed settings"
                " expected"
            )


def _figures_of_restoration(config: Config) -> tuple[str, ...]:
    """Return the figures that compare a restoration with its clean reference."""
    windows = corrupted_windows(config)
    return () if windows is None else fidelity_figures(len(windows.window) == 2)


def _check_clean_reference(space: Space, name: str) -> None:
    """Refuse a figure of restoration if some trial has no clean reference to compare with."""
    if recordings_of(space.base.data) is not None or name not in (
        *fidelity_figures(True),
        *fidelity_figures(False),
    ):
        return
    deciding = ("model.kind", "data.noise", "data.snr", "data.drop")
    kinds = [axis for axis in space.axes if axis.key in deciding]
    varied = [{axis.key: value} for axis in kinds for value in axis.span.corners]
    for values in [{}, *space.branches(), *varied]:
        if corrupted_windows(space.config(values)) is None:
            where = _describe({key: value for key, value in values.items() if key in space.varied})
            raise Refusal(
                f"metrics.{name}: compares with the clean original of damaged data, which"
                f" is missing for {where}; data.kind patches with data.noise or data.drop above 0"
                f" and a Gaussian tvae{_or_recordings(name)} expected"
            )


def _or_recordings(name: str) -> str:
    return ", or data.kind speech," if recording_metrics([name]) else ""
