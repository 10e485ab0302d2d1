"""Results that accumulate: one small JSON for each finished row, and the page that is built from
all of them.
"""

import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from distvae.config import Config, flatten
from distvae.files.output import atomic_file, check_new_file, make_folder
from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_json

Row = dict[str, Any]
FIELDS: dict[str, Any] = {"row": str, "commit": str | None, "config": dict, "figures": dict}
FIELDS |= dict.fromkeys(("seconds", "epochs"), int | float | None)
"""What a row has at least."""
Scale = Literal["smoke", "day", "full"]
SCALES: tuple[Scale, ...] = ("smoke", "day", "full")
"""Of published tables made again, the smallest first."""


def add(
    folder: Path,
    run: Path,
    table: str,
    force: bool,
    name: str = "",
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Write the row of an evaluated run: configuration, seed, commit, seconds, figures, and what is
    given beside.
    """
    from distvae.files.provenance import commit
    from distvae.train.run import read_config, read_info

    info = read_info(run)
    if missing := [name for name in ("seconds", "epochs") if name not in info]:
        raise Refusal(
            f"{run}/run.json: says nothing of {missing[0]}; a run that was trained to an end"
            " expected"
        )
    row = {
        "table": table,
        "row": name or run.name,
        "recipe": info["recipe"],
        "commit": info["commit"],
        "judged_by": commit(),
        "seconds": round(info["seconds"], 1),
        "epochs": info["epochs"],
        "data": {"name": info["data"], "digest": info["data_digest"][:16], "rows": info["rows"]},
        "machine": f"{platform.machine()}, {info['machine']['cpus']} cores",
        "config": _settings(read_config(run, info)),
        "figures": _figures(run),
    }
    write(folder, row | dict(beside or {}), force)


def _figures(run: Path) -> Row:
    """Of a restoration where it stands, and how it came there; of another run, its evaluation and
    best epoch.
    """
    from distvae.tasks.restoration import STAGES
    from distvae.train.run import read_epochs, read_records

    if stages := {
        stage["epoch"]: stage for stage in read_records(run, STAGES)
    }:  # the last of those trained twice
        epochs = sorted(stages)
        last = stages[epochs[-1]]
        by_epoch = {
            name: [round(stages[n][name], 3) for n in epochs]
            for name in ("psnr", "snr")
            if name in last
        }
        return last | {f"{name}_by_epoch": values for name, values in by_epoch.items()}
    judged = run / "evaluation" / "test" / "summary.json"
    if not judged.is_file():
        raise Refusal(f"{judged}: missing; 'distvae evaluate {run}' writes it")
    return read_json(judged) | _training(run, read_epochs(run))


def peer(
    name: str,
    config: Config,
    file: Path | None,
    force: bool,
    beside: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Judge a method to compare with, and write its row where a file is named for it,
    TABLE/ROW.json.
    """
    from distvae.files.provenance import commit
    from distvae.tasks.peers import judge_peer

    if file is not None:
        check_new_file(file, (".json",), force)
    began = time.perf_counter()
    figures = judge_peer(name, config, progress=True)
    if file is not None:
        row: Row = {"table": file.parent.name, "row": file.stem, "peer": name, "commit": commit()}
        row |= {"seconds": round(time.perf_counter() - began, 1), "epochs": None}
        row |= {
            "data": {"name": Path(config.data.path).name},
            "config": _of_data(config),
            "figures": figures,
        }
        write(file.parent.parent, row | dict(beside or {}), force)
    return figures


def _of_data(config: Config) -> Row:
    """What a configuration says of its data and of judging; a method to compare with has its own
    way for the rest.
    """
    return {
        name: value
        for name, value in _settings(config).items()
        if name.startswith(("data.", "eval."))
    }


def _settings(config: Config) -> Row:
    """The configuration without the place where the data lay."""
    return {name: value for name, value in flatten(config).items() if name != "data.path"}


def _training(run: Path, epochs: list[dict[str, float]]) -> dict[str, float]:
    if not epochs:
        raise Refusal(
            f"{run / 'epochs.jsonl'}: tells of no epoch; the file that training wrote expected"
        )
    best = max(epochs, key=lambda epoch: epoch["val_objective"])
    told = {name: best[name] for name in ("val_objective", "val_bound", "val_kl") if name in best}
    return told | {"best_epoch": best["epoch"]}


def write(folder: Path, row: Row, force: bool) -> None:
    """Keep a row; one that is there already is refused unless it is to be replaced."""
    path = folder / row["table"] / f"{row['row']}.json"
    if path.exists() and not force:
        raise Refusal(f"{path}: exists; --force replaces it")
    make_folder(path.parent)
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(row, indent=1) + "\n")


