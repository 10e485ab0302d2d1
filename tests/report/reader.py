"""Reading reports back: the tables, links and words of HTML."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

Rows = list[dict[str, str]]
VOID = {"meta", "img", "br", "link", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """The contents of a page for a browser."""

    text: str
    tables: list[list[list[str]]] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    heads: list[dict[str, str | None]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.heads += [dict(attrs)] if tag == "th" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    def __contains__(self, words: str) -> bool:
        return words in " ".join(" ".join(self.words).split())

    @property
    def addresses(self) -> list[str]:
        """Everything that the page asks for."""
        asked = ("src", "href", "xlink:href", "srcset", "data", "action", "poster")
        return [
            value or ""
            for _, attributes in self.tags
            for name, value in attributes.items()
            if name in asked
        ]


def rows(table: list[list[str]]) -> Rows:
    """The rows of a table by the names of its head."""
    head, *body = table
    return [dict(zip(head, cells, strict=True)) for cells in body]


def trials(tables: list[list[list[str]]]) -> Rows:
    """The rows of the one table of trials."""
    (table,) = [table for table in tables if table and table[0][0] == "trial"]
    return rows(table)


def alike(tables: list[list[list[str]]]) -> dict[str, str]:
    """Every pair that a table of two columns tells; of several with one name the first."""
    pairs = [row for table in tables for row in table if len(row) == 2]
    return dict(reversed(pairs))
