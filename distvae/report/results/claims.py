"""Claims of the index of results about each paper: `claims.yaml` beside the rows."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

from distvae.files.refusal import Refusal, nearest
from distvae.files.untrusted import read_yaml

FILE = "claims.yaml"


@dataclass(frozen=True)
class Claim:
    """One line of the index: a figure of a row, or the difference between two rows."""

    claim: str
    table: str
    row: str
    figure: str
    minus: str = ""
    """The row to subtract."""
    over: tuple[str, ...] = ()
    """Words that take the place of {over} in `row` and `minus`: the claim is about all of them."""
    source: str = ""
    """TABLE/ROW that has the published figure, where it is not the row itself."""
    command: str = ""
    """The command that makes the row; by default `distvae reproduce` with table, scale and name."""

    def rows(self) -> list[str]:
        """Return the names of the rows whose figure is shown."""
        return [self.row.replace("{over}", word) for word in self.over] or [self.row]

    def subtracted_rows(self) -> list[str]:
        """Return the names of the rows to subtract, one for each of `rows`."""
        if not self.minus:
            return []
        return [self.minus.replace("{over}", word) for word in self.over] or [self.minus]


@dataclass(frozen=True)
class Section:
    """A part of the index."""

    name: str
    about: str = ""
    tables: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Paper:
    """A paper, or the baselines in it, whose published figures are counted together."""

    name: str
    rows: tuple[str, ...]
    """TABLE/PATTERN of the rows that follow the paper. Rows that no paper names are not counted."""

    def has(self, table: str, row: str) -> bool:
        """Return whether a row follows the paper."""
        return any(fnmatchcase(f"{table}/{row}", pattern) for pattern in self.rows)


EVERYTHING = Paper("", ("*/*",))
"""Counts all rows together where a folder names no papers."""


@dataclass(frozen=True)
class Contents:
    """The index without its figures."""

    intro: str = ""
    summary: tuple[str, ...] = ()
    """The answer in a few sentences."""
    sections: tuple[Section, ...] = ()
    papers: tuple[Paper, ...] = ()
    """The papers whose figures are counted, each figure once."""
    means: tuple[str, ...] = ()
    """TABLE/PATTERN of rows whose mean is compared, because a mean is what was published."""

    @property
    def tables(self) -> list[str]:
        """The tables in the order in which the index names them."""
        return [table for section in self.sections for table in section.tables]


def read_contents(folder: Path) -> Contents:
    """Return what a folder's `claims.yaml` says, nothing if there is none."""
    path = folder / FILE
    if not path.is_file():
        return Contents()
    try:
        tree = _known_keys(read_yaml(path), Contents, "the file")
        sections = tuple(_section(section) for section in _items(tree, "sections"))
        papers = tuple(_paper(paper) for paper in _items(tree, "papers"))
        lists = ("summary", "means")
        texts = {key: tuple(str(item) for item in _items(tree, key)) for key in lists}
        intro = str(tree.get("intro", ""))
        return Contents(intro, sections=sections, papers=papers, **texts)
    except Refusal as error:
        raise Refusal(f"{path}: {error}") from error


def _paper(content: object) -> Paper:
    tree = _known_keys(content, Paper, "a paper")
    rows = tuple(str(row) for row in _items(tree, "rows"))
    return Paper(str(tree.get("name", "")), rows)


def _section(content: object) -> Section:
    tree = _known_keys(content, Section, "a section")
    claims = tuple(_claim(claim) for claim in _items(tree, "claims"))
    tables = tuple(str(table) for table in _items(tree, "tables"))
    return Section(str(tree.get("name", "")), str(tree.get("about", "")), tables, claims)


def _claim(content: object) -> Claim:
    tree = _known_keys(content, Claim, "a claim")
    for key in ("claim", "table", "row", "figure"):
        if key not in tree:
            raise Refusal(f"a claim without '{key}': {tree.get('claim', tree)}")
    over = tuple(str(word) for word in _items(tree, "over"))
    words = {key: str(value) for key, value in tree.items() if key != "over"}
    return Claim(**words, over=over)


def _known_keys(content: object, cls: type, what: str) -> Mapping[str, object]:
    """Return a mapping whose keys are fields of a class, or raise `Refusal`."""
    names = [field.name for field in fields(cls)]
    if not isinstance(content, dict):
        raise Refusal(f"{what}: a mapping with keys {', '.join(names)} expected")
    for key in content:
        if key not in names:
            raise Refusal(f"{what}: no key {key}; {nearest(str(key), names)}")
    return content


def _items(tree: Mapping[str, object], key: str) -> list[object]:
    items = tree.get(key, [])
    if not isinstance(items, list):
        raise Refusal(f"{key}: a list expected")
    return items
