"""A search space: a recipe, the axes that vary around it, and the metrics that rank trials.

Spaces are YAML files, which are found by name. `distvae.tune.validation` checks that every trial of
a space can run.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distvae.config import Config, flatten, from_dict, to_dict
from distvae.config.recipes import load, override, read_tree, recipe_names
from distvae.config.schema import LONGEST, Count, Repeats, Trials, Whole, check_value
from distvae.files.program import SPACES
from distvae.files.refusal import VALUE, Refusal, nearest, shortened, shown
from distvae.files.untrusted import Plain, Tree

if TYPE_CHECKING:
    import optuna

Search = Literal["tpe", "nsga2", "grid", "random"]
Scheduler = Literal["none", "asha", "median", "population"]
Directions = Mapping[str, Literal["max", "min"]]
"""The metrics that rank trials, and whether larger or smaller is better."""
SHARE = 4
"""The best and the worst 1 / SHARE of a population take part in a replacement."""
ROW = "row"
"""The key of the axis that chooses among named rows."""
FOLDERS = (Path("tune_spaces"), SPACES)
"""The folders that spaces are found in by name: below the working folder, and in the package."""
FIELDS = (
    *("about", "base", "fixed", "metrics", "trials", "concurrent"),
    *("seed", "seeds", "search", "scheduler", "judge", "baselines", "axes"),
)
EXPECTED = f"fields {', '.join(FIELDS)}"
FIELDS_OF_JUDGE = ("metric", "interval", "sample")
FIELDS_OF_AXIS = ("key", "choice", "int", "float", "log", "when")
ENDS = {"int": tuple[int, int], "float": tuple[float, float]}
"""The kinds of intervals, with the type of their ends."""
MAX_COMBINATIONS = 10_000
"""The largest number of combinations of values that a space may have."""


@dataclass(frozen=True)
class Choice:
    """Some values, in no order."""

    values: tuple[Plain, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))

    @property
    def corners(self) -> tuple[Plain, ...]:
        """The values to check: all of them."""
        return self.values

    def suggest(self, trial: "optuna.Trial", name: str) -> Plain:
        """Return the value that Optuna suggests.

        Optuna stores the text of each value, because a list cannot be a category. A single value is
        returned without asking Optuna.
        """
        texts = {str(value): value for value in self.values}
        if len(texts) == 1:
            return self.values[0]
        return texts[trial.suggest_categorical(name, list(texts))]


@dataclass(frozen=True)
class Interval:
    """The numbers from low to high, both included."""

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low} to {self.high}" + ", logarithmically" * self.log

    @property
    def corners(self) -> tuple[Plain, ...]:
        """The values to check: if both ends are valid, so are the numbers between them."""
        return (self.low, self.high)

    def suggest(self, trial: "optuna.Trial", name: str) -> float:
        """Return the number that Optuna suggests: an integer if the ends are integers."""
        number: float
        if isinstance(self.low, int):
            number = trial.suggest_int(name, self.low, int(self.high), log=self.log)
        else:
            number = trial.suggest_float(name, self.low, self.high, log=self.log)
        return number


@dataclass(frozen=True)
class Axis:
    """A dotted key of the configuration, its values, and the conditions under which it varies."""

    key: str
    place: int
    """Its index in the list of axes."""
    repeated: int
    """The number of earlier axes with the same key."""
    span: Choice | Interval
    when: Mapping[str, tuple[Plain, ...]] = field(default_factory=dict)
    """Earlier keys and the values they must have, all of them."""

    @property
    def path(self) -> str:
        """The place of the axis in the file, for error messages."""
        return f"axes[{self.place}] ({self.key})"

    @property
    def name(self) -> str:
        """The sampler's name for the axis: the key, numbered if several axes share it."""
        return f"{self.key}#{self.repeated + 1}" if self.repeated else self.key

    def applies(self, values: Mapping[str, Plain]) -> bool:
        """Return whether the conditions hold; a missing key has no value."""
        return all(key in values and values[key] in wanted for key, wanted in self.when.items())


def constant_keys(axes: Sequence[Axis]) -> set[str]:
    """Return the keys with a single value. Where such a setting applies, it follows from others."""
    values: dict[str, set[str]] = {}
    for axis in axes:
        values.setdefault(axis.key, set()).update(map(str, axis.span.corners))
    return {key for key, texts in values.items() if len(texts) == 1}


