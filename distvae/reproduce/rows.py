"""The finished rows of a table: one line of JSON each, in `FOLDER/TABLE.jsonl`."""

import json
import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distvae.config import Config, flatten
from distvae.files.paths import atomic_file, make_folder
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import finite, parse_json, read_figures, require_regular_file

Scale = Literal["smoke", "day", "full"]
SCALES: tuple[Scale, ...] = ("smoke", "day", "full")
"""The scales at which a published table is reproduced, smallest first."""
OPTIONAL: Mapping[str, object] = {
    "published": {},
    "published_spread": {},
    **dict.fromkeys(("scale", "note", "section"), ""),
}
"""Defaults of the optional fields of a row."""
KINDS: Mapping[str, type | tuple[type, ...]] = {
    "row": str,
    "commit": (str, type(None)),
    "config": dict,
    "figures": dict,
    "seconds": (int, float, type(None)),
    "epochs": (int, float, type(None)),
    "published": dict,
    "published_spread": dict,
    **dict.fromkeys(("scale", "note", "section"), str),
}
NOTHING: Mapping[str, object] = {}


@dataclass(frozen=True)
class ResultRow:
    """A finished row of a table."""

    name: str
    seed: int | None
    scale: str
    commit: str
    """The first digits of the commit, '-' if the program was installed without its history."""
    seconds: float | None
    epochs: int | None
    figures: Mapping[str, float]
    """The metrics that are numbers."""
    published: Mapping[str, float]
    published_spread: Mapping[str, float]
    """Standard deviation of published metrics over runs, where known."""
    note: str
    section: str
    config: Mapping[str, object]
    content: Mapping[str, object]
    """The whole content of the row."""


@dataclass(frozen=True)
class RowGroup:
    """The seeds of one row, at the largest scale on which it was trained."""

    name: str
    rows: tuple[ResultRow, ...]

    def values(self, figure: str) -> list[float]:
        """Return a metric of each seed that has it."""
        return [row.figures[figure] for row in self.rows if figure in row.figures]

    def published(self, figure: str) -> float | None:
        """Return the published value of a metric."""
        return self.rows[0].published.get(figure)

    def published_spread(self, figure: str) -> float:
        """Return the standard deviation of a published metric, 0 if unknown."""
        return self.rows[0].published_spread.get(figure, 0.0)

    @property
    def scale(self) -> str:
        """The scale of the seeds, '' if the row is not in a reproduced table."""
        return self.rows[0].scale

    @property
    def note(self) -> str:
        """The note of the row, without a full stop."""
        return self.rows[0].note

    @property
    def section(self) -> str:
        """The heading of the table that shows the row, '' for the first table of the page."""
        return self.rows[0].section

    @property
    def commits(self) -> str:
        """The commits that made the seeds."""
        return " ".join(sorted({row.commit for row in self.rows}))


def write_row(folder: Path, content: Mapping[str, object], force: bool) -> None:
    """Write a row. Raise `Refusal` if it exists and `force` is not set."""
    table, name = str(content["table"]), str(content["row"])
    if Path(table).name != table or table in ("", ".."):
        raise Refusal(f"{shown(table)} names no table; the name of a file without folders expected")
    path = folder / f"{table}.jsonl"
    rows = {row.name: row.content for row in read_rows(folder, table)}
    if name in rows and not force:
        raise Refusal(f"{path}: has a row {name}; --force replaces it")
    rows[name] = content
    lines = [json.dumps(finite(rows[key])) for key in sorted(rows)]
    make_folder(folder)
    with atomic_file(path) as partial:
        partial.write_text("\n".join(lines) + "\n")


def read_rows(folder: Path, table: str) -> list[ResultRow]:
    """Return the finished rows of a table, sorted by name; none without a file."""
    path = folder / f"{table}.jsonl"
    if not path.exists():
        return []
    require_regular_file(path, "rows of results")
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    return [read_row(line, f"{path}: line {number}") for number, line in lines]


def group_seeds(rows: list[ResultRow]) -> dict[str, RowGroup]:
    """Group the seeds of each row by its name; drop scales below the largest and repeated seeds."""
    groups: dict[str, list[ResultRow]] = {}
    for row in rows:
        groups.setdefault(row.name.removesuffix(f"-s{row.seed}"), []).append(row)
    counted = {}
    for name, group in groups.items():
        largest = max(map(_scale_size, group))
        by_seed: dict[int | None, ResultRow] = {}
        for row in group:
            if _scale_size(row) == largest:
                by_seed.setdefault(row.seed, row)
        counted[name] = RowGroup(name, tuple(by_seed.values()))
    return counted


