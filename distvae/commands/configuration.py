"""The configuration that a command line describes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from distvae.config.recipes import load, parse_assignments, with_options
from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from distvae.config import Config, DataConfig


def configure(
    recipe: str, assignments: list[str], data: str | None = None, seed: int | None = None
) -> "Config":
    """Return the configuration of a recipe with the settings of a command line."""
    options = {"--data": ("data.path", data), "--seed": ("train.seed", seed)}
    return load(recipe, with_options(parse_assignments(assignments), options))


def configure_for(
    recipe: str, assignments: list[str], data: str | None, seed: int | None
) -> "Config":
    """Return the configuration for training. If a setting of the data is refused, and the recipe
    reads another kind of data, the refusal ends with a command that reads them.
    """
    is_named = "data.kind" in parse_assignments(assignments)
    with naming_a_command(lambda: load(recipe).data, None if is_named else data, "data."):
        return configure(recipe, assignments, data, seed)


@contextmanager
def naming_a_command(
    read: Callable[[], "DataConfig"], data: str | None, about: str = ""
) -> Iterator[None]:
    """End a refusal that begins with `about` with a command for the data at a path, if these
    settings read another kind.
    """
    try:
        yield
    except Refusal as refusal:
        if not data or not str(refusal).startswith(about):
            raise
        command = ""
        with suppress(Refusal):
            command = _command_for(data, read())
        if not command:
            raise
        raise Refusal(f"{refusal}; for what is in {data}: {command}") from refusal


def _command_for(data: str, read: "DataConfig") -> str:
    """Return a command that trains on data on this machine, or "" if these settings read them."""
    from distvae.data.check import survey_of_another_kind
    from distvae.data.family import next_command
    from distvae.data.remote import is_remote

    found = None if is_remote(data) else survey_of_another_kind(data, read)
    return next_command(found) if found else ""
