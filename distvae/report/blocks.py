"""The parts of a report, before they become HTML or Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Order = Literal["", "ascending", "descending"]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    strong: bool = False
    """Whether it is a main conclusion, printed in bold."""
    on_page: bool = False
    """Whether it is about the page itself, and left out elsewhere."""


@dataclass(frozen=True)
class Column:
    """The head of a column."""

    name: str
    numeric: bool = False
    order: Order = ""
    """The order that the rows arrive in, if they are sorted by this column."""
    measure: str = ""
    """The figure that its values are, which the section on measures explains."""
    minor: bool = False
    """Whether it is hidden first where the table is wider than the page."""


@dataclass(frozen=True)
class Cell:
    """One value of a table."""

    text: str
    value: float | None = None
    """The number that the cell is sorted by."""
    measure: str = ""
    """The figure that the text names, if it names one."""


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    cells: Sequence[Cell]
    tone: str = ""
    """A style: 'unbeaten', or the state of a trial that did not finish."""
    target: str = ""
    """The anchor of an exhibit that belongs to the row."""
    anchor: str = ""
    """The target of links to the row."""


@dataclass(frozen=True)
class Table:
    """Rows under columns."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    caption: str = ""
    sortable: bool = False


@dataclass(frozen=True)
class Drawing:
    """A diagram made for the page."""

    svg: str
    caption: str
    large: bool = False
    """Whether it has several panels, which need the full width of the page."""
    links: bool = False
    """Whether its points are links to exhibits."""


@dataclass(frozen=True)
class Drawings:
    """Small diagrams side by side."""

    each: Sequence[Drawing]


@dataclass(frozen=True)
class Picture:
    """A picture that the evaluation drew."""

    file: Path
    caption: str


@dataclass(frozen=True)
class Sound:
    """A recording to listen to."""

    file: Path
    caption: str


@dataclass(frozen=True)
class Exhibit:
    """The pictures and sounds of one run."""

    title: str
    sounds: Sequence[Sound]
    pictures: Sequence[Picture]
    anchor: str = ""
    """The target of links to it."""
    label: str = ""
    """A word or two in the list of exhibits."""
    note: str = ""
    """A note on what it lacks."""


@dataclass(frozen=True)
class Gallery:
    """Exhibits of which the page shows one at a time, that of the link that was followed last."""

    exhibits: Sequence[Exhibit]


@dataclass(frozen=True)
class Code:
    """A command or a file; folded if it is long."""

    text: str
    caption: str = ""
    folded: bool = False


Block = Text | Table | Drawing | Drawings | Gallery | Code


@dataclass(frozen=True)
class Section:
    """A part of a report under its title."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """The target of the link in the table of contents."""
        return self.title.lower().replace(" ", "-")

    @property
    def is_gallery(self) -> bool:
        """True if it has exhibits, which a wide page shows beside the other sections."""
        return any(isinstance(block, Gallery) for block in self.blocks)


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    subtitle: str
    sections: Sequence[Section] = field(default_factory=tuple)


def document(title: str, subtitle: str, parts: Mapping[str, Iterable[Block]]) -> Document:
    """Build a report from sections by title; empty sections are left out."""
    sections = [Section(name, list(blocks)) for name, blocks in parts.items()]
    return Document(title, subtitle, [section for section in sections if section.blocks])


def facts(pairs: Sequence[tuple[str, str]], caption: str = "") -> Table:
    """Build a table of names and values; names without a value are left out."""
    rows = [Row((Cell(name), Cell(text))) for name, text in pairs if text]
    return Table((Column("what"), Column("value")), rows, caption)