def _scale_size(row: ResultRow) -> int:
    return SCALES.index(row.scale) if row.scale in SCALES else -1


def read_row(line: str, where: str) -> ResultRow:
    """Read a row. Raise `Refusal` for a damaged line."""
    given = parse_json(line, where)
    content = {**OPTIONAL, **given}
    for name, kind in KINDS.items():
        if not isinstance(content.get(name, ...), kind):
            raise Refusal(
                f"{where}: damaged: '{name}' is missing or of the wrong type; a row as written by "
                "'distvae reproduce' expected"
            )
    config = content["config"]
    return ResultRow(
        name=content["row"],
        seed=config.get("train.seed"),
        scale=content["scale"],
        commit=(content["commit"] or "-")[:8],
        seconds=content["seconds"],
        epochs=content["epochs"],
        figures=_numbers(content["figures"]),
        published=_numbers(content["published"]),
        published_spread=_numbers(content["published_spread"]),
        note=content["note"],
        section=content["section"],
        config=config,
        content=given,
    )


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    """Return the values that are finite numbers, without lists by epoch, null, and NaN."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def add_run(
    folder: Path,
    run: Path,
    table: str,
    *,
    force: bool,
    name: str = "",
    extra: Mapping[str, object] = NOTHING,
) -> None:
    """Write the row of an evaluated run; `extra` is added to it."""
    from distvae.files.program import commit
    from distvae.train.run_folder import read_config, read_info

    info = read_info(run)
    for key in ("seconds", "epochs"):
        if key not in info:
            raise Refusal(
                f"{run}/run.json: has no {key}; a run that was trained to its end expected"
            )
    cores = info.get("machine", {}).get("cpus")  # a pushed model does not record the machine
    device = info.get("arithmetic", {}).get("device", "cpu")
    gpu = "" if device == "cpu" else f", {device}"
    row = {
        "table": table,
        "row": name or run.absolute().name,
        "recipe": info["recipe"],
        "commit": info["commit"],
        "judged_by": commit(),
        "seconds": round(info["seconds"], 1),
        "epochs": info["epochs"],
        "data": {
            "name": info["data"],
            "digest": info["data_digest"][:16],
            "rows": info["rows"],
        },
        "machine": f"{platform.machine()}, {cores} cores{gpu}" if cores else "",
        "config": _settings(read_config(run, info)),
        "figures": _figures(run),
    }
    write_row(folder, {**row, **extra}, force)


def _figures(run: Path) -> dict[str, object]:
    """Return the metrics of a restoration's last stage, with PSNR and SNR also by epoch; or else
    the metrics of the evaluation and of the best epoch.
    """
    from distvae.report.reading import read_stages
    from distvae.train.run_folder import best_epoch, read_epochs

    figures: dict[str, object]
    if stages := read_stages(run):
        figures = dict(stages[-1])
        for name in ("psnr", "snr"):
            if name in stages[-1]:
                figures[f"{name}_by_epoch"] = [round(stage[name], 3) for stage in stages]
        return figures
    summary = run / "evaluation" / "test" / "summary.json"
    if not summary.is_file():
        raise Refusal(f"{summary}: missing; 'distvae evaluate {run}' writes it")
    epochs = read_epochs(run)
    if not epochs:
        raise Refusal(
            f"{run / 'epochs.jsonl'}: has no epoch; the file that training wrote expected"
        )
    best = best_epoch(run, epochs)
    figures = {**read_figures(summary)}
    for name in ("val_objective", "val_bound", "val_kl"):
        if name in best:
            figures[name] = best[name]
    return {**figures, "best_epoch": best["epoch"]}


def add_baseline(
    folder: Path, name: str, baseline: str, config: Config, table: str, extra: Mapping[str, object]
) -> None:
    """Evaluate a baseline, and write its row of a table; `extra` is added to the row."""
    from distvae.files.program import commit
    from distvae.tasks.baselines import score_baseline

    began = time.perf_counter()
    figures = score_baseline(baseline, config, progress=True)
    settings = _settings(config)
    row = {
        "table": table,
        "row": name,
        "baseline": baseline,
        "commit": commit(),
        "seconds": round(time.perf_counter() - began, 1),
        "epochs": None,
        "data": {"name": Path(config.data.path).name},
        "config": {key: settings[key] for key in settings if key.startswith(("data.", "eval."))},
        "figures": figures,
    }
    write_row(folder, {**row, **extra}, force=True)


def _settings(config: Config) -> dict[str, object]:
    """Return the configuration without the path of the data."""
    return {name: value for name, value in flatten(config).items() if name != "data.path"}
