"""What a sweep or a run found, as one page that needs nothing else: HTML to show around, and a twin
in Markdown.
"""

from pathlib import Path

from distvae.files.output import atomic_file, check_new_file
from distvae.files.refusal import Refusal
from distvae.report.markdown import MARK, markdown
from distvae.report.page import GENERATOR, html
from distvae.report.public import places, public
from distvae.report.reading import Evidence, Sweep, read
from distvae.report.runs import of_run
from distvae.report.sweeps import of_sweep

NAME = "report.html"
"""The page's file in the folder that it tells of."""
PUBLIC = "report.public.html"
"""And that of the one that may be published."""
SUFFIXES = (".html", ".htm")
HEAD = 2000
"""So many characters of a file say whether it is a report."""


def write(
    source: Path,
    out: Path | None = None,
    force: bool = False,
    against: Path | None = None,
    publish: bool = False,
) -> Path:
    """Write the page of a sweep's or a run's folder and its twin beside it; where the page is.

    A sweep may be held against another one. What is to be published has no recordings, and names in
    the place of paths.
    """
    told = read(source)
    other = None if against is None else _other(told, against)
    page = out or source / (PUBLIC if publish else NAME)
    twin = page.with_suffix(".md")
    check_new_file(page, SUFFIXES, force or _ours(page, GENERATOR))
    check_new_file(twin, (".md",), force or _ours(twin, MARK))
    document = of_sweep(told, other) if isinstance(told, Sweep) else of_run(told)
    if publish:
        document = public(
            document, [place for each in (told, other) if each for place in places(each)]
        )
    _keep(page, html(document))
    _keep(twin, markdown(document, None if publish else twin.parent))
    return page


def _other(told: Sweep | Evidence, folder: Path) -> Sweep:
    """The sweep that another is held against."""
    other = read(folder)
    if isinstance(told, Sweep) and isinstance(other, Sweep):
        return other
    run = other if isinstance(told, Sweep) else told
    raise Refusal(f"--against: {run.folder}: a run; two sweeps expected")


def _ours(path: Path, mark: str) -> bool:
    """Whether a file is a report, which may always be written anew."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return mark in file.read(HEAD)


def _keep(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
