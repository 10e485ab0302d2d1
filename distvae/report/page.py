"""The parts of a report, and the HTML page with these parts."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from distvae.numerics.metrics import meaning

GENERATOR = '<meta name="generator" content="distvae report">'
"""The mark that identifies a report."""
Facts = Sequence[tuple[str, str]]
"""Names and values."""


class Cell(NamedTuple):
    """One value of a table, and the number that sorts it."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    cells: Sequence[Cell]
    state: str = ""
    """The state of the row's trial, `unbeaten` if no trial beats it."""
    target: str = ""
    """The anchor of the row's exhibit."""


@dataclass(frozen=True)
class Table:
    """A table whose rows a click on a column's name sorts."""

    columns: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""
    sorted_by: str = ""
    """The column that sorts the rows initially."""
    order: str = "ascending"

    def is_numeric(self, place: int) -> bool:
        """Return whether a column contains only numbers."""
        cells = [row.cells[place] for row in self.rows if row.cells[place].text]
        return all(cell.value is not None for cell in cells)


class Medium(NamedTuple):
    """A picture or a sound as a data URL."""

    url: str
    caption: str


@dataclass(frozen=True)
class Exhibit:
    """The pictures and sounds of a run."""

    title: str
    anchor: str
    sounds: Sequence[Medium]
    pictures: Sequence[Medium]


@dataclass(frozen=True)
class Section:
    """A section of a report: its title and its contents of each kind."""

    title: str
    texts: Sequence[str] = ()
    findings: Sequence[str] = ()
    """The main conclusions."""
    facts: Facts = ()
    tables: Sequence[Table] = ()
    drawings: Sequence[Medium] = ()
    exhibits: Sequence[Exhibit] = ()
    codes: Facts = ()
    """Captions with commands or files. A file is folded."""

    @property
    def anchor(self) -> str:
        """The target of the link in the table of contents."""
        return self.title.lower().replace(" ", "-")


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    subtitle: str
    sections: Sequence[Section]


def html(page: Page) -> str:
    """Return the page, with a last section that defines the metrics in its tables."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from distvae.files.provenance import provenance

    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"meaning": meaning, "digest": _digest}
    names = dict.fromkeys(_names(page))
    if measures := [(name, meaning(name)) for name in names if meaning(name)]:
        page = replace(page, sections=[*page.sections, Section("Measures", facts=measures)])
    version = provenance()["versions"]["distvae"]
    template = jinja.get_template("page.html.j2")
    return template.render(page=page, generator=GENERATOR, version=version)


def _names(page: Page) -> Iterator[str]:
    """Yield the names of the columns and rows of all tables."""
    for section in page.sections:
        for table in section.tables:
            yield from table.columns
            yield from (row.cells[0].text for row in table.rows)


def _digest(script: str) -> str:
    """Return the digest that allows a browser to run a script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
