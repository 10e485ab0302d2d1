"""Read untrusted values into frozen dataclasses: types, ranges, and the nearest valid name."""

import contextlib
import dataclasses
import math
import operator
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, SupportsIndex, TypeVar, cast

from distvae.config.registry import FAMILIES, load_extensions
from distvae.files.refusal import Refusal, nearest, shown
from distvae.files.untrusted import Tree

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


def kind_of(section: str, tree: Mapping[str, object]) -> str:
    """Return the kind in a section, or the default kind."""
    kind = tree.get("kind", DEFAULT_KINDS[section])
    if not isinstance(kind, str):
        raise Refusal(
            f"{section}.kind: {shown(kind)}; one of {', '.join(FAMILIES[section])} expected"
        )
    if kind not in FAMILIES[section]:
        load_extensions(section)
    if kind not in FAMILIES[section]:
        raise Refusal(
            f"{section}.kind: no family {shown(kind)}; {nearest(kind, FAMILIES[section])}"
        )
    return kind


def fields_of(section: str, tree: object) -> Tree:
    """Return a copy of the fields of a section; null stands for no fields."""
    if tree is None:
        return {}
    if not isinstance(tree, Mapping):
        raise Refusal(f"{section}: {shown(tree)} is not a mapping of fields")
    return dict(tree)


def read_section(name: str, tree: Mapping[str, object]) -> Any:
    """Return the validated dataclass of one section."""
    kind = kind_of(name, tree)
    cls = FAMILIES[name][kind]
    hints = field_types(cls)
    fields = {key: value for key, value in tree.items() if key != "kind"}
    for key in fields:
        if key not in hints:
            raise Refusal(
                f"{name}.{key}: no such field of {name}.kind '{kind}'; {nearest(key, hints)}"
            )
    return cls(
        **{key: check_value(f"{name}.{key}", hints[key], value) for key, value in fields.items()}
    )


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
        return _ranged(path, arguments[0], arguments[1], value)
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


def _ranged(path: str, hint: type[float], bounds: Range, value: object) -> float:
    number = _typed(path, hint, value)
    if isinstance(number, float) and not math.isfinite(number):
        raise Refusal(f"{path}: {shown(number)} is not finite; {bounds} expected")
    if not bounds.holds(number):
        raise Refusal(f"{path}: {shown(number)} is out of range; {bounds} expected")
    return _sane(path, number, bounds)


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
    """Return the value if it suits any field: a number of usual size, or text without NUL.

    A refusal names the bounds of the field, or the usual bounds if the field has none.
    """
    if isinstance(value, str) and "\0" in value:
        raise Refusal(f"{path}: {shown(value)} holds a NUL; text without one expected")
    bounds = {int: WHOLE, float: FINITE}.get(type(value))
    if bounds and isinstance(value, int | float) and not bounds.holds(value):
        wanted = own._replace(high=min(own.high, bounds.high)) if own else bounds
        raise Refusal(f"{path}: {shown(value)} is out of range; {wanted} expected")
    if isinstance(value, float) and 0 < abs(value) < TINY:
        zero = "0, or " if own is None or own.holds(0) else ""
        raise Refusal(
            f"{path}: {shown(value)} is out of range; {zero}a size of at least {TINY:g} expected"
        )
    return value
