"""Pictures and sounds inside a page, as data URLs."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding

if TYPE_CHECKING:
    from soundfile import SoundFile

MAX_PICTURE_BYTES = 50_000
"""Larger pictures are embedded with fewer pixels, compressed by WebP."""
MAX_WIDTH = 1200
"""The width in pixels that larger pictures are reduced to."""
QUALITY = 70
"""The quality of WebP, from 0 to 100."""
MAX_SECONDS = 15
"""The length of the excerpt embedded of a recording."""
COMPRESSION = 0.3
"""Vorbis' compression, from 0 (best quality) to 1 (smallest)."""


class Embedded(NamedTuple):
    """A sound of a page."""

    name: str
    url: str
    """Its data; empty if the page has it already."""


class Sounds:
    """The sounds of a page; those with the same content are embedded once."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}

    def embed(self, file: Path) -> Embedded:
        """Return the name of a sound on the page, and its data the first time."""
        content = file.read_bytes()
        if content in self._names:
            return Embedded(self._names[content], "")
        self._names[content] = f"sound-{len(self._names) + 1}"
        return Embedded(self._names[content], sound(file))


def picture(path: Path) -> str:
    """Return a PNG as a data URL; a large one is compressed."""
    content = path.read_bytes()
    if len(content) > MAX_PICTURE_BYTES:
        with decoding(path, "a picture written by the evaluation"):
            return _data_url("image/webp", _reduce(content))
    return _data_url("image/png", content)


def _reduce(content: bytes) -> bytes:
    """Return the picture as WebP, no wider than a page."""
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.thumbnail((MAX_WIDTH, 10 * MAX_WIDTH))
        image.convert("RGB").save(stream, format="WEBP", quality=QUALITY)
    return stream.getvalue()


def sound(path: Path) -> str:
    """Return the beginning of a recording as a data URL, compressed by Vorbis."""
    import soundfile

    stream = io.BytesIO()
    try:
        with soundfile.SoundFile(path) as file:
            _compress(file, stream)
    except soundfile.LibsndfileError as error:
        why = error.error_string.rstrip(".")
        raise Refusal(
            f"{path}: cannot be read ({why}); a sound written by the evaluation expected"
        ) from error
    return _data_url("audio/ogg", stream.getvalue())


def _compress(file: "SoundFile", stream: io.BytesIO) -> None:
    """Write the beginning of a recording, a second at a time."""
    import soundfile

    rate = file.samplerate
    with soundfile.SoundFile(
        stream, "w", rate, file.channels, "VORBIS", format="OGG", compression_level=COMPRESSION
    ) as compressed:
        for block in file.blocks(rate, frames=MAX_SECONDS * rate):
            compressed.write(block)


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
