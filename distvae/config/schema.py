"""Configurations as untrusted values: families by their kind, and frozen dataclasses with types,
ranges and explanations.

A family has two parts. Its configuration is a frozen dataclass, decorated with `family` and
identified by its `kind`. Its implementation is a class, registered for that dataclass in the
`Registry` of the section. Other packages list the modules that define both as entry points. They
are imported when a configuration names a kind that is not built in.
"""

import ast
import contextlib
import dataclasses
import inspect
import math
import operator
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field
from functools import cache
from importlib.metadata import entry_points
from itertools import pairwise
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    SupportsIndex,
    TypeVar,
    cast,
)

from distvae.files.refusal import Refusal, nearest, shown
from distvae.files.untrusted import Tree

SECTIONS = ("data", "model", "estep", "train", "eval")
FAMILIES: dict[str, dict[str, type]] = {section: {} for section in SECTIONS}
"""The configuration classes of each section, by kind."""
ENTRY_POINTS = {"data": "distvae.data", "model": "distvae.models", "estep": "distvae.esteps"}
"""The group of entry points in which other packages list their families of a section."""


class Family(Protocol):
    """A configuration class that can be registered: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    kind: ClassVar[str]
    """The value of `kind` that selects this family in a configuration."""


F = TypeVar("F", bound=type[Family])
C = TypeVar("C", bound=Callable[..., object])
Implementation = TypeVar("Implementation")


def family(section: str) -> Callable[[F], F]:
    """Register the decorated dataclass as a family of a section, under its `kind`."""

    if section not in FAMILIES:
        raise Refusal(
            f"family('{section}'): no such section; one of {', '.join(SECTIONS)} expected"
        )

    def register(config: F) -> F:
        FAMILIES[section][config.kind] = config
        return config

    return register


def load_extensions(section: str) -> None:
    """Import the modules that other packages list as entry points for a section. Refuse an entry
    point that cannot be imported by its name.
    """
    group = ENTRY_POINTS.get(section)
    for point in entry_points(group=group) if group else ():
        try:
            point.load()
        except Exception as error:
            package = f" of the package {point.dist.name}" if point.dist else ""
            raise Refusal(
                f"entry point '{point.name} = {point.value}' in [{point.group}]{package}:"
                f" {type(error).__name__}: {error}; a module that can be imported expected"
            ) from error


def find_family(section: str, kind: str) -> type | None:
    """Return the configuration class of a kind, or None if no installed package has it."""
    if kind not in FAMILIES[section]:
        load_extensions(section)
    return FAMILIES[section].get(kind)


class Registry(dict[type[Family], Implementation]):
    """The implementations of the families of one section, by configuration class."""

    def __init__(self, section: str) -> None:
        super().__init__()
        self.section = section

    def register(self, config: type) -> Callable[[C], C]:
        """Register the decorated class as the implementation of a configuration class."""

        def enter(implementation: C) -> C:
            self[config] = cast(Implementation, implementation)
            return implementation

        return enter

    def implementation(self, config: Family) -> Implementation:
        """Return the implementation registered for the class of a configuration."""
        try:
            return self[type(config)]
        except KeyError:
            name = type(config).__name__
            raise Refusal(
                f"{self.section}.kind: '{config.kind}' has a configuration ({name}) but no"
                f" implementation; a class registered for {name} expected"
            ) from None


V = TypeVar("V")
LONGEST = 1000
"""The largest number of values in a list."""


class Range(NamedTuple):
    """The closed interval of valid numbers; `above` excludes the lower end."""

    low: float
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Return whether a number is inside the interval. NaN never is."""
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        least = f"above {_plain(self.low)}" if self.above else f"at least {_plain(self.low)}"
        return least if self.high == math.inf else f"{least} and at most {_plain(self.high)}"


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


WHOLE = Range(-(2**63), 2**64 - 1)
"""The range of every whole number: 64 bits, signed or unsigned."""
FINITE, TINY = Range(-1e30, 1e30), 1e-30
"""The range of every other number, and the smallest absolute value except zero. Models compute in
float32.
"""


