"""Titles for pictures of a run: the recipe, or the model where it differs from the recipe's."""

import dataclasses
from pathlib import Path

from distvae.config import Config
from distvae.config.recipes import describe, load, recipe_names
from distvae.files.plain import Plain
from distvae.train.run import Run


def run_title(run: Run) -> str:
    """Return the recipe's name, or how the run differs from it.

    For instance: `vsc latent 16 alpha 0.412, from speech-vae`.
    """
    if not run.recipe:
        return run.path.name
    name = Path(run.recipe).stem
    if run.recipe not in recipe_names():
        model = run.config.model
        described = describe({"model.kind": model.kind, "model.latent": model.latent})
        return f"{described}, from {name}"
    changed = _changed_settings(run.config, load(run.recipe))
    if not changed:
        return name
    return f"{describe({'model.kind': run.config.model.kind, **changed})}, from {name}"


def _changed_settings(config: Config, recipe: Config) -> dict[str, Plain]:
    """Return the settings of the model that differ from the recipe's.

    Settings that the recipe's model does not have are compared with their defaults.
    """
    model, usual = config.model, recipe.model
    changed: dict[str, Plain] = {}
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if value != getattr(usual, field.name, field.default):
            changed[f"model.{field.name}"] = value
    if not changed and model.kind != usual.kind:
        return {"model.kind": model.kind}
    return changed
