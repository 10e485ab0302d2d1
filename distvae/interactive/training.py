"""`distvae.train`: train and evaluate from Python, as the command does."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from distvae.cli.options import RUNS
from distvae.cli.train import (
    TrainOptions,
    default_folder,
    evaluation_folder,
    run_name,
    train_configured,
)
from distvae.config import Config, from_dict, to_dict
from distvae.config.recipes import load, named_settings, override
from distvae.files.paths import check_writable_folder, given_path
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import Plain
from distvae.interactive.given import Data, data_settings
from distvae.interactive.pages import exhibits, figures_table
from distvae.tasks.drawing import drawing_process
from distvae.train.run import Run

Recipe = str | Path | Mapping[str, object] | Config
"""The name or file of a recipe, the folder of a run, a mapping of sections, or a configuration."""


@dataclass(frozen=True, repr=False)
class Training:
    """A trained and evaluated run. A notebook displays its metrics, pictures and sounds."""

    run: Run
    figures: Mapping[str, float]
    """The metrics of the evaluation on test data."""

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.run.path

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        return f"<Training {self.folder}: {figures}>"

    def _repr_html_(self) -> str:
        table = figures_table(self.figures)
        shown = exhibits(evaluation_folder(self.folder))
        return f"<p>{escape(str(self.folder))}</p>{table}{shown}"


def train(
    config: Recipe,
    data: Data | None = None,
    *,
    settings: Mapping[str, Plain] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
) -> Training:
    """Train and evaluate a model. The run folder is `out`, by default runs/RECIPE.

    `data` is a path, whose kind is detected, or an array of rows. `settings` maps dotted keys to
    values. If `config` is the folder of a run, its configuration is used; with `resume`, that run
    continues. The run is recorded as by `distvae train`.
    """
    name, chosen = configured(config, data, named_settings(settings))
    if out is not None:
        folder = given_path(out, "out")
    elif isinstance(config, str | Path):
        folder = default_folder(str(config), name, resume)
    else:
        folder = RUNS / name
    check_writable_folder(folder)
    options = TrainOptions(out=folder, resume=resume, force=force)
    try:
        with drawing_process(wanted=True) as drawing:
            train_configured(chosen, name, folder, options, None, drawing)
    except SystemExit as early:
        raise RuntimeError(
            f"{folder}: training ended before its last epoch; the line above says why"
        ) from early
    return Training(Run.open(folder), evaluated(folder))


def configured(
    config: Recipe, data: Data | None, settings: Mapping[str, object]
) -> tuple[str, Config]:
    """Return the name of a recipe, and its configuration with the given data and settings."""
    if isinstance(config, str | Path):
        base = load(str(config))
        return run_name(str(config)), load(str(config), data_settings(base, data) | {**settings})
    if not isinstance(config, Config | Mapping):
        raise Refusal(
            f"config: {shown(config)}; the name of a recipe, a file, its sections or a Config"
            " expected"
        )
    tree = to_dict(config) if isinstance(config, Config) else config
    base = from_dict(tree)
    changes = data_settings(base, data) | {**settings}
    return base.model.kind, from_dict(override(tree, changes))


def evaluated(folder: Path) -> dict[str, float]:
    """Return the metrics of a run's evaluation on test data."""
    text = (evaluation_folder(folder) / "summary.json").read_text()
    return {name: value for name, value in json.loads(text).items() if value is not None}
