"""The parts of a report, with pictures and sounds as data URLs, and the HTML page."""

import base64
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding
from distvae.numerics.metrics import meaning

if TYPE_CHECKING:
    from matplotlib.figure import Figure


GENERATOR = '<meta name="generator" content="distvae report">'
"""The mark that identifies a report."""
Facts = Sequence[tuple[str, str]]
"""Names and values."""
MAX_PICTURE_BYTES = 50_000
"""Larger pictures are embedded with fewer pixels, compressed by WebP."""
MAX_WIDTH = 1200
"""The largest width in pixels of a compressed picture."""
QUALITY = 70
"""The quality of WebP, from 0 to 100."""
MAX_SECONDS = 15
"""The length of the embedded excerpt of a recording."""
COMPRESSION = 0.3
"""Vorbis' compression, from 0 (best quality) to 1 (smallest)."""


class Cell(NamedTuple):
    """One value of a table, and the number that sorts it."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    cells: Sequence[Cell]
    state: str = ""
    """The state of the row's trial, `unbeaten` if no trial beats it, or `baseline`."""
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


class Finding(NamedTuple):
    """One of the main conclusions."""

    name: str
    text: str
    links: Facts = ()
    """Texts and the anchors that they lead to; '' for a text without a link."""
    command: str = ""


@dataclass(frozen=True)
class Section:
    """A section of a report: its title and its contents of each kind."""

    title: str
    texts: Sequence[str] = ()
    findings: Sequence[Finding] = ()
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

    from distvae.files.program import provenance

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


def drawing(figure: "Figure") -> str:
    """Return a diagram as SVG. The SVG is the same each time it is drawn."""
    import matplotlib as mpl

    stream = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "distvae"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return _data_url("image/svg+xml", stream.getvalue())


def picture(path: Path) -> str:
    """Return a PNG as a data URL. A large PNG is compressed."""
    from PIL import Image

    content = path.read_bytes()
    if len(content) <= MAX_PICTURE_BYTES:
        return _data_url("image/png", content)
    stream = io.BytesIO()
    with (
        decoding(path, "a picture written by the evaluation"),
        Image.open(io.BytesIO(content)) as image,
    ):
        image.thumbnail((MAX_WIDTH, 10 * MAX_WIDTH))
        image.convert("RGB").save(stream, format="WEBP", quality=QUALITY)
    return _data_url("image/webp", stream.getvalue())


def sound(path: Path) -> str:
    """Return the beginning of a recording, compressed by Vorbis in blocks of a second."""
    from soundfile import LibsndfileError, SoundFile

    stream = io.BytesIO()
    try:
        with SoundFile(path) as file:
            form = (file.samplerate, file.channels, "VORBIS", None, "OGG")
            with SoundFile(stream, "w", *form, compression_level=COMPRESSION) as compressed:
                for block in file.blocks(file.samplerate, frames=MAX_SECONDS * file.samplerate):
                    compressed.write(block)
    except LibsndfileError as error:
        why = error.error_string.rstrip(".")
        raise Refusal(
            f"{path}: cannot be read ({why}); a sound written by the evaluation expected"
        ) from error
    return _data_url("audio/ogg", stream.getvalue())


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