DEFAULT_KINDS = {
    "data": "speech",
    "model": "vae",
    "estep": "amortised",
    "train": "adam",
    "eval": "standard",
}
"""The default kinds of sections. A model without an encoder has another default E-step."""


def fields_of(section: str, tree: object) -> Tree:
    """Return a copy of the fields of a section; null stands for no fields."""
    if tree is None:
        return {}
    if not isinstance(tree, Mapping):
        raise Refusal(f"{section}: {shown(tree)} is not a mapping of fields")
    return dict(tree)


def read_section(name: str, tree: Mapping[str, object]) -> Any:
    """Return the validated dataclass of one section."""
    fields = dict(tree)
    kind = fields.pop("kind", DEFAULT_KINDS[name])
    if not isinstance(kind, str):
        raise Refusal(f"{name}.kind: {shown(kind)}; one of {', '.join(FAMILIES[name])} expected")
    cls = find_family(name, kind)
    if cls is None:
        raise Refusal(f"{name}.kind: no family {shown(kind)}; {nearest(kind, FAMILIES[name])}")
    hints = field_types(cls)
    for key in fields:
        if key not in hints:
            raise Refusal(
                f"{name}.{key}: no such field of {name}.kind '{kind}'; {nearest(key, hints)}"
            )
    return cls(
        **{key: check_value(f"{name}.{key}", hints[key], value) for key, value in fields.items()}
    )


@cache
def field_types(cls: type) -> dict[str, object]:
    """Return the annotation of each field of a family, ranges included."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def check_value(path: str, hint: object, value: object) -> Any:
    """Return the value in the type of its annotation. Refuse a value that does not fit, by its
    path.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _sane(path, _typed(path, arguments[0], value), arguments[1])
    if origin is Literal:
        return _one_of(path, arguments, value)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else check_value(path, arguments[0], value)
    if origin is tuple:
        return tuple(_items(path, arguments, value))
    return _sane(path, _typed(path, cast("type[object]", hint), value))


def whole_number(name: str, hint: object, value: object) -> int:
    """Return a caller's argument as a Python whole number. Refuse any other value, by its name."""
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        with contextlib.suppress(TypeError):  # arrays of several numbers have the same method
            value = operator.index(value)
    number: int = check_value(name, hint, value)
    return number


def _one_of(path: str, choices: tuple[str, ...], value: object) -> str:
    if value not in choices:
        raise Refusal(f"{path}: no choice {shown(value)}; {nearest(value, choices)}")
    return str(value)


def _items(path: str, arguments: Sequence[object], value: object) -> Iterator[object]:
    if not isinstance(value, list | tuple):
        raise Refusal(f"{path}: {shown(value)} is not a list")
    if arguments[-1] is not Ellipsis and len(value) != len(arguments):
        raise Refusal(f"{path}: {len(value)} values; {len(arguments)} expected")
    if len(value) > LONGEST:
        raise Refusal(f"{path}: {len(value)} values; at most {LONGEST} expected")
    for i, item in enumerate(value):
        yield check_value(f"{path}[{i}]", arguments[0], item)


NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _typed(path: str, hint: type[V], value: object) -> V:
    """Return the value if it has the type. Text may stand for a float, because YAML reads 1e-4 as
    text.
    """
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            value = _as_float(value)
    if type(value) is not hint:
        raise Refusal(f"{path}: {shown(value)} is not {NAMES.get(hint, hint.__name__)}")
    return value


def _as_float(value: int | str) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond the range of floats
        return math.inf


