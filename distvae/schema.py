"""Reading untrusted values into frozen dataclasses: types, ranges, and the nearest right name for a wrong one."""

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, NamedTuple

from distvae.refusal import Refusal, nearest


class Range(NamedTuple):
    """The closed interval a number must lie in; `above` excludes the lower end."""

    low: float
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is inside; NaN never is."""
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        least = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return least if self.high == math.inf else f"{least} and at most {self.high:g}"


SECTIONS = ("data", "model", "estep", "train", "eval")
FAMILIES: dict[str, dict[str, type]] = {section: {} for section in SECTIONS}


def family(section: str) -> Callable[[type], type]:
    """Register a dataclass as one family of a section, under its `kind`."""

    def register(cls: type) -> type:
        FAMILIES[section][cls.kind] = cls  # type: ignore[attr-defined]
        return cls

    return register


def load_extensions() -> None:
    """Import the modules that other packages name as entry points, so that they can register their families."""
    for point in entry_points(group="distvae.models"):
        point.load()


def kind_of(section: str, tree: Mapping[str, Any]) -> str:
    """The family a section names, or the default one."""
    default = {"data": "speech", "model": "vae", "estep": "amortised", "train": "adam", "eval": "standard"}
    kind = tree.get("kind", default[section])
    if not isinstance(kind, str):
        raise Refusal(f"{section}.kind: {kind!r}; one of {', '.join(FAMILIES[section])} expected")
    if kind not in FAMILIES[section]:
        load_extensions()
    if kind not in FAMILIES[section]:
        raise Refusal(f"{section}.kind: no family '{kind}'; {nearest(str(kind), FAMILIES[section])}")
    return kind


def read_section(name: str, tree: object) -> Any:
    """The validated dataclass of one section."""
    if not isinstance(tree, Mapping):
        raise Refusal(f"{name}: {tree!r} is not a mapping of fields")
    cls = FAMILIES[name][kind_of(name, tree)]
    hints = field_types(cls)
    given = {key: value for key, value in tree.items() if key != "kind"}
    for key in given:
        if key not in hints:
            raise Refusal(f"{name}.{key}: no such field of {name}.kind '{cls.kind}'; {nearest(str(key), hints)}")  # type: ignore[attr-defined]
    return cls(**{key: check(f"{name}.{key}", hints[key], value) for key, value in given.items()})


def field_types(cls: type) -> dict[str, Any]:
    """The fields of a family and their annotations, ranges included."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def check(path: str, hint: Any, value: Any) -> Any:
    """The value as the annotation wants it, or a refusal that names its path."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _ranged(path, arguments[0], arguments[1], value)
    if origin is Literal:
        return _one_of(path, arguments, value)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else check(path, arguments[0], value)
    if origin is tuple:
        return tuple(_items(path, arguments, value))
    return _scalar(path, hint, value)


def _ranged(path: str, hint: Any, bounds: Range, value: Any) -> Any:
    number = _scalar(path, hint, value)
    if not bounds.holds(number):
        raise Refusal(f"{path}: {number} is out of range; {bounds} expected")
    return number


def _one_of(path: str, choices: tuple[str, ...], value: Any) -> str:
    if value not in choices:
        raise Refusal(f"{path}: no choice '{value}'; {nearest(str(value), choices)}")
    return str(value)


def _items(path: str, arguments: tuple[Any, ...], value: Any) -> Iterator[Any]:
    if not isinstance(value, list | tuple):
        raise Refusal(f"{path}: {value!r} is not a list")
    if arguments[-1] is not Ellipsis and len(value) != len(arguments):
        raise Refusal(f"{path}: {len(value)} values; {len(arguments)} expected")
    for i, item in enumerate(value):
        yield check(f"{path}[{i}]", arguments[0], item)


def _scalar(path: str, hint: type, value: Any) -> Any:
    names = {int: "a whole number", float: "a number", str: "text"}
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML reads 1e-4 as text
    if type(value) is not hint:
        raise Refusal(f"{path}: {value!r} is not {names[hint]}")
    return value
