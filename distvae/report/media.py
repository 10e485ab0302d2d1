"""Pictures, diagrams and sounds inside a page, as data URLs."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PICTURE_BYTES = 50_000
"""Larger pictures are embedded with fewer pixels, compressed by WebP."""
MAX_WIDTH = 1200
"""The largest width in pixels of a compressed picture."""
QUALITY = 70
"""The quality of WebP, from 0 to 100."""
MAX_SECONDS = 15
"""The length of the embedded excerpt of a recording."""
COMPRESSION = 0.3
"""Vorbis' compression, from 0 (best quality) to 1 (smallest)."""


def drawing(figure: "Figure") -> str:
    """Return a diagram as SVG. The SVG is the same each time it is drawn."""
    import matplotlib as mpl

    stream = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "distvae"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return _data_url("image/svg+xml", stream.getvalue())


def picture(path: Path) -> str:
    """Return a PNG as a data URL. A large PNG is compressed."""
    from PIL import Image

    content = path.read_bytes()
    if len(content) <= MAX_PICTURE_BYTES:
        return _data_url("image/png", content)
    stream = io.BytesIO()
    with (
        decoding(path, "a picture written by the evaluation"),
        Image.open(io.BytesIO(content)) as image,
    ):
        image.thumbnail((MAX_WIDTH, 10 * MAX_WIDTH))
        image.convert("RGB").save(stream, format="WEBP", quality=QUALITY)
    return _data_url("image/webp", stream.getvalue())


def sound(path: Path) -> str:
    """Return the beginning of a recording, compressed by Vorbis in blocks of a second."""
    from soundfile import LibsndfileError, SoundFile

    stream = io.BytesIO()
    try:
        with SoundFile(path) as file:
            form = (file.samplerate, file.channels, "VORBIS", None, "OGG")
            with SoundFile(stream, "w", *form, compression_level=COMPRESSION) as compressed:
                for block in file.blocks(file.samplerate, frames=MAX_SECONDS * file.samplerate):
                    compressed.write(block)
    except LibsndfileError as error:
        why = error.error_string.rstrip(".")
        raise Refusal(
            f"{path}: cannot be read ({why}); a sound written by the evaluation expected"
        ) from error
    return _data_url("audio/ogg", stream.getvalue())


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
