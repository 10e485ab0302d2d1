"""Checks of a search space before a sweep starts.

Every value of every axis must give a valid configuration, an axis may vary only where its key
exists, trials are ranked only by figures that compare, and the scheduler must suit the space.
"""

from collections.abc import Iterator, Mapping, Sequence

from distvae.config import Config
from distvae.config.recipes import read_tree
from distvae.config.schema import FAMILIES, field_types
from distvae.data.speech import recordings_of
from distvae.files.refusal import Refusal, nearest, shown
from distvae.files.untrusted import Plain
from distvae.numerics.metrics import SPARSITY, group_of
from distvae.tasks.measures import MEASURES, figure_names, refuse_impossible_measures
from distvae.tasks.presets import corrupted_windows
from distvae.tasks.scores import fidelity_figures, recording_metrics
from distvae.train.cost import DataSize, check_fits_in_memory
from distvae.train.loop import FIGURES_OF_TRAINING
from distvae.tune.baselines import shares_recordings
from distvae.tune.space import (
    EXPECTED,
    ROW,
    SHARE,
    Axis,
    Choice,
    Space,
    count_combinations,
    read_space,
    space_path,
)

SET_BY_SWEEP = ("train.threads", "eval.processes")
"""Settings that a sweep sets itself, because its trials share the processors."""
CHANGE_THE_BOUND = ("data.", "model.kind", "model.likelihood")
"""Keys that decide the prior, the likelihood or the data: bounds do not compare across them."""
INHERITED = ("train.seed",)
"""Settings that may vary in a population and that a branch keeps."""
CHANGEABLE = (
    *("train.rate", "train.rate_low", "train.clip"),
    *("model.alpha", "model.beta", "model.coherence", "model.sharpness", "model.temperature"),
    *("estep.parents", "estep.children", "estep.generations", "estep.selection"),
    *("estep.mutation", "estep.crossover", "estep.rate", "estep.draws"),
)
"""Settings that may change while a model trains, because its state does not depend on them."""


def load_space(name: str) -> Space:
    """Read and validate the space of a name or a file."""
    path = space_path(name)
    try:
        space = read_space(path.stem, read_tree(path, EXPECTED))
        validate_space(space)
    except Refusal as error:
        message = str(error)
        if not message.startswith(str(path)):
            message = f"{path}: {message}"
        raise Refusal(message) from error
    return space