def as_written(axis: Tree) -> Tree:
    """Return an axis of sweep.json as a space file writes it."""
    span, entry = axis["span"], {"key": axis["key"]}
    if "values" in span:
        entry["choice"] = span["values"]
    else:
        kind = "int" if isinstance(span["low"], int) else "float"
        entry[kind] = [span["low"], span["high"]]
        if span["log"]:
            entry["log"] = True
    if axis["when"]:
        entry["when"] = axis["when"]
    return entry


def in_yaml(value: Plain) -> str:
    """Return a value as YAML on one line, shortened if it is long."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return shortened(text.partition("\n")[0], 2 * VALUE)


@dataclass(frozen=True)
class Judge:
    """The metric by which the scheduler compares trials while they train, instead of the bound."""

    metric: str | None
    """One of the metrics of the space; None for all of them."""
    interval: int
    """Epochs from one judgment of a trial to the next."""
    sample: int = 1000
    """The largest number of rows, or recordings, on which a trial is judged."""


@dataclass(frozen=True)
class Row:
    """One row of a table: its configuration, and the figures published for it."""

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
    metrics: Directions
    trials: int
    concurrent: int | None
    """Trials side by side; None for one per core."""
    seed: int
    search: Search
    seeds: int
    """Runs of each trial, whose figures are averaged."""
    scheduler: Scheduler
    """The rule that stops poor trials early, or replaces them."""
    axes: tuple[Axis, ...]
    judge: Judge | None = None
    """What the scheduler compares; None for bounds."""
    baselines: tuple[str, ...] | None = None
    """Baselines to score beside the trials; None for principal components of recordings."""
    rows: Mapping[str, Row] = field(default_factory=dict)
    """The rows whose data is available. The axis `row` chooses among them."""
    command: str = ""
    """The command that repeats a sweep over rows."""
    split: str = "val"
    """The split that trials are evaluated on.

    Choosing among trials must not see the test data; a table of rows does not choose.
    """

    whole_grid: bool = False
    """Whether a grid has a trial for each combination, because its file gives no number."""

    @property
    def count(self) -> int:
        """The number of trials, including the branches of a population."""
        if self.scheduler != "population" or self.judge is None:
            return self.trials
        replacements = math.ceil(self.base.train.epochs / self.judge.interval) - 1
        return self.trials + replacements * (self.trials // SHARE)

    @property
    def judged(self) -> tuple[str, ...]:
        """The metrics by which trials are judged while they train."""
        if self.judge is None:
            return ()
        return tuple(self.metrics) if self.judge.metric is None else (self.judge.metric,)

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
    def constant(self) -> set[str]:
        """The varied keys that have a single value, which labels of trials leave out."""
        return constant_keys(self.axes)

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

    def row_of(self, values: Mapping[str, Plain]) -> Row:
        """Return the row that a trial chose; without rows, the base as a row."""
        if ROW in values:
            return self.rows[str(values[ROW])]
        return Row(self.recipe, self.base)

    def config(self, values: Mapping[str, Plain]) -> Config:
        """Return the validated configuration of a trial."""
        settings = {key: value for key, value in values.items() if key != ROW}
        return vary(self.row_of(values).config, settings)

    def epochs(self, values: Mapping[str, Plain]) -> int:
        """Return the epochs of each seed of a trial."""
        varied = values.get("train.epochs")
        return varied if isinstance(varied, int) else self.row_of(values).config.train.epochs

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

    def presets(self) -> Iterator[dict[str, Plain]]:
        """Yield the parameters of the first trials, as the sampler names them.

        A grid has a preset for each combination of values. Another search has a preset for each
        combination of the values that conditions depend on, and draws the remaining values.
        """
        is_grid = self.search == "grid"
        keys = self.varied if is_grid else self.condition_keys
        for values in self.combinations() if is_grid else self.branches():
            chosen = [axis for axis in self.active_axes(values) if axis.key in keys]
            yield {axis.name: str(values[axis.key]) for axis in chosen}


def sweep_name(space: str) -> str:
    """Return the name of the default folder of a sweep over a space. A run of a recipe of the same
    name has another folder.
    """
    return f"{space}-sweep" if space in recipe_names() else space


def vary(base: Config, values: Mapping[str, Plain]) -> Config:
    """Return a configuration with some settings changed.

    A changed kind starts from the defaults of its family.
    """
    return from_dict(override(to_dict(base), values))


def count_combinations(combinations: Iterator[dict[str, Plain]], message: str) -> int:
    """Return the number of combinations; raise `Refusal` with the message if there are too many."""
    count = sum(1 for _ in islice(combinations, MAX_COMBINATIONS + 1))
    if count > MAX_COMBINATIONS:
        raise Refusal(message.format(f"{MAX_COMBINATIONS:,}"))
    return count


def space_names() -> dict[str, str]:
    """Return the names of the spaces found, each with its description."""
    paths: dict[str, Path] = {}
    for folder in reversed(FOLDERS):
        paths |= {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {
        name: str(read_tree(path, EXPECTED).get("about", ""))
        for name, path in sorted(paths.items())
    }


def space_path(name: str) -> Path:
    """Return the file of a space, given its name or the file itself."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    for folder in FOLDERS:
        if (path := folder / f"{name}.yaml").is_file():
            return path
    raise Refusal(f"{name}: no such space in tune_spaces; {nearest(name, space_names())}")


