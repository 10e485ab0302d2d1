"""What to type to try the same again, from what a sweep or a run wrote down of itself."""

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from distvae.config import flatten
from distvae.config.recipes import load, recipe_names
from distvae.files.refusal import Refusal
from distvae.report.reading import Evidence

HERE = ("train.threads", "train.products", "eval.processes")
"""What is set for the machine at hand, not for the result."""
RESTORED = "restoration"
"""What the run of a restoration names as its recipe."""


def command(run: Evidence) -> str:
    """The command that trains a run anew."""
    recipe = str(run.info["recipe"])
    if recipe in recipe_names():
        return shlex.join(
            ["distvae", "train", recipe, *_words(differing(flatten(run.config), recipe))]
        )
    kept = shlex.quote(str(run.folder / "config.yaml"))
    if recipe == RESTORED:
        return f"distvae denoise IN OUT --recipe {kept}"
    return f"distvae train {kept}"


def differing(settings: Mapping[str, Any], recipe: str) -> dict[str, Any]:
    """The settings that a recipe has otherwise, or has not."""
    given = flatten(load(recipe))
    return {
        key: value
        for key, value in settings.items()
        if key not in HERE and given.get(key, ...) != value
    }


def _words(settings: Mapping[str, Any]) -> Iterable[str]:
    """As the command line takes them, values in YAML."""
    import yaml

    for key, value in settings.items():
        plain = isinstance(value, str) and yaml.safe_load(value) == value
        yield f"{key}={value if plain else json.dumps(value)}"


def space(facts: Mapping[str, Any]) -> str:
    """The file of a space that explores the same; empty where the recipe is no longer known."""
    import yaml

    varied = {axis["key"] for axis in facts["axes"]}
    try:
        fixed = {
            k: v for k, v in differing(facts["config"], facts["recipe"]).items() if k not in varied
        }
    except Refusal:
        return ""
    how = {
        name: facts[name]
        for name in ("trials", "concurrent", "seed", "seeds", "search", "scheduler")
    }
    tree = {"base": facts["recipe"], "fixed": fixed, "metrics": facts["metrics"]} | how
    return yaml.safe_dump(tree | {"axes": [_axis(axis) for axis in facts["axes"]]}, sort_keys=False)


def _axis(axis: Mapping[str, Any]) -> dict[str, Any]:
    span = axis["span"]
    if "values" in span:
        told: dict[str, Any] = {"choice": span["values"]}
    else:
        told = {
            "int" if isinstance(span["low"], int) else "float": [span["low"], span["high"]],
            "log": span["log"],
        }
    return {"key": axis["key"]} | told | ({"when": axis["when"]} if axis["when"] else {})