def validate_space(space: Space) -> None:
    """Refuse a space in which some trial could not run, or could not be compared.

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
    check_scheduler(space)
    if space.baselines:
        _check_baselines(space, space.baselines)


def check_memory(space: Space, data: DataSize, workers: int = 1, copies: int = 1) -> None:
    """Refuse a space in which some trial takes more memory than this machine has free.

    The machine keeps `copies` copies of the populations of each worker.
    """
    for values in space.branches():
        for axis, tried in _corners(space, values, space.active_axes(values)):
            if tried.get(ROW, "") not in {"", *space.rows}:
                continue  # a row that is left out because its data is missing
            try:
                check_fits_in_memory(space.config(tried), data, workers, copies)
            except Refusal as error:
                raise Refusal(f"{axis.path}: {error}") from error


def _check_conditions(space: Space, axis: Axis, earlier: Sequence[Axis]) -> None:
    """Refuse conditions on keys that do not exist, that vary only later, or with other values."""
    known = {other.key for other in earlier} | set(space.fixed)
    for key, wanted in axis.when.items():
        path = f"{axis.path}.when.{key}"
        if key not in known:
            if key in {other.key for other in space.axes}:
                raise Refusal(f"{path}: does not vary before this axis; move its axis up")
            raise Refusal(f"{path}: no such key; {nearest(key, known)}")
        axes = [other for other in earlier if other.key == key]
        if any(not isinstance(other.span, Choice) for other in axes):
            raise Refusal(f"{path}: is an interval; only a choice can be a condition")
        values = [value for other in axes for value in other.span.corners]
        for value in wanted:
            if values and value not in values:
                raise Refusal(
                    f"{path}: {shown(value)} is never chosen; {nearest(value, map(str, values))}"
                )


def _check_branch(space: Space, values: dict[str, Plain], active: list[Axis]) -> None:
    """Refuse values of active axes that give no valid configuration."""
    where = _describe({key: values[key] for key in sorted(space.condition_keys & set(values))})
    for axis in active:
        if sum(other.key == axis.key for other in active) > 1:
            raise Refusal(
                f"{axis.path}: {axis.key} varies twice for {where}; conditions that exclude each"
                " other expected"
            )
        _check_key(space, axis, values)
    for axis, tried in _corners(space, values, active):
        if error := _error(space, tried):
            raise Refusal(_explain(space, axis, tried, error))


def _describe(values: Mapping[str, Plain]) -> str:
    """Return the values in words."""
    return ", ".join(f"{key} {value}" for key, value in values.items()) or "every trial"


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


def _error(space: Space, values: Mapping[str, Plain]) -> str:
    """Return why a trial is no valid configuration; '' for a valid trial."""
    try:
        refuse_impossible_measures(space.config(values))
    except Refusal as error:
        return str(error)
    return ""


def _explain(space: Space, tried: Axis, values: Mapping[str, Plain], error: str) -> str:
    """Return the error of a trial, with the axis that the error names or else the axis tried.

    An error that only comes with values of other axes is told with them.
    """
    if _error(space, {}) == error:
        return f"base and fixed: {error}"
    axes, name = space.active_axes(values), error.partition(":")[0]
    named = [axis for axis in axes if name in (axis.key, axis.key.partition(".")[0])]
    owner = named[0] if len(named) == 1 else tried
    text = f"{owner.path}: {error}"
    if _error(space, {owner.key: values[owner.key]}) == error:
        return text
    told = {owner.key, tried.key, *space.condition_keys}
    pairs = {axis.key: values[axis.key] for axis in axes if axis.key in told}
    return f"{text} (for {_describe(pairs)}); a condition ('when') that excludes this expected"


def _check_baselines(space: Space, names: Sequence[str]) -> None:
    """Refuse baselines that cannot be scored beside all trials."""
    from distvae.tasks.baselines import parse_baseline

    if not shares_recordings(space):
        raise Refusal("baselines: need recordings that are the same in all trials; [] expected")
    for name in names:
        try:
            parse_baseline(name, space.base.data)
        except Refusal as error:
            raise Refusal(f"baselines: {error}") from error


def check_ranking(space: Space) -> None:
    """Refuse figures that trials do not have, and bounds that do not compare."""
    figures = ranking_figures(space.base)
    for name in space.metrics:
        _check_clean_reference(space, name)
        for measure in MEASURES:
            if measure not in space.base.eval.metrics and name in figure_names([measure]):
                raise Refusal(
                    f"metrics.{name}: not measured; eval.metrics: [{measure}] among the fixed"
                    " settings expected"
                )
        if name not in figures:
            raise Refusal(
                f"metrics.{name}: no such figure of these trials; {nearest(name, figures)}"
            )
        for axis in space.axes:
            if group_of(name) == "bound" and _bounds_differ_along(axis):
                raise Refusal(
                    f"metrics.{name}: bounds do not compare where {axis.key} varies; "
                    "a figure of quality or sparsity expected, such as pesq_wb or hoyer"
                )


def ranking_figures(base: Config) -> tuple[str, ...]:
    """Return the figures that trials of a configuration can be ranked by."""
    measured = figure_names(base.eval.metrics)
    if recordings_of(base.data) is not None:
        return (*measured, "hoyer_active", *SPARSITY, *FIGURES_OF_TRAINING)
    found = [name for name in measured if name not in recording_metrics(measured)]
    windows = corrupted_windows(base)
    restored = () if windows is None else fidelity_figures(len(windows.window) == 2)
    general = ("squared_error", *SPARSITY, *FIGURES_OF_TRAINING, "bound", "objective")
    return (*general, *found, *restored)


def _check_clean_reference(space: Space, name: str) -> None:
    """Refuse a figure of restoration if some trial has no clean reference to compare with."""
    of_restoration = (*fidelity_figures(True), *fidelity_figures(False))
    if recordings_of(space.base.data) is not None or name not in of_restoration:
        return
    deciding = ("model.kind", "data.noise", "data.snr", "data.drop")
    kinds = [axis for axis in space.axes if axis.key in deciding]
    varied = [{axis.key: value} for axis in kinds for value in axis.span.corners]
    for values in [{}, *space.branches(), *varied]:
        if corrupted_windows(space.config(values)) is None:
            where = _describe({key: value for key, value in values.items() if key in space.varied})
            recordings = ", or data.kind speech," if recording_metrics([name]) else ""
            raise Refusal(
                f"metrics.{name}: compares with the clean original of damaged data, which"
                f" is missing for {where}; data.kind patches with data.noise or data.drop above 0"
                f" and a Gaussian tvae{recordings} expected"
            )


def _bounds_differ_along(axis: Axis) -> bool:
    """Return whether bounds do not compare where an axis varies.

    The objective of VSC with pseudo-inputs is a bound only given the pseudo-inputs it selects.
    """
    values = axis.span.values if isinstance(axis.span, Choice) else ()
    is_pseudo = axis.key == "model.prior" and "pseudo" in values
    return is_pseudo or axis.key.startswith(CHANGE_THE_BOUND)


def check_scheduler(space: Space, workers: bool = False) -> None:
    """Refuse a space that does not suit its scheduler, or a judge without a scheduler.

    `workers` says whether each trial trains with several workers.
    """
    if space.judge is not None and workers:
        raise Refusal(
            "--workers: trials that are judged while they train do so in one process each; no"
            " --workers expected"
        )
    if space.scheduler == "none":
        if space.judge is not None:
            raise Refusal("judge: nobody asks it; scheduler: asha, median or population expected")
        return
    if space.judge is None and space.scheduler != "population":
        instead = "; judge: {interval: EPOCHS} compares metrics instead"
        for axis in space.axes:
            if _bounds_differ_along(axis):
                raise Refusal(
                    f"scheduler: {space.scheduler} compares bounds, which do not compare where"
                    f" {axis.key} varies{instead}"
                )
        if len(space.metrics) > 1:
            raise Refusal(
                f"scheduler: {space.scheduler} serves one figure; metrics names"
                f" {', '.join(space.metrics)}{instead}"
            )
    if space.scheduler == "population":
        _check_population(space)


def _check_population(space: Space) -> None:
    """Refuse a population that cannot be trained generation by generation."""
    if space.judge is None:
        raise Refusal(
            "scheduler: population replaces trials by a metric; judge: {interval: EPOCHS} expected"
        )
    if space.seeds > 1:
        raise Refusal(f"seeds: {space.seeds}, but a trial of a population is one run; 1 expected")
    if space.search != "random":
        raise Refusal(
            f"search: {space.search}, but a population begins with trials drawn at random; random"
            " expected"
        )
    smallest = max(SHARE, sum(1 for _ in space.branches()))
    if space.trials < smallest:
        raise Refusal(f"trials: a population of {space.trials}; at least {smallest} expected")
    train = space.base.train
    for name in ("patience", "stop_at_noise", "sigma"):
        if value := getattr(train, name):
            raise Refusal(
                f"train.{name}: {str(value).lower()}, but the trials of a population train equally"
                " long; omit it"
            )
    for axis in space.axes:
        is_buffer = axis.key == "model.alpha" and space.base.model.kind == "gumbel"
        if axis.key not in (*CHANGEABLE, *INHERITED) or is_buffer:
            raise Refusal(
                f"{axis.path}: trials of a population take over weights and states of others, to"
                f" which {axis.key} gives their shape or meaning; one of"
                f" {', '.join([*CHANGEABLE, *INHERITED])} expected"
            )
    if not any(axis.key in CHANGEABLE for axis in space.axes):
        raise Refusal("axes: one that may change while a model trains expected, such as train.rate")
