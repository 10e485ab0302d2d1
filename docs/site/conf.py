"""The documentation as a site: `make docs` builds it into build/site.

The sources are the unchanged pages of the repository, so that links work both on a Git host and
here.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from docs.site.notebook_pages import page_of_notebook
from docs.site.signatures import written_signature

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
REDIRECT = '<!doctype html><meta http-equiv="refresh" content="0; url=README.html">'

project = "distvae"
html_title = "distvae"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**"]
exclude_patterns = [
    ".*",
    "build",
    "runs",
    "distvae",
    "tests",
    "docs/log",
    "docs/site",
]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}

myst_heading_anchors = 6
myst_enable_extensions = ["html_image"]

highlight_language = "none"  # of blocks without a language
smartquotes = False

default_role = "code"  # docstrings mark names as Markdown does
autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    "exclude-members": "kind, estep, least_rows, set_inverse_transform_request",
}
add_module_names = False
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 88

html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_show_sphinx = False
html_show_copyright = False


def setup(app: "Sphinx") -> None:
    """Add notebooks, the navigation, and signatures as written in the source."""
    app.connect("source-read", read_notebook)
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-signature", written_signature)
    app.connect("build-finished", add_index)


def read_notebook(app: "Sphinx", name: str, source: list[str]) -> None:
    """Replace the file of a notebook by its page."""
    if app.env.doc2path(name).suffix == ".ipynb":
        source[0] = page_of_notebook(source[0])


def add_navigation(app: "Sphinx", name: str, source: list[str]) -> None:
    """Add lists of subpages to a page. A Git host shows the page without them."""
    lists = HERE / "navigation" / f"{name}.md"
    if lists.is_file():
        source[0] += lists.read_text()


def add_index(app: "Sphinx", error: Exception | None) -> None:
    """Redirect a browser that opens the folder to the first page."""
    (Path(app.outdir) / "index.html").write_text(REDIRECT)
