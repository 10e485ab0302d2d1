"""The explanations of settings, from the docstrings below the fields of their classes."""

import ast
import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Literal, NamedTuple

from distvae.config.registry import FAMILIES, load_extensions
from distvae.config.schema import DEFAULT_KINDS, field_types

KINDS = {
    "data": "What is read, or generated: recordings (`speech`), images (`idx`, `images`), windows"
    " of one picture or sound (`patches`) or of many pictures (`crops`), tables (`rows`), or"
    " generated images.",
    "model": "A VAE; with a dictionary (`sdm`), spike and slab (`vsc`) or discrete latents"
    " (`gumbel`); or a `tvae`, with binary latents and no encoder.",
    "estep": "How posteriors are found: by an encoder (`amortised`), or for a `tvae` by a search or"
    " exactly. The default of a `tvae` is `evolution`.",
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
        if dataclasses.is_dataclass(each):
            found |= _texts(inspect.getsource(each))
    return found


def _texts(source: str) -> dict[str, str]:
    (definition,) = ast.parse(inspect.cleandoc(source)).body
    assert isinstance(definition, ast.ClassDef)
    found, before = {}, ""
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            before = node.target.id
        elif (
            before
            and isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            found[before], before = " ".join(node.value.value.split()), ""
        else:
            before = ""
    return found


NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


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
