"""The configuration that a command line describes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from distvae.config.recipes import load, parse_assignments
from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from distvae.config import Config, DataConfig


def configure(
    recipe: str, assignments: list[str], data: str | None = None, seed: int | None = None
) -> "Config":
    """Return the configuration of a recipe with the settings of a command line."""
    overrides = parse_assignments(assignments)
    if data is not None:
        overrides["data.path"] = data
    if seed is not None:
        overrides["train.seed"] = seed
    return load(recipe, overrides)


def configure_for(
    recipe: str, assignments: list[str], data: str | None, seed: int | None
) -> "Config":
    """Return the same for training, with a hint at the kind of the data in what is refused."""
    is_named = "data.kind" in parse_assignments(assignments)
    with hinting_at_kind(lambda: load(recipe).data, None if is_named else data):
        return configure(recipe, assignments, data, seed)


@contextmanager
def hinting_at_kind(read: Callable[[], "DataConfig"], data: str | None) -> Iterator[None]:
    """Name the kind of the data at a path in a refusal, if another kind is read."""
    from distvae.data.survey import kind_at

    try:
        yield
    except Refusal as refusal:
        hint = ""
        if data is not None and "data.kind=" not in str(refusal):
            with suppress(Refusal):
                kind, expected = kind_at(data, read()), read().kind
                hint = "" if kind == expected else f"; data.kind={kind} reads what is in {data}"
        raise Refusal(f"{refusal}{hint}") from refusal
