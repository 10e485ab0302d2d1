"""Write the index of results, the page of each table and its CSV."""

import os
from pathlib import Path

from distvae.files.output import atomic_file, check_writable_file
from distvae.files.refusal import Refusal
from distvae.report.results.claims import read_contents
from distvae.report.results.index import TITLE, Index
from distvae.report.results.pages import CSV, csv_text, page_lines
from distvae.report.results.rows import read_rows, read_tables


def check_index(out: Path, force: bool) -> None:
    """Raise `Refusal` if no index can be written there. Replace another file only if `force`."""
    check_writable_file(out)
    if force or not out.is_file():
        return
    if out.read_text(encoding="utf-8", errors="replace").partition("\n")[0] != TITLE:
        raise Refusal(f"{out}: exists and is no index of results; another name or --force expected")


def build(folder: Path, out: Path | None) -> None:
    """Write the index to `out`, and the pages and CSVs beside the rows; print all without `out`."""
    tables = read_tables(folder)
    if out is not None and out.absolute() in [(folder / f"{t}.md").absolute() for t in tables]:
        raise Refusal(f"{out}: this is the page of a table; another name expected")
    pages = "" if out is None else os.path.relpath(folder, out.parent)
    index = list(Index(tables, read_contents(folder), pages).lines())
    if out is None:
        print("\n".join(index))
        for table, groups in tables.items():
            print("\n".join(["", *page_lines(folder, table, groups, "")]))
        return
    back = os.path.relpath(out, folder)
    for table, groups in tables.items():
        _write_lines(folder / f"{table}.md", list(page_lines(folder, table, groups, back)))
        _write_lines(
            folder / table / CSV,
            [csv_text(read_rows(folder, table)).rstrip("\n")],
        )
    _write_lines(out, index)


def _write_lines(path: Path, lines: list[str]) -> None:
    with atomic_file(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