def build(folder: Path, out: Path | None) -> None:
    """Write the page of all rows."""
    page = "\n".join(_page(folder)) + "\n"
    if out is None:
        print(page, end="")
        return
    with atomic_file(out) as partial:
        partial.write_text(page)


def known(folder: Path, table: str, name: str) -> Row | None:
    """The row of a name, if it is there."""
    path = folder / table / f"{name}.json"
    return _row(path) if path.is_file() else None


def read(folder: Path, table: str) -> list[Row]:
    """The finished rows of a table, by name."""
    return [_row(path) for path in sorted((folder / table).glob("*.json"))]


def _row(path: Path) -> Row:
    """The row in a file, unless that is damaged."""
    row = read_json(path)
    for name, kind in FIELDS.items():
        if not isinstance(row.get(name, ...), kind):
            raise Refusal(
                f"{path}: damaged: no {name}, or none that is one; as 'distvae results --add' wrote"
                " it expected"
            )
    return row


def _page(folder: Path) -> list[str]:
    tables = sorted(path for path in folder.glob("*") if path.is_dir())
    if not tables:
        raise Refusal(
            f"{folder}: no rows; folders of JSON rows expected, which 'distvae results --add RUN'"
            " writes"
        )
    lines = [
        "# Results",
        "",
        (
            "Built by `distvae results docs/results -o docs/results.md` from one JSON for each"
            " finished row, in"
        ),
        "`docs/results/`. Means over seeds; the spread is half the range.",
    ]
    rows = {table.name: read(folder, table.name) for table in tables}
    if held := [line for name, found in rows.items() for line in _held(name, found)]:
        head = ["table", "figure", "rows", "least", "median", "most"]
        lines += ["", *CLOSE, "", _line(head), _line(["---"] * len(head)), *held]
    for table in tables:
        lines += ["", *_section(table, rows[table.name])]
    return lines


CLOSE = [
    "## How close to what was published",
    "",
    (
        "Obtained minus published, over the rows of each table that have both, at the largest scale"
        " they were made at: the"
    ),
    (
        "least, the median and the most, each with its row. Scales and seeds stand with the rows"
        " below."
    ),
]


def _held(table: str, rows: list[Row]) -> list[str]:
    """A line for each figure that something was published of."""
    lines = []
    for figure in SHOWN:
        found = {name: _difference(group, figure) for name, group in grouped(rows).items()}
        known = sorted((value, name) for name, value in found.items() if value is not None)
        if known:
            (least, first), (most, last) = known[0], known[-1]
            middle = _signed(median(value for value, _ in known), figure)
            ends = (
                f"{_signed(least, figure)} ({first})",
                middle,
                f"{_signed(most, figure)} ({last})",
            )
            lines.append(_line([f"`{table}`", SHOWN[figure], str(len(known)), *ends]))
    return lines


def _signed(difference: float, figure: str) -> str:
    return f"{difference:+z.{DIGITS.get(figure, 2)}f}"


def _section(table: Path, rows: list[Row]) -> list[str]:
    about = table / "about.md"
    head = about.read_text().rstrip().splitlines() if about.exists() else [f"## {table.name}"]
    return [*head, "", *_table(rows)]