def _sane(path: str, value: V, own: Range | None = None) -> V:
    """Return the value if it is text without NUL, or a number of usual size within its bounds."""
    if isinstance(value, str) and "\0" in value:
        raise Refusal(f"{path}: {shown(value)} holds a NUL; text without one expected")
    usual = {int: WHOLE, float: FINITE}.get(type(value))
    if usual is None or not isinstance(value, int | float):
        return value
    bounds = own or usual
    if not bounds.holds(value):
        raise Refusal(f"{path}: {shown(value)} is out of range; {bounds} expected")
    if not usual.holds(value):
        wanted = bounds._replace(high=usual.high)
        raise Refusal(f"{path}: {shown(value)} is out of range; {wanted} expected")
    if isinstance(value, float) and 0 < abs(value) < TINY:
        zero = "0, or " if bounds.holds(0) else ""
        raise Refusal(
            f"{path}: {shown(value)} is out of range; {zero}a size of at least {TINY:g} expected"
        )
    return value


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Trials = Annotated[int, Range(1, 10_000)]
"""Trials of a sweep. Samplers read all earlier trials before each new trial."""
Repeats = Annotated[int, Range(1, 1000)]
"""Runs with different seeds, for a trial or for a row of a table."""
Processes = Annotated[int, Range(1, 1024)]
"""Threads or processes on one machine."""
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1, above=True)]
Probability = Annotated[float, Range(1e-6, 1 - 1e-6)]
Widths = tuple[Count, ...]
POWER_FLOOR = 1e-10
"""The smallest power of a frequency bin. Without this floor, the density of a zero grows without
bound as its mean falls.
"""
Activation = Literal["tanh", "relu", "leaky_relu", "silu"]
TVAEActivation = Literal["tanh", "relu", "leaky_relu"]
Restoring = Literal["mean", "draws"]
"""Which decoding of a posterior a restoration uses."""
FrequencyScale = Literal["linear", "log", "mel"]


KINDS = {
    "data": "What is read, or generated: recordings (`speech`), images (`idx`, `images`), windows"
    " of one picture or sound (`patches`) or of many pictures (`crops`), tables (`rows`), or"
    " generated images.",
    "model": "A VAE; with a dictionary (`sdm`), spike and slab (`vsc`) or discrete latents"
    " (`gumbel`); or a model without an encoder: a `tvae`, with binary latents, or `ssc`, a linear"
    " model with sparse continuous latents.",
    "estep": "How posteriors are found: by an encoder (`amortised`), by a search, or exactly. The"
    " default of a `tvae` is `evolution`, and of `ssc` is `selection`.",
}
"""Explanations of the kinds of a section."""


class Setting(NamedTuple):
    """A dotted key: its possible values, its default, its meaning, and its kinds if the section has
    several kinds.
    """

    key: str
    values: str
    default: str
    meaning: str
    kinds: tuple[str, ...]


def settings() -> Iterator[Setting]:
    """Yield all settings, section by section, including settings of other packages.

    A key whose values, default or meaning differ between kinds is yielded for each variant.
    """
    for section, families in FAMILIES.items():
        load_extensions(section)
        found: dict[tuple[str, str, str, str], list[str]] = {}
        if len(families) > 1:
            kinds = " or ".join(", ".join(families).rsplit(", ", 1))
            found[f"{section}.kind", kinds, DEFAULT_KINDS[section], KINDS[section]] = []
        for kind, config in families.items():
            hints, meanings = field_types(config), meanings_of(config)
            for field in dataclasses.fields(config):
                fact = (
                    f"{section}.{field.name}",
                    _values(hints[field.name]),
                    default_of(field),
                    meanings.get(field.name, ""),
                )
                found.setdefault(fact, []).append(kind)
        keys = list(dict.fromkeys(key for key, *_ in found))
        for fact in sorted(found, key=lambda fact: keys.index(fact[0])):
            yield Setting(*fact, tuple(found[fact]) if len(families) > 1 else ())


@cache
def meanings_of(config: type) -> Mapping[str, str]:
    """Return the text below each field of a class and of its base classes."""
    found: dict[str, str] = {}
    for each in reversed(config.__mro__):
        if not dataclasses.is_dataclass(each):
            continue
        (definition,) = ast.parse(inspect.cleandoc(inspect.getsource(each))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return found


def _values(hint: object) -> str:
    """Return the possible values of a setting as text."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return f"{NAMES[arguments[0]]}, {arguments[1]}"
    if origin is Literal:
        return " or ".join(", ".join(map(str, arguments)).rsplit(", ", 1))
    if origin in (types.UnionType, typing.Union):
        return f"{_values(arguments[0])}; or null"
    if origin is tuple:
        return f"a list: {_values(arguments[0])}"
    return NAMES.get(typing.cast("type", hint), str(hint))


def default_of(field: "dataclasses.Field[object]") -> str:
    """Return the default of a setting as typed on the command line, or '' without a default."""
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return ""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
