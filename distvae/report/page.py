"""A report as one self-contained HTML page, with pictures and sounds inside it."""

import base64
import io
from pathlib import Path

from distvae.files.refusal import Refusal
from distvae.report.blocks import Document, Sound

GENERATOR = '<meta name="generator" content="distvae report">'
"""The mark by which a report is recognised."""
TEMPLATES = Path(__file__).parent
MAX_PICTURE_BYTES = 500_000
"""Larger pictures are embedded with fewer colours and pixels."""
MAX_WIDTH = 1200
"""The width in pixels that larger pictures are reduced to."""
MAX_SECONDS = 15
"""The length of the excerpt embedded of a recording."""


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
        "picture": picture,
        "sound": sound,
        "kind": lambda block: type(block).__name__,
    }
    style, script = (
        (TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "sort.js")
    )
    return jinja.get_template("page.html.j2").render(
        document=document,
        generator=GENERATOR,
        style=style,
        script=script,
        version=provenance()["versions"]["distvae"],
    )


def picture(path: Path) -> str:
    """Return a PNG as a data URL."""
    content = path.read_bytes()
    if len(content) > MAX_PICTURE_BYTES:
        content = _reduce(content)
    return _data_url("image/png", content)


def _reduce(content: bytes) -> bytes:
    """Return the picture with 256 colours, no wider than a page."""
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.thumbnail((MAX_WIDTH, 10 * MAX_WIDTH))
        image.convert("RGB").quantize(256).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def sound(recording: Sound) -> str:
    """Return the beginning of a recording, compressed without loss, as a data URL."""
    import soundfile

    stream = io.BytesIO()
    try:
        with soundfile.SoundFile(recording.file) as file:
            rate = file.samplerate
            samples = file.read(MAX_SECONDS * rate, dtype="int16")
    except soundfile.LibsndfileError as error:
        why = error.error_string.rstrip(".")
        raise Refusal(
            f"{recording.file}: cannot be read ({why}); a sound written by the evaluation expected"
        ) from error
    soundfile.write(stream, samples, rate, format="FLAC", subtype="PCM_16")
    return _data_url("audio/flac", stream.getvalue())


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