def read_space(name: str, tree: Mapping[str, Plain]) -> Space:
    """Return the space of a mapping with well-formed fields; `validate_space` checks the rest."""
    for key in tree:
        if key not in FIELDS:
            raise Refusal(f"{key}: no such field of a space; {nearest(key, FIELDS)}")
    recipe = check_value("base", str, tree.get("base", ""))
    search = check_value("search", Search, tree.get("search", "tpe"))
    scheduler = check_value("scheduler", Scheduler, tree.get("scheduler", "none"))
    space = Space(
        name=name,
        about=check_value("about", str, tree.get("about", "")),
        recipe=recipe,
        base=_read_base(tree, recipe),
        metrics=_read_metrics(tree.get("metrics")),
        trials=check_value("trials", Trials, tree.get("trials", 20)),
        concurrent=check_value("concurrent", Count | None, tree.get("concurrent")),
        seed=check_value("seed", Whole, tree.get("seed", 0)),
        search=search,
        seeds=check_value("seeds", Repeats, tree.get("seeds", 1)),
        scheduler=scheduler,
        axes=read_axes(tree.get("axes")),
        judge=_read_judge(tree.get("judge"), tree.get("metrics"), scheduler),
        baselines=check_value("baselines", tuple[str, ...] | None, tree.get("baselines")),
    )
    if search == "grid":
        count = count_combinations(
            space.combinations(), "search: a grid of more than {} trials; fewer values expected"
        )
        return space if "trials" in tree else replace(space, trials=count, whole_grid=True)
    return space


def _read_base(tree: Mapping[str, Plain], recipe: str) -> Config:
    fixed = tree.get("fixed") or {}
    if not isinstance(fixed, Mapping):
        raise Refusal(
            f"fixed: {shown(fixed)}; dotted keys and values expected, such as train.epochs: 10"
        )
    if "base" not in tree:
        raise Refusal("base: missing; a recipe, or the file of one, expected")
    varied = {axis.key for axis in read_axes(tree.get("axes"))}
    for key in fixed:
        if key in varied:
            raise Refusal(f"fixed.{key}: is also an axis; one of the two expected")
    try:
        return load(recipe, {str(key): value for key, value in fixed.items()})
    except Refusal as error:
        raise Refusal(f"base and fixed: {error}") from error


def _read_metrics(tree: object) -> dict[str, Literal["max", "min"]]:
    if not isinstance(tree, Mapping) or not tree:
        raise Refusal(
            "metrics: at least one figure and its direction expected, such as pesq_wb: max"
        )
    for name, direction in tree.items():
        check_value(f"metrics.{name}", Literal["max", "min"], direction)
    return {str(name): direction for name, direction in tree.items()}


