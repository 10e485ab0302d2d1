"""Commands and files that repeat a sweep or a run, from what its folder records."""

import json
import shlex
from collections.abc import Iterable, Mapping

from distvae.config import flatten
from distvae.config.recipes import load, recipe_names
from distvae.files.plain import Plain, Tree
from distvae.files.refusal import Refusal
from distvae.report.reading import RunResults
from distvae.tune.axis_facts import as_written

MACHINE_SETTINGS = ("train.threads", "train.products", "eval.processes")
"""Settings chosen for the machine; they do not belong to the experiment."""
RESTORATION = "restoration"
"""The recipe name that the run of a restoration records."""


def command(run: RunResults) -> str:
    """Return the command that trains a run again."""
    recipe = str(run.info["recipe"])
    if recipe in recipe_names():
        changed = changed_settings(flatten(run.config), recipe)
        return shlex.join(["distvae", "train", recipe, *_assignments(changed)])
    config = shlex.quote(str(run.folder / "config.yaml"))
    if recipe == RESTORATION:
        return f"distvae denoise IN OUT --recipe {config}"
    return f"distvae train {config}"


def changed_settings(settings: Mapping[str, Plain], recipe: str) -> dict[str, Plain]:
    """Return the settings that a recipe lacks or sets to another value."""
    original = flatten(load(recipe))
    changed = {}
    for key, value in settings.items():
        if key not in MACHINE_SETTINGS and original.get(key, ...) != value:
            changed[key] = value
    return changed


def _assignments(settings: Mapping[str, Plain]) -> Iterable[str]:
    """Yield settings as the command line takes them, with values in YAML."""
    for key, value in settings.items():
        unquoted = isinstance(value, str) and _is_yaml_of_itself(value)
        yield f"{key}={value if unquoted else json.dumps(value)}"


def _is_yaml_of_itself(text: str) -> bool:
    """Return whether a text without quotes is read from YAML as it stands."""
    import yaml

    try:
        return bool(yaml.safe_load(text) == text)
    except yaml.YAMLError:
        return False


def space(facts: Tree) -> str:
    """Return the YAML of a space that explores the same; '' if the recipe is not known here."""
    import yaml

    varied = {axis["key"] for axis in facts["axes"]}
    try:
        changed = changed_settings(facts["config"], facts["recipe"])
    except Refusal:
        return ""
    fixed = {key: value for key, value in changed.items() if key not in varied}
    about = {"about": facts["about"]} if facts.get("about") else {}
    tree = {**about, "base": facts["recipe"], "fixed": fixed, "metrics": facts["metrics"]}
    for name in ("trials", "concurrent", "seed", "seeds", "search", "scheduler"):
        tree[name] = facts[name]
    if "judge" in facts:
        tree["judge"] = facts["judge"]
    tree["axes"] = [as_written(axis) for axis in facts["axes"]]
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