SHOWN = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "snr": "SNR",
    "snr_gain": "SNR gain",
    "pesq_wb_gain": "PESQ wb gain",
    "val_bound": "validation bound",
    "val_objective": "validation objective",
    "pesq_wb": "PESQ wb",
    "pesq_nb_raw": "PESQ raw nb",
    "stoi": "STOI",
    "estoi": "ESTOI",
    "si_sdr": "SI-SDR",
    "isd": "IS div.",
    "hoyer": "Hoyer",
    "hoyer_active": "Hoyer, active",
    "effective_atoms": "eff. atoms",
    "effective_effects": "eff. effects",
    "live_atoms": "live",
    "objective": "objective",
    "probe_sgd": "probe, SGD",
    "probe_linear": "probe, linear",
    "active": "active",
    "recovered": "recovered",
    "reliability": "reliability",
    "sigma": "sigma",
    "ratio": "step / products",
    "step_us": "step, us",
    "products_us": "products, us",
    "reused_per_hour": "trials/h, kept processes",
    "nested_per_hour": "trials/h, Ray Train each",
    "times": "times as many",
}
DIGITS = {"psnr": 2, "snr": 2, "snr_gain": 2, "pesq_wb_gain": 2, "ssim": 3}


def grouped(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each name that count, seeds of the same together."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(
            row["row"].removesuffix(f"-s{row['config'].get('train.seed')}"), []
        ).append(row)
    return {name: _counting(group) for name, group in groups.items()}


def _counting(group: list[Row]) -> list[Row]:
    """Those at the largest scale there is, one for each seed."""
    sizes = [SCALES.index(row["scale"]) if row.get("scale") in SCALES else -1 for row in group]
    largest = [row for row, size in zip(group, sizes, strict=True) if size == max(sizes)]
    return list({row["config"].get("train.seed"): row for row in reversed(largest)}.values())[::-1]


def _table(rows: list[Row]) -> list[str]:
    """A Markdown table, seeds of the same row together."""
    shown = [name for name in SHOWN if any(row["figures"].get(name) is not None for row in rows)]
    compared = [name for name in shown if any(name in row.get("published", {}) for row in rows)]
    scaled = any("scale" in row for row in rows)
    beside = [
        f"{word} {SHOWN[name]}" for name in compared for word in ("published", "difference in")
    ]
    head = ["row", *(SHOWN[name] for name in shown), *beside, *["scale"] * scaled]
    head += ["seeds", "epochs", "seconds", "commit"]
    lines = [_line(head), _line(["---"] * len(head))]
    for name, group in grouped(rows).items():
        cells = [
            spread([row["figures"].get(figure) for row in group], DIGITS.get(figure))
            for figure in shown
        ]
        cells += [cell for figure in compared for cell in _against(group, figure)]
        cells += [group[0].get("scale", "-")] * scaled
        cells += [
            str(len(group)),
            *(spread([row[key] for row in group], 0) for key in ("epochs", "seconds")),
        ]
        lines.append(_line([name, *cells, commits(group)]))
    notes = {
        f"`{name}`: {group[0]['note']}."
        for name, group in grouped(rows).items()
        if group[0].get("note")
    }
    return [*lines, *([""] if notes else []), *sorted(notes)]


def commits(group: list[Row]) -> str:
    """The programs that made some rows; '-' is one that was installed without its history."""
    return " ".join(sorted({(row["commit"] or "-")[:8] for row in group}))


def _against(group: list[Row], figure: str) -> tuple[str, str]:
    """What was published of a figure, and what the mean has beyond it."""
    published, beyond = group[0].get("published", {}).get(figure), _difference(group, figure)
    told = "-" if published is None else f"{published:g}"
    return told, "-" if beyond is None else _signed(beyond, figure)


def _difference(group: list[Row], figure: str) -> float | None:
    """What the mean of a figure has beyond what was published of it, where both are known."""
    published = group[0].get("published", {}).get(figure)
    found = [row["figures"][figure] for row in group if row["figures"].get(figure) is not None]
    return None if published is None or not found else fmean(found) - float(published)


def spread(values: list[float | None], digits: int | None = None) -> str:
    """The mean of what is known, and half its range."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean, half = sum(known) / len(known), (max(known) - min(known)) / 2
    places = digits if digits is not None else 1 if abs(mean) >= 20 else 2 if abs(mean) >= 2 else 3
    return f"{mean:.{places}f}" + (f" ± {half:.{places}f}" if half and places else "")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
