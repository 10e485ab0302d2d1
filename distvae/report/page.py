"""A report as one self-contained HTML page, with pictures and sounds inside it."""

import base64
import hashlib
from pathlib import Path

from distvae.numerics.glossary import meaning
from distvae.report.blocks import Document
from distvae.report.media import Sounds, picture

GENERATOR = '<meta name="generator" content="distvae report">'
"""The mark by which a report is recognised."""
TEMPLATES = Path(__file__).parent
SCRIPTS = ("sort.js", "columns.js", "gallery.js", "player.js", "overflow.js")


def html(document: Document) -> str:
    """Return the page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from distvae.files.provenance import provenance

    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {
        "meaning": meaning,
        "picture": picture,
        "sound": Sounds().embed,
        "kind": lambda block: type(block).__name__,
    }
    script = _script()
    return jinja.get_template("page.html.j2").render(
        document=document,
        generator=GENERATOR,
        policy=_policy(script),
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=script,
        version=provenance()["versions"]["distvae"],
    )


def _script() -> str:
    """Return the scripts of the page as one; each has names of its own."""
    parts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return '"use strict";\n' + "".join(f"{{\n{part}}}\n" for part in parts)


def _policy(script: str) -> str:
    """Return what a browser may load: data inside the page, and run: this script alone."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )
