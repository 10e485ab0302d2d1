"""Reports on sweeps and runs: one self-contained HTML page, and the same text as Markdown."""

from pathlib import Path

from distvae.files.output import atomic_file, check_new_file
from distvae.files.refusal import Refusal
from distvae.report.blocks import Document
from distvae.report.markdown import MARK, markdown
from distvae.report.page import GENERATOR, html
from distvae.report.public import private_paths, redact
from distvae.report.reading import RunResults, Sweep, read_results
from distvae.report.runs import run_report
from distvae.report.sweeps import sweep_report

NAME = "report.html"
"""The file name of a report in the folder that it describes."""
PUBLIC = "report.public.html"
"""The file name of a report that may be published."""
SUFFIXES = (".html", ".htm")
HEAD = 2000
"""The number of leading characters searched for the mark of a report."""


def write(
    source: Path,
    out: Path | None = None,
    force: bool = False,
    against: Path | None = None,
    publish: bool = False,
) -> Path:
    """Write the report on a sweep's or a run's folder as HTML and Markdown; return the HTML's path.

    `against` compares a sweep with another. `publish` leaves out recordings and replaces paths by
    names.
    """
    subject = read_results(source)
    other = None if against is None else _read_other(subject, against)
    page = out or source / (PUBLIC if publish else NAME)
    in_markdown = page.with_suffix(".md")
    check_new_file(page, SUFFIXES, force or _is_report(page, GENERATOR))
    check_new_file(in_markdown, (".md",), force or _is_report(in_markdown, MARK))
    document = _document(subject, other, publish)
    _write_text(page, html(document))
    _write_text(in_markdown, markdown(document, None if publish else in_markdown.parent))
    return page


def _document(subject: Sweep | RunResults, other: Sweep | None, publish: bool) -> Document:
    if isinstance(subject, Sweep):
        document = sweep_report(subject, other)
    else:
        document = run_report(subject)
    if not publish:
        return document
    paths = list(private_paths(subject))
    if other is not None:
        paths += private_paths(other)
    return redact(document, paths)


def _read_other(subject: Sweep | RunResults, folder: Path) -> Sweep:
    """Read the sweep that another is compared with."""
    other = read_results(folder)
    if isinstance(subject, Sweep) and isinstance(other, Sweep):
        return other
    run = other if isinstance(subject, Sweep) else subject
    raise Refusal(f"--against: {run.folder}: a run; two sweeps expected")


def _is_report(path: Path, mark: str) -> bool:
    """Return whether a file is a report, which may always be overwritten."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return mark in file.read(HEAD)


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
