"""What a picture of a run is titled by: the recipe, or the model itself where it is not the
recipe's.
"""

import dataclasses
from pathlib import Path
from typing import Any

from distvae.config.recipes import describe, load, recipe_names
from distvae.train.run import Run


def run_title(run: Run) -> str:
    """Return the recipe's name, or what was trained in its place: `vsc latent 16 alpha 0.412, from
    speech-vae`.
    """
    if not run.recipe:
        return run.path.name
    name = Path(run.recipe).stem
    if run.recipe not in recipe_names():
        model = run.config.model
        described = describe({"model.kind": model.kind, "model.latent": model.latent})
        return f"{described}, from {name}"
    varied = _varied(run.config.model, load(run.recipe).model)
    return (
        f"{describe({'model.kind': run.config.model.kind} | varied)}, from {name}"
        if varied
        else name
    )


def _varied(model: Any, recipe: Any) -> dict[str, Any]:
    """Return the settings of a model that neither a recipe's has nor, of another kind, its own
    defaults.
    """
    usual = {
        field.name: getattr(recipe, field.name, field.default)
        for field in dataclasses.fields(model)
    }
    changed = {
        f"model.{name}": getattr(model, name)
        for name, value in usual.items()
        if getattr(model, name) != value
    }
    return changed if changed or model.kind == recipe.kind else {"model.kind": model.kind}
