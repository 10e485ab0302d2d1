"""The documentation as a site: its navigation has every page, and its links lead somewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NAVIGATION = DOCS / "site" / "navigation"
TARGETS = {"a": "href", "link": "href", "img": "src", "script": "src", "audio": "src"}


def listed(lists: Path) -> set[str]:
    """Return the pages that a file of the navigation lists."""
    below = lists.read_text().split(":hidden:")[1:]
    return {
        line.lstrip("/") for part in below for line in re.findall(r"^/?[A-Za-z].*$", part, re.M)
    }


def test_the_navigation_lists_every_page_once() -> None:
    outside = (DOCS / "log", DOCS / "site")
    pages = [*DOCS.rglob("*.md"), *(DOCS / "notebooks").glob("*.ipynb")]
    pages = [page for page in pages if not any(map(page.is_relative_to, outside))]
    expected = {page.relative_to(ROOT).with_suffix("").as_posix() for page in pages}
    files = sorted(NAVIGATION.rglob("*.md"))
    found = [name for file in files for name in listed(file)]
    assert sorted(found) == sorted(expected | {"CHANGELOG", "CONTRIBUTING"})
    above = {file.relative_to(NAVIGATION).with_suffix("").as_posix() for file in files}
    assert above <= {*expected, "README"}


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, SplitResult]] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {value for name, value in attrs if name == "id" and value}
        if tag in TARGETS and (link := values.get(TARGETS[tag])):
            self.links.append((tag, urlsplit(link)))


@pytest.mark.long
@pytest.mark.skipif(find_spec("furo") is None, reason="the extra docs is not installed: make docs")
def test_the_site_has_no_broken_link_and_needs_no_network(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs/site"]
    places = ["-d", str(tmp_path / "doctrees"), ".", str(site)]
    done = subprocess.run(
        [sys.executable, *command, *places], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {file: Page(file.read_text()) for file in site.rglob("*.html")}
    assert site / "docs" / "api" / "estimators.html" in pages
    for file, page in pages.items():
        for tag, link in page.links:
            if link.scheme:
                assert tag == "a" or link.scheme == "data", f"{file.name}: {link}"
                continue
            target = (file.parent / unquote(link.path)).resolve() if link.path else file
            assert target.exists(), f"{file.name}: {link}"
            if link.fragment and target in pages:
                assert unquote(link.fragment) in pages[target].anchors, f"{file.name}: {link}"
