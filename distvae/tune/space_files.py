"""Search spaces in YAML files: finding them by name, reading them, checking them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from distvae.config import Config
from distvae.config.recipes import load, read_tree
from distvae.config.schema import check_value
from distvae.config.values import Count, Repeats, Trials, Whole
from distvae.files.checkout import SPACES
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal, nearest, shown
from distvae.tune.axes import read_axes
from distvae.tune.space import Judge, Scheduler, Search, Space
from distvae.tune.validation import count_combinations, validate_space

FOLDERS = (Path("tune_spaces"), SPACES)
"""The folders that spaces are found in by name: below the working folder, and with the package."""
FIELDS = (
    *("about", "base", "fixed", "metrics", "trials", "concurrent"),
    *("seed", "seeds", "search", "scheduler", "judge", "axes"),
)
EXPECTED = f"fields {', '.join(FIELDS)}"
FIELDS_OF_JUDGE = ("metric", "interval", "sample")


def space_names() -> dict[str, str]:
    """Return the names of the spaces found, each with its description."""
    paths: dict[str, Path] = {}
    for folder in reversed(FOLDERS):
        paths |= {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {
        name: str(read_tree(path, EXPECTED).get("about", ""))
        for name, path in sorted(paths.items())
    }


def space_path(name: str) -> Path:
    """Return the file of a space, given its name or the file itself."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    for folder in FOLDERS:
        if (path := folder / f"{name}.yaml").is_file():
            return path
    raise Refusal(f"{name}: no such space in tune_spaces; {nearest(name, space_names())}")


def load_space(name: str) -> Space:
    """Read and validate the space of a name or a file."""
    path = space_path(name)
    try:
        space = read_space(path.stem, read_tree(path, EXPECTED))
        validate_space(space)
    except Refusal as error:
        message = str(error)
        if not message.startswith(str(path)):
            message = f"{path}: {message}"
        raise Refusal(message) from error
    return space


def read_space(name: str, tree: Mapping[str, Plain]) -> Space:
    """Return the space of a mapping with well-formed fields; `validate_space` checks the rest."""
    for key in tree:
        if key not in FIELDS:
            raise Refusal(f"{key}: no such field of a space; {nearest(key, FIELDS)}")
    recipe = check_value("base", str, tree.get("base", ""))
    search = check_value("search", Search, tree.get("search", "tpe"))
    space = Space(
        name=name,
        about=check_value("about", str, tree.get("about", "")),
        recipe=recipe,
        base=_read_base(tree, recipe),
        metrics=_read_metrics(tree.get("metrics")),
        trials=check_value("trials", Trials, tree.get("trials", 20)),
        concurrent=check_value("concurrent", Count | None, tree.get("concurrent")),
        seed=check_value("seed", Whole, tree.get("seed", 0)),
        search=search,
        seeds=check_value("seeds", Repeats, tree.get("seeds", 1)),
        scheduler=check_value("scheduler", Scheduler, tree.get("scheduler", "none")),
        axes=read_axes(tree.get("axes")),
        judge=_read_judge(tree.get("judge"), tree.get("metrics")),
    )
    if search == "grid":
        count = count_combinations(
            space.combinations(), "search: a grid of more than {} trials; fewer values expected"
        )
        return space if "trials" in tree else replace(space, trials=count, whole_grid=True)
    return space


def _read_base(tree: Mapping[str, Plain], recipe: str) -> Config:
    fixed = tree.get("fixed") or {}
    if not isinstance(fixed, Mapping):
        raise Refusal(
            f"fixed: {shown(fixed)}; dotted keys and values expected, such as train.epochs: 10"
        )
    if "base" not in tree:
        raise Refusal("base: missing; a recipe, or the file of one, expected")
    varied = {axis.key for axis in read_axes(tree.get("axes"))}
    for key in fixed:
        if key in varied:
            raise Refusal(f"fixed.{key}: is also an axis; one of the two expected")
    try:
        return load(recipe, {str(key): value for key, value in fixed.items()})
    except Refusal as error:
        raise Refusal(f"base and fixed: {error}") from error


def _read_judge(tree: object, metrics: object) -> Judge | None:
    """Return what the scheduler compares; its metric is the first of the space unless named."""
    if tree is None:
        return None
    if not isinstance(tree, Mapping) or "interval" not in tree:
        raise Refusal(
            f"judge: {shown(tree)}; an interval in epochs expected, and a metric if not the first"
            " of the space, such as {interval: 5, metric: hoyer}"
        )
    for key in tree:
        if key not in FIELDS_OF_JUDGE:
            raise Refusal(f"judge.{key}: no such field; {nearest(key, FIELDS_OF_JUDGE)}")
    known = [*_read_metrics(metrics)]
    metric = check_value("judge.metric", str, tree.get("metric", known[0]))
    if metric not in known:
        raise Refusal(f"judge.metric: {metric} is not among the metrics; {nearest(metric, known)}")
    interval = check_value("judge.interval", Count, tree["interval"])
    return Judge(metric, interval, check_value("judge.sample", Count, tree.get("sample", 1000)))


def _read_metrics(tree: object) -> dict[str, Literal["max", "min"]]:
    if not isinstance(tree, Mapping) or not tree:
        raise Refusal(
            "metrics: at least one figure and its direction expected, such as pesq_wb: max"
        )
    for name, direction in tree.items():
        check_value(f"metrics.{name}", Literal["max", "min"], direction)
    return {str(name): direction for name, direction in tree.items()}