def _read_judge(tree: object, metrics: object, scheduler: Scheduler) -> Judge | None:
    """Return what the scheduler compares: by default all metrics of the space for `asha`, and the
    first for others.
    """
    if tree is None:
        return None
    if not isinstance(tree, Mapping) or "interval" not in tree:
        raise Refusal(
            f"judge: {shown(tree)}; an interval in epochs expected, and a metric unless the default"
            " serves, such as {interval: 5, metric: hoyer}"
        )
    for key in tree:
        if key not in FIELDS_OF_JUDGE:
            raise Refusal(f"judge.{key}: no such field; {nearest(key, FIELDS_OF_JUDGE)}")
    known = [*_read_metrics(metrics)]
    default = None if scheduler == "asha" else known[0]
    metric = check_value("judge.metric", str | None, tree.get("metric", default))
    if metric is not None and metric not in known:
        raise Refusal(f"judge.metric: {metric} is not among the metrics; {nearest(metric, known)}")
    interval = check_value("judge.interval", Count, tree["interval"])
    return Judge(metric, interval, check_value("judge.sample", Count, tree.get("sample", 1000)))


def read_axes(tree: object) -> tuple[Axis, ...]:
    """Return the axes of a space file."""
    if not isinstance(tree, list) or not tree:
        raise Refusal(
            "axes: a list of at least one axis expected, such as {key: model.latent, choice: [16,"
            " 32]}"
        )
    axes: list[Axis] = []
    for place, item in enumerate(tree):
        axes.append(_read_axis(place, item, [axis.key for axis in axes]))
    return tuple(axes)


def _read_axis(place: int, tree: object, earlier: list[str]) -> Axis:
    path = f"axes[{place}]"
    key = tree.get("key") if isinstance(tree, Mapping) else None
    section, _, name = key.partition(".") if isinstance(key, str) else ("", "", "")
    if not isinstance(tree, Mapping) or not (section.isidentifier() and name and "." not in name):
        said = "missing" if key is None else shown(key)
        raise Refusal(
            f"{path}.key: {said}; a dotted key of the configuration expected, such as model.latent"
        )
    for each in tree:
        if each not in FIELDS_OF_AXIS:
            raise Refusal(
                f"{path}.{each}: no such field of an axis; {nearest(each, FIELDS_OF_AXIS)}"
            )
    when = tree.get("when", {})
    if not isinstance(when, Mapping) or not all(isinstance(each, str) for each in when):
        raise Refusal(f"{path}.when: {shown(when)} is no condition; {{key: value}} expected")
    conditions = {}
    for each, value in when.items():
        conditions[each] = tuple(value) if isinstance(value, list) else (value,)
    span = _read_span(f"{path} ({key})", tree)
    return Axis(str(key), place, earlier.count(str(key)), span, conditions)


def _read_span(path: str, tree: Mapping[str, Plain]) -> Choice | Interval:
    kinds = [kind for kind in ("choice", *ENDS) if kind in tree]
    if len(kinds) != 1:
        raise Refusal(
            f"{path}: one of choice, int and float expected; {' and '.join(kinds) or 'none'} given"
        )
    (kind,) = kinds
    if kind == "choice":
        return _read_choice(path, tree)
    low, high = check_value(f"{path}.{kind}", ENDS[kind], tree[kind])
    log = tree.get("log", False)
    if not isinstance(log, bool):
        raise Refusal(f"{path}.log: {shown(log)}; true or false expected")
    if not low < high or (log and low <= 0):
        wanted = "two rising numbers above 0" if log else "two rising numbers"
        raise Refusal(f"{path}.{kind}: [{low}, {high}]; {wanted} expected")
    return Interval(low, high, log)


def _read_choice(path: str, tree: Mapping[str, Plain]) -> Choice:
    values = tree["choice"]
    if not isinstance(values, list) or not 0 < len(values) <= LONGEST:
        raise Refusal(
            f"{path}.choice: {shown(values)}; a list of at least one value, and at most {LONGEST},"
            " expected"
        )
    if "log" in tree:
        raise Refusal(f"{path}.log: a choice has no scale; leave it out")
    texts = []
    for value in values:
        try:
            texts.append(str(value))
        except ValueError as error:  # Python writes no integer of more than 4300 digits
            raise Refusal(f"{path}.choice: {shown(value)}, which is too long") from error
    for text in texts:
        if texts.count(text) > 1:
            raise Refusal(f"{path}.choice: {shortened(text, VALUE)} is listed twice")
    return Choice(tuple(values))
