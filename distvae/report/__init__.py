"""What a sweep or a run found, as one page that needs nothing else: HTML to show around, and a twin in Markdown."""

from pathlib import Path

from distvae.output import claim, whole
from distvae.report.markdown import MARK, markdown
from distvae.report.page import GENERATOR, html
from distvae.report.reading import Sweep, read
from distvae.report.runs import of_run
from distvae.report.sweeps import of_sweep

NAME = "report.html"
"""The page's file in the folder that it tells of."""
SUFFIXES = (".html", ".htm")
HEAD = 2000
"""So many characters of a file say whether it is a report."""


def write(source: Path, out: Path | None = None, force: bool = False) -> Path:
    """Write the page of a sweep's or a run's folder and its twin beside it; where the page is."""
    told = read(source)
    page = out or source / NAME
    twin = page.with_suffix(".md")
    claim(page, SUFFIXES, force or _ours(page, GENERATOR))
    claim(twin, (".md",), force or _ours(twin, MARK))
    document = of_sweep(told) if isinstance(told, Sweep) else of_run(told)
    _keep(page, html(document))
    _keep(twin, markdown(document, twin.parent))
    return page


def _ours(path: Path, mark: str) -> bool:
    """Whether a file is a report, which may always be written anew."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return mark in file.read(HEAD)


def _keep(path: Path, text: str) -> None:
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
