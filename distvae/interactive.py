"""Train and tune from Python, with results that a notebook displays.

`distvae.train` trains and evaluates as the command does, and `distvae.tune` runs a sweep.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

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
from distvae.config.schema import Trials, whole_number
from distvae.data import folders
from distvae.data.family import survey_of_another_kind
from distvae.data.folders import is_remote
from distvae.data.ingest import Division, ingest
from distvae.files.paths import check_writable_folder, given_path
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import Plain
from distvae.numerics.arrays import plain_array
from distvae.numerics.metrics import SPREAD, with_spread, without_spreads
from distvae.report import write_and_log
from distvae.report.page import picture, sound
from distvae.train.run import Run
from distvae.tune.results import Findings, Result, html_table, ranking_table
from distvae.tune.space import read_space, sweep_name
from distvae.tune.sweep import SweepOptions, run_sweep
from distvae.tune.validation import load_space, validate_space

Data = str | Path | ArrayLike | Tensor
"""The path of data, or an array of rows."""
Recipe = str | Path | Mapping[str, object] | Config
"""The name or file of a recipe, the folder of a run, a mapping of sections, or a configuration."""
DIVISION = Division(val=0.1, test=0.1)
"""The shares of an array's rows for validation and test."""
LEAST_ROWS = 3
"""The fewest rows of an array: one row for each split."""


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
        figures = self.figures
        spreads = {name: figures.get(name + SPREAD) for name in without_spreads(figures)}
        table = rows_table((name, with_spread(figures[name], s)) for name, s in spreads.items())
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
        train_configured(chosen, name, folder, options, None)
    except SystemExit as early:
        raise RuntimeError(
            f"{folder}: training ended before its last epoch; the line above says why"
        ) from early
    text = (evaluation_folder(folder) / "summary.json").read_text()
    figures = {name: value for name, value in json.loads(text).items() if value is not None}
    return Training(Run.open(folder), figures)


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


@dataclass(frozen=True)
class Sweep:
    """The results of a sweep. A notebook displays a table and the Pareto front if it exists."""

    findings: Findings

    @property
    def folder(self) -> Path:
        """The folder of the sweep, which contains `report.html`."""
        return self.findings.folder

    @property
    def trials(self) -> list[Result]:
        """The finished trials, sorted by the first metric, best first."""
        return [result for result in self.findings.results if result.state == "finished"]

    @property
    def front(self) -> list[Result]:
        """The trials on the Pareto front of all metrics."""
        return [result for result in self.trials if result.unbeaten]

    def run(self, trial: Result) -> Run:
        """Open the run of a trial; with several seeds, the run of the first seed."""
        folder = self.folder / "trials" / str(trial.number)
        runs = [file.parent for file in folder.rglob("run.json")]
        if not runs:
            raise Refusal(f"{folder}: holds no run; a trial that was trained expected")
        return Run.open(min(runs, key=lambda run: (len(run.name), run.name)))

    def _repr_html_(self) -> str:
        if self.trials:
            table = html_table(ranking_table(self.findings))
        else:
            ends = [(each.number, each.state, each.cause) for each in self.findings.results]
            table = rows_table([("trial", "state", "cause"), *ends])
        front = self.folder / "tradeoff.png"
        shown = f'<img src="{picture(front)}" alt="the front">' if front.is_file() else ""
        return f"<p>{escape(str(self.folder / 'report.html'))}</p>{table}{shown}"


def tune(
    space: str | Path | Mapping[str, Plain],
    data: Data | None = None,
    *,
    trials: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
) -> Sweep:
    """Sweep a space on this machine. The space is a name, a file or a mapping.

    Ray trains several trials in parallel.
    """
    if trials is not None:
        trials = whole_number("trials", Trials, trials)
    if isinstance(space, Mapping):
        explored = read_space("sweep", space)
        validate_space(explored)
    else:
        explored = load_space(str(space))
    folder = RUNS / sweep_name(explored.name) if out is None else given_path(out, "out")
    options = SweepOptions(
        assignments=data_settings(explored.base, data),
        trials=trials,
        resume=resume,
        force=force,
    )
    findings = run_sweep(explored, folder, options)
    if findings.interrupted:
        raise KeyboardInterrupt(f"{folder}: stopped; resume=True continues")
    write_and_log(folder, RUNS, quiet=True)
    return Sweep(findings)


def data_settings(config: Config, data: Data | None) -> dict[str, Plain]:
    """Return the changes of a configuration for the caller's data, by dotted key."""
    if data is None:
        return {}
    if not isinstance(data, str | Path):
        return {"data.kind": "rows", "data.path": str(kept_rows(data))}
    changes: dict[str, Plain] = {"data.path": str(data)}
    if is_remote(str(data)):
        return changes
    found = survey_of_another_kind(str(data), config.data)
    return changes | {"data.kind": found.kind} if found else changes


def kept_rows(data: ArrayLike | Tensor) -> Path:
    """Store rows in the cache, under a digest of their content, and return the folder."""
    try:
        array = np.asarray(plain_array(data))
    except ValueError as error:
        raise Refusal("data: rows of different lengths; (rows, values) expected") from error
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiub":
        raise Refusal(
            f"data: {array.dtype} of shape {array.shape}; (rows, values) of real numbers expected"
        )
    if len(array) < LEAST_ROWS:
        raise Refusal(
            f"data: {len(array)} rows; {LEAST_ROWS} or more expected, to train, validate and test"
        )
    with np.errstate(over="ignore"):  # infinite results are refused
        rows = np.ascontiguousarray(array, np.float32)
    if np.isinf(rows).any():
        raise Refusal("data: holds an infinite value, or one beyond float32; finite ones expected")
    digest = hashlib.sha256(repr((DIVISION, rows.shape)).encode() + rows.tobytes()).hexdigest()
    folder = folders.cache_folder() / "arrays" / digest

    def write_rows(part: Path) -> None:
        source = part / "array.npy"
        np.save(source, rows)
        ingest([source], part / "array", DIVISION, quiet=True)
        source.unlink()

    folders.build_once(folder, write_rows)
    return folder / "array"


def rows_table(rows: Iterable[Sequence[object]]) -> str:
    """Return rows of cells as a table."""
    lines = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def exhibits(folder: Path) -> str:
    """Return the pictures and sounds in a folder. Only the first picture is unfolded."""
    shown = []
    for number, file in enumerate(sorted(folder.glob("*.png"))):
        name, state = escape(file.stem), "" if number else " open"
        shown.append(
            f"<details{state}><summary>{name}</summary>"
            f'<img src="{picture(file)}" alt="{name}"></details>'
        )
    for file in sorted(folder.glob("*.wav")):
        shown.append(f'<p>{escape(file.stem)} <audio controls src="{sound(file)}"></audio></p>')
    return "".join(shown)
