"""Recipes: one YAML file per published experiment, without settings at their defaults."""

import re
from collections.abc import Mapping
from pathlib import Path

from distvae.config import Config, Generated, Train, from_dict
from distvae.config.schema import SECTIONS, field_types, fields_of, find_family
from distvae.files.refusal import Refusal, nearest, shown
from distvae.files.untrusted import Plain, Tree, one_line, parse_yaml, read_yaml

RECIPES = Path(__file__).parent
STORED = "config.yaml"
"""The file of a run folder with the settings."""
NAMES = {
    "model.kind": "model",
    "model.latent": "latents",
    "model.hidden": "hidden units",
    "model.active": "active values",
    "estep.kind": "search",
    "estep.rate": "mutation rate",
    "data.kind": "data",
    "train.rate": "learning rate",
    "train.batch": "batch size",
}
"""The names of settings for people, where the last word of the key does not say enough."""


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_name(recipe: str) -> str:
    """Return the name of a recipe, or of a recipe file without its folders."""
    return Path(recipe).stem if recipe.endswith((".yaml", ".yml")) else recipe


def recipe_path(name: str) -> Path:
    """Return the file of a recipe, given by its name, its file, or a run folder."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    if name in recipe_names():
        return RECIPES / f"{name}.yaml"
    if (stored := Path(name, STORED)).is_file():
        return stored
    raise Refusal(f"{name}: no such recipe; {nearest(name, recipe_names())}")


def read_tree(path: Path, expected: str = f"sections {', '.join(SECTIONS)}") -> Tree:
    """Return the nested mapping in a YAML file. A refusal quotes `expected`."""
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise Refusal(f"{path}: holds no mapping; {expected} expected")
    return tree


def load(recipe: str, assignments: Mapping[str, object] | None = None) -> Config:
    """Return the configuration of a recipe or of a YAML file, with dotted keys set."""
    path, changes = recipe_path(recipe), assignments or {}
    tree = {key: value for key, value in read_tree(path).items() if key != "about"}
    try:
        config = from_dict(override(tree, changes))
    except Refusal as refusal:
        raise _placed(refusal, path, tree) from refusal
    refuse_place(config, changes.get("data.path"))
    return config


def _placed(refusal: Refusal, path: Path, tree: Mapping[str, object]) -> Refusal:
    """Return the refusal with the file's path if the file itself is wrong, not the assignments on
    top of it.
    """
    try:
        from_dict(tree)
    except Refusal as alone:
        return Refusal(f"{path}: {refusal}") if str(alone) == str(refusal) else refusal
    return refusal


def refuse_place(config: Config, path: object) -> None:
    """Refuse a path for generated data."""
    if path and isinstance(config.data, Generated):
        raise Refusal(
            f"data.path: {path}, but data of kind '{config.data.kind}' is made, not read; none"
            " expected"
        )


def override(tree: Mapping[str, object], assignments: Mapping[str, object]) -> Tree:
    """Return a copy of a nested mapping with dotted keys set.

    A new `kind` drops fields that the kind does not have. Scaled rates are meant for the batch of
    the mapping, unless `train.base_batch` is set.
    """
    assignments = _base_batch(tree, assignments) | dict(assignments)
    result = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()
    }
    for path, value in sorted(assignments.items(), key=lambda item: not item[0].endswith(".kind")):
        section, _, name = path.partition(".")
        if name:
            result[section] = _assign(section, fields_of(section, result.get(section)), name, value)
        else:
            result[section] = value
    return result


def _base_batch(tree: Mapping[str, object], assignments: Mapping[str, object]) -> dict[str, object]:
    """Return the base batch of scaled rates, if none is set."""
    if assignments.get("train.scale_rate", "none") == "none":
        return {}
    train = fields_of("train", tree.get("train"))
    if train.get("base_batch") is not None:
        return {}
    return {"train.base_batch": train.get("batch", Train.batch)}


def _assign(section: str, tree: dict[str, object], name: str, value: object) -> dict[str, object]:
    if name == "kind" and section in SECTIONS and isinstance(value, str):
        config = find_family(section, value)
        if config is not None:
            fields = field_types(config)
            tree = {key: old for key, old in tree.items() if key in fields}
    return tree | {name: value}


def setting_name(key: str) -> str:
    """Return the name of a dotted key for people."""
    return NAMES.get(key, (key.partition(".")[2] or key).replace("_", " "))


def describe(values: Mapping[str, object]) -> str:
    """Return the values of dotted keys as text, as in `vsc, 32 latents, alpha 0.462`."""
    return ", ".join(_described(setting_name(key), value) for key, value in values.items())


def _described(name: str, value: object) -> str:
    """Return a value with its name: a text alone, a count before the name of what it counts."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        value = f"{value:.3g}"
    if not name.endswith("s"):
        return f"{name} {value}"
    return f"{value} {name.removesuffix('s') if str(value) == '1' else name}"


def parse_assignments(words: list[str]) -> Tree:
    """Return the dotted keys and values of words like `train.epochs=3`. Values are YAML."""
    return dict(_assignment(word) for word in words)


def with_options(assigned: Tree, options: Mapping[str, tuple[str, Plain]]) -> Tree:
    """Return the assigned settings together with the settings of options. `options` maps each
    option to its key and value; the value is None if the option was not given. Refuse an option
    whose key was assigned another value.
    """
    settings = dict(assigned)
    for option, (key, value) in options.items():
        if value is None:
            continue
        if settings.setdefault(key, value) != value:
            raise Refusal(
                f"{option}: {value}, and {key}={assigned[key]}; one of them expected, not both"
            )
    return settings


def _assignment(word: str) -> tuple[str, object]:
    path, equals, text = word.partition("=")
    if not equals or text.startswith("=") or not re.fullmatch(r"\w+(\.\w+)*", path):
        raise Refusal(
            f"{one_line(word)}: not an assignment; KEY=VALUE expected, such as train.epochs=3"
        )
    return path, parse_yaml(text, f"{path}={one_line(text)}")


def named_settings(settings: object) -> dict[str, object]:
    """Return settings by dotted key, with Python numbers. None stands for no settings."""
    if settings is None:
        return {}
    if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
        raise Refusal(
            f"settings: {shown(settings)} is no mapping of dotted keys; such as"
            ' {"train.clip": 1.0} expected'
        )
    found: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):  # a whole section
            found |= {f"{key}.{name}": python_value(each) for name, each in value.items()}
        else:
            found[key] = python_value(value)
    return found


def python_value(value: object) -> object:
    """Return a value with NumPy numbers converted to Python numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [python_value(item) for item in value] if isinstance(value, list | tuple) else value
