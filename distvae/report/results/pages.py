"""The page of a table and its rows as CSV."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from distvae.files.markdown import markdown_table
from distvae.report.results.figures import (
    FIGURES,
    difference,
    published_text,
    signed,
    with_half_range,
)
from distvae.report.results.rows import ResultRow, RowGroup

ABOUT = "about.md"
"""The hand-written beginning of a page, in the folder of the table's rows."""
CSV = "rows.csv"
TRAINING = ("seeds", "epochs", "seconds")
"""The last columns of a table of trained models, before the commit."""
DESCRIPTION = (
    *("row", "scale", "seconds", "epochs", "commit"),
    *("judged_by", "recipe", "section", "peer", "machine", "note"),
)
"""The first columns of the CSV."""


def about_table(folder: Path, table: str) -> list[str]:
    """Return the beginning of a page, with links as they must be one folder higher."""
    path = folder / table / ABOUT
    if not path.exists():
        return [f"# {table}"]
    return path.read_text(encoding="utf-8").rstrip().replace("](../", "](").splitlines()


def page_lines(folder: Path, table: str, groups: list[RowGroup], index: str) -> Iterator[str]:
    """Return the lines of a table's page; `index` is the path from it to the index."""
    yield from about_table(folder, table)
    yield from ("", "## Rows", "")
    links = f"All figures as CSV: [{CSV}]({quote(table)}/{CSV})."
    yield f"{links} Back to the [index]({index})." if index else links
    ordered = sorted(groups, key=_natural_order)
    for section in sorted({group.section for group in groups}):
        if section:
            yield from ("", f"### {section}")
        yield from ("", *_rows_table([group for group in ordered if group.section == section]))
    notes = sorted(f"`{group.name}`: {group.note}." for group in groups if group.note)
    if notes:
        yield from ("", *(f"- {note}" for note in notes))


def _natural_order(group: RowGroup) -> list[tuple[float, str]]:
    """Return a key that sorts m8 before m16."""
    parts = re.split(r"(\d+(?:\.\d+)?)", group.name)  # words at even places, numbers at odd ones
    return [(float(part), "") if place % 2 else (0.0, part) for place, part in enumerate(parts)]


def _rows_table(groups: list[RowGroup]) -> list[str]:
    """Return a Markdown table with a line for each row, its seeds together."""
    shown = _shown_figures(groups)
    compared = [figure for figure in shown if any(g.published(figure) is not None for g in groups)]
    others = [figure for figure in shown if figure not in compared]
    scaled = any(group.scale for group in groups)
    head = ["row"]
    for figure in compared:
        head += [FIGURES[figure], "published", "difference"]
    head += [FIGURES[figure] for figure in others]
    trained = any(row.epochs is not None or row.seed is not None for g in groups for row in g.rows)
    head += [*["scale"] * scaled, *TRAINING * trained, "commit"]
    rows = []
    for group in groups:
        cells = [group.name]
        for figure in compared:
            cells += _compared_cells(group, figure)
        cells += [with_half_range(group.values(figure), figure=figure) for figure in others]
        cells += [group.scale or "-"] * scaled
        cells += [*_training_cells(group) * trained, group.commits]
        rows.append(cells)
    return markdown_table(head, rows)


def _shown_figures(groups: list[RowGroup]) -> list[str]:
    """Return the figures that some row has; the objective only where it differs from the bound."""
    shown = [figure for figure in FIGURES if any(group.values(figure) for group in groups)]
    same = all(g.values("val_objective") == g.values("val_bound") for g in groups)
    if same and "val_objective" in shown:
        shown.remove("val_objective")
    return shown


def _compared_cells(group: RowGroup, figure: str) -> list[str]:
    """Return ours, what was published, and the difference."""
    published, distance = group.published(figure), difference(group, figure)
    return [
        with_half_range(group.values(figure), figure=figure),
        "-" if published is None else published_text(published, group.published_spread(figure)),
        "-" if distance is None else signed(distance, figure),
    ]


def _training_cells(group: RowGroup) -> list[str]:
    """Return the number of seeds, epochs and seconds."""
    epochs = [float(row.epochs) for row in group.rows if row.epochs is not None]
    seconds = [row.seconds for row in group.rows if row.seconds is not None]
    return [
        str(len(group.rows)),
        with_half_range(epochs, 0),
        with_half_range(seconds, 0),
    ]


def csv_text(rows: list[ResultRow]) -> str:
    """Return every row as CSV: what it is, its figures, and the settings in which rows differ."""
    parts = [_columns(row) for row in rows]
    settings = _all_keys([row.config for row in rows])
    same = {f"config.{key}" for key in settings if _same_value(rows, key)}
    head = [name for name in _all_keys(parts) if name not in same]
    head.sort(key=lambda name: (name not in DESCRIPTION, name.startswith("config.")))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for cells in parts:
        writer.writerow([_cell(cells.get(name)) for name in head])
    return text.getvalue()


def _columns(row: ResultRow) -> dict[str, object]:
    """Return the values of a row by the name of their column."""
    columns = {name: row.content[name] for name in DESCRIPTION if row.content.get(name)}
    for name, value in row.all_figures.items():
        columns[f"figure.{name}" if name in DESCRIPTION else name] = value
    columns |= {f"published.{name}": value for name, value in row.published.items()}
    columns |= {f"config.{name}": value for name, value in row.config.items()}
    return columns


def _same_value(rows: list[ResultRow], key: str) -> bool:
    """Tell whether a setting is the same in every row."""
    return len({_cell(row.config.get(key)) for row in rows}) == 1


def _all_keys(mappings: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the keys of some mappings, each once, in the order in which they first appear."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _cell(value: object) -> str:
    """Return a value as it stands in the CSV: text as it is, the rest as JSON, nothing for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
