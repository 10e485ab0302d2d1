"""Families and their implementations: models, E-steps and data, of this package and other packages.

A family has two parts. Its configuration is a frozen dataclass, decorated with `family` and
identified by its `kind`. Its implementation is a class, registered for that dataclass in the
`Registry` of the section. Other packages list the modules that define both as entry points. They
are imported when a configuration names a kind that is not built in.
"""

from collections.abc import Callable
from dataclasses import Field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Protocol, TypeVar, cast

from distvae.files.refusal import Refusal

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
    """Import the modules that other packages list as entry points for a section."""
    if section in ENTRY_POINTS:
        for point in entry_points(group=ENTRY_POINTS[section]):
            _load(point)


def _load(point: EntryPoint) -> None:
    """Import the module of an entry point. Refuse an entry point that cannot be imported by its
    name.
    """
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
