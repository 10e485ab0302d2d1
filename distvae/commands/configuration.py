"""The configuration that a command line describes."""

from typing import TYPE_CHECKING

from distvae.config.recipes import load, parse_assignments

if TYPE_CHECKING:
    from distvae.config import Config


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
