"""The axes of a search space: a setting, its values, and the conditions under which it varies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distvae.config.schema import LONGEST, check_value
from distvae.files.plain import Plain
from distvae.files.refusal import VALUE, Refusal, nearest, shortened, shown

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Choice:
    """Some values, in no order."""

    values: tuple[Plain, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))

    @property
    def corners(self) -> tuple[Plain, ...]:
        """The values that must be valid for all others to be."""
        return self.values

    def suggest(self, trial: "optuna.Trial", name: str) -> Plain:
        """Return the value that Optuna suggests.

        Optuna knows each value by its text, because lists cannot be categories. It is not asked
        about a single value.
        """
        texts = {str(value): value for value in self.values}
        if len(texts) == 1:
            return self.values[0]
        return texts[trial.suggest_categorical(name, list(texts))]

    def distribution(self) -> "BaseDistribution":
        """Return what Optuna takes for the axis."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([str(value) for value in self.values])

    def parameter(self, value: Plain) -> str:
        """Return a value as Optuna knows it."""
        return str(value)


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
        """The values that must be valid for all others to be."""
        return (self.low, self.high)

    def suggest(self, trial: "optuna.Trial", name: str) -> float:
        """Return the number that Optuna suggests, a whole one if the ends are whole."""
        number: float
        if isinstance(self.low, int):
            number = trial.suggest_int(name, self.low, int(self.high), log=self.log)
        else:
            number = trial.suggest_float(name, self.low, self.high, log=self.log)
        return number

    def distribution(self) -> "BaseDistribution":
        """Return what Optuna takes for the axis."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if isinstance(self.low, int):
            return IntDistribution(self.low, int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def parameter(self, value: Plain) -> Plain:
        """Return a value as Optuna knows it."""
        return value


@dataclass(frozen=True)
class Axis:
    """A dotted key of the configuration, its values, and the conditions under which it varies."""

    key: str
    place: int
    """Its index in the list of axes."""
    repeated: int
    """The number of axes before it that have the same key."""
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


FIELDS = ("key", "choice", "int", "float", "log", "when")
ENDS = {"int": tuple[int, int], "float": tuple[float, float]}
"""The kinds of intervals, with the type of their ends."""


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
    if not isinstance(tree, Mapping) or not isinstance(key, str) or not _names_a_field(key):
        said = "missing" if key is None else shown(key)
        raise Refusal(
            f"{path}.key: {said}; a dotted key of the configuration expected, such as model.latent"
        )
    for name in tree:
        if name not in FIELDS:
            raise Refusal(f"{path}.{name}: no such field of an axis; {nearest(name, FIELDS)}")
    span = _read_span(f"{path} ({key})", tree)
    return Axis(key, place, earlier.count(key), span, _read_conditions(path, tree))


def _names_a_field(key: str) -> bool:
    section, _, name = key.partition(".")
    return bool(name) and "." not in name and section.isidentifier()


def _read_conditions(path: str, tree: Mapping[str, Plain]) -> dict[str, tuple[Plain, ...]]:
    when = tree.get("when", {})
    if not isinstance(when, Mapping) or not all(isinstance(key, str) for key in when):
        raise Refusal(f"{path}.when: {shown(when)} is no condition; {{key: value}} expected")
    return {
        key: tuple(value) if isinstance(value, list) else (value,) for key, value in when.items()
    }


def _read_span(path: str, tree: Mapping[str, Plain]) -> Choice | Interval:
    kinds = [kind for kind in ("choice", *ENDS) if kind in tree]
    if len(kinds) != 1:
        raise Refusal(
            f"{path}: one of choice, int and float expected; {' and '.join(kinds) or 'none'} given"
        )
    return _read_choice(path, tree) if kinds == ["choice"] else _read_interval(path, kinds[0], tree)


def _read_interval(path: str, kind: str, tree: Mapping[str, Plain]) -> Interval:
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
    texts = [_text(path, value) for value in values]
    for text in texts:
        if texts.count(text) > 1:
            raise Refusal(f"{path}.choice: {shortened(text, VALUE)} is listed twice")
    return Choice(tuple(values))


def _text(path: str, value: Plain) -> str:
    """Return the text by which a sampler knows a value."""
    try:
        return str(value)
    except ValueError as error:  # Python refuses to write integers of more than 4300 digits
        raise Refusal(f"{path}.choice: {shown(value)}, which is too long") from error
