"""What a report is made of, before it becomes HTML or Markdown."""

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
    """Whether it is what a reader should take away."""


@dataclass(frozen=True)
class Column:
    """The head of a column."""

    name: str
    numeric: bool = False
    order: Order = ""
    """How the rows come sorted by it."""


@dataclass(frozen=True)
class Cell:
    """One value of a table."""

    text: str
    value: float | None = None
    """What it is sorted by."""


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    cells: Sequence[Cell]
    tone: str = ""
    """What sets it apart: 'unbeaten', or how it ended if it did not finish."""


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
    """Whether it has panels of its own, too small to read on a narrow page."""


@dataclass(frozen=True)
class Drawings:
    """Small diagrams side by side."""

    each: Sequence[Drawing]


@dataclass(frozen=True)
class Picture:
    """A picture that judging drew."""

    file: Path
    caption: str


@dataclass(frozen=True)
class Sound:
    """A recording to listen to."""

    file: Path
    caption: str


@dataclass(frozen=True)
class Exhibit:
    """What there is to see and hear of one run."""

    title: str
    sounds: Sequence[Sound]
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Code:
    """Something to type, or to save; folded where it is long."""

    text: str
    caption: str = ""
    folded: bool = False


Block = Text | Table | Drawing | Drawings | Exhibit | Code


@dataclass(frozen=True)
class Section:
    """A part of a report under its title."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """What the table of contents points to."""
        return self.title.lower().replace(" ", "-")


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    subtitle: str
    sections: Sequence[Section] = field(default_factory=tuple)


def document(title: str, subtitle: str, parts: Mapping[str, Iterable[Block]]) -> Document:
    """A report of sections by their titles; one that has nothing to say is left out."""
    sections = [Section(name, list(blocks)) for name, blocks in parts.items()]
    return Document(title, subtitle, [section for section in sections if section.blocks])


def facts(pairs: Sequence[tuple[str, str]], caption: str = "") -> Table:
    """Names and what they stand for; what is not known is left out."""
    rows = [Row((Cell(name), Cell(text))) for name, text in pairs if text]
    return Table((Column("what"), Column("value")), rows, caption)
