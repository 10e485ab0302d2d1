"""Titles for pictures of a run: its model and its recipe."""

import dataclasses
from pathlib import Path

from distvae.config import Config
from distvae.config.recipes import describe, load, recipe_names
from distvae.files.untrusted import Plain
from distvae.train.run import Run


def run_title(run: Run) -> str:
    """Return the model, its changed settings, and the name of the recipe.

    For instance: `vsc latent 16 alpha 0.412, from speech-vae`.
    """
    if not run.recipe:
        return run.path.name
    model = run.config.model
    described: dict[str, Plain] = {"model.kind": model.kind, "model.latent": model.latent}
    if run.recipe in recipe_names():
        described |= _changed_settings(run.config, load(run.recipe))
    return f"{describe(described)}, from {Path(run.recipe).stem}"


def _changed_settings(config: Config, recipe: Config) -> dict[str, Plain]:
    """Return the settings of the model that differ from the recipe's settings.

    A setting that the recipe leaves out is compared with its default.
    """
    given = {
        field.name: value
        for field in dataclasses.fields(recipe.model)
        if (value := getattr(recipe.model, field.name)) != field.default
    }
    return {
        f"model.{field.name}": value
        for field in dataclasses.fields(config.model)
        if (value := getattr(config.model, field.name)) != given.get(field.name, field.default)
    }
