"""A report as one HTML page that needs nothing else: pictures and sounds are inside it."""

import base64
import io
from pathlib import Path

from distvae.files.refusal import Refusal
from distvae.report.blocks import Document, Sound

GENERATOR = '<meta name="generator" content="distvae report">'
"""How a page is known for one of ours."""
HERE = Path(__file__).parent
PLAIN = 500_000
"""Bytes up to which a picture is taken as it is; one that is larger has fewer colours and pixels.
"""
WIDE = 1200
SECONDS = 15
"""Of a recording that can be listened to."""


def html(document: Document) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from distvae.files.provenance import provenance

    jinja = Environment(
        loader=FileSystemLoader(HERE),
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
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "sort.js"))
    return jinja.get_template("page.html.j2").render(
        document=document,
        generator=GENERATOR,
        style=style,
        script=script,
        version=provenance()["versions"]["distvae"],
    )


def picture(path: Path) -> str:
    """A PNG as the address of itself."""
    content = path.read_bytes()
    return _address("image/png", content if len(content) <= PLAIN else _smaller(content))


def _smaller(content: bytes) -> bytes:
    """The picture with 256 colours, and no wider than a page."""
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.thumbnail((WIDE, 10 * WIDE))
        image.convert("RGB").quantize(256).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def sound(given: Sound) -> str:
    """The beginning of a recording, losslessly packed, as the address of itself."""
    import soundfile

    stream = io.BytesIO()
    try:
        with soundfile.SoundFile(given.file) as file:
            rate = file.samplerate
            samples = file.read(SECONDS * rate, dtype="int16")
    except soundfile.LibsndfileError as error:
        why = error.error_string.rstrip(".")
        raise Refusal(
            f"{given.file}: cannot be read ({why}); the sound that judging wrote expected"
        ) from error
    soundfile.write(stream, samples, rate, format="FLAC", subtype="PCM_16")
    return _address("audio/flac", stream.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
