"""A report as Markdown: the same words and figures, with links to pictures and sounds."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from distvae.files.markdown import markdown_table
from distvae.report.blocks import (
    Block,
    Code,
    Document,
    Drawing,
    Drawings,
    Exhibit,
    Gallery,
    Table,
    Text,
)

MARK = "<!-- distvae report -->"
"""The first line of every report in Markdown."""


def markdown(document: Document, folder: Path | None) -> str:
    """Return a report as Markdown that lies in `folder`; without a folder it has no links."""
    lines = [MARK, "", f"# {plain(document.title)}", "", plain(document.subtitle)]
    for section in document.sections:
        lines += ["", f"## {plain(section.title)}"]
        for block in section.blocks:
            lines += ["", *_block(block, folder)]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Escape markup, line ends and the bars of tables."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def _block(block: Block, folder: Path | None) -> Iterator[str]:
    match block:
        case Text(on_page=True):
            return
        case Text():
            yield f"**{plain(block.text)}**" if block.strong else plain(block.text)
        case Table():
            yield from _table_lines(block)
        case Drawing():
            yield f"*Drawn on the page:* {plain(block.caption)}"
        case Drawings():
            yield from (f"- *drawn on the page:* {plain(each.caption)}" for each in block.each)
        case Gallery():
            for exhibit in block.exhibits:
                yield from (f"### {plain(exhibit.title)}", "")
                yield from _exhibit(exhibit, folder)
        case Code():
            yield from _code(block)


def _exhibit(block: Exhibit, folder: Path | None) -> Iterator[str]:
    if block.note:
        yield from (plain(block.note), "")
    if folder is None:
        yield from (f"- *seen on the page:* {plain(each.caption)}" for each in block.pictures)
        yield ""
        return
    yield from (f"- [{plain(each.caption)}]({_link(each.file, folder)})" for each in block.sounds)
    yield ""
    yield from (f"![{plain(each.caption)}]({_link(each.file, folder)})" for each in block.pictures)
    yield ""


def _table_lines(table: Table) -> Iterator[str]:
    head = [plain(column.name) for column in table.columns]
    rows = [[plain(cell.text) for cell in row.cells] for row in table.rows]
    numeric = [place for place, column in enumerate(table.columns) if column.numeric]
    yield from markdown_table(head, rows, numeric)
    if table.caption:
        yield from ("", plain(table.caption))


def _link(file: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(file, folder)).as_posix())


def _code(code: Code) -> Iterator[str]:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code.text)), default=0))
    if code.caption:
        yield from (plain(code.caption), "")
    yield from (fence, code.text.rstrip(), fence)
