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
    """Return the same for training; a refusal of settings of the data says what would read it."""
    is_named = "data.kind" in parse_assignments(assignments)
    with hinting_at_kind(lambda: load(recipe).data, None if is_named else data, "data."):
        return configure(recipe, assignments, data, seed)


@contextmanager
def hinting_at_kind(
    read: Callable[[], "DataConfig"], data: str | None, about: str = ""
) -> Iterator[None]:
    """Add to a refusal that begins so how to train on data of another kind than the one read."""
    try:
        yield
    except Refusal as refusal:
        hint = ""
        if data is not None and str(refusal).startswith(about):
            with suppress(Refusal):
                hint = _way_to_train(read(), data)
        if not hint:
            raise
        raise Refusal(f"{refusal}{hint}") from refusal


def _way_to_train(read: "DataConfig", data: str) -> str:
    """Return the command for data on this machine, or "" if they are of the kind that is read."""
    from distvae.data.family import family_of_kind
    from distvae.data.remote import is_remote
    from distvae.data.survey import kind_at, survey

    if is_remote(data) or kind_at(data, read) == read.kind:
        return ""
    found = survey(data)
    return f"; for what is in {data}: {family_of_kind(found.kind).next_command(found)}"
