"""Sound files whose end is missing. The decoder itself notices only in FLAC."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soundfile import SoundFile

WAV = ("WAV", "WAVEX")
"""The names of the WAV format in libsndfile."""
UNKNOWN = 2**63 - 1
"""The length that libsndfile reports if none was written down."""
PIPE = 2**31 - 1
"""A WAV file announces so many bytes or more if its writer did not know."""
SPHERE_HEAD = 1024
"""Bytes of a NIST SPHERE file before its samples, which are text."""
SEARCHED = 2**16
"""Bytes in which the first frame of an MP3 begins."""
FRAME = rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xef]"
"""How a frame of MPEG audio begins: eleven bits that are set, a version, a layer, and a bit rate.
"""
ANNOUNCED = re.compile(
    FRAME + rb".(?:..)?(?:.{9}|.{17}|.{32})(?:Xing|Info)(?P<flags>.{4})", re.DOTALL
)
"""A frame in which the encoder says how long the stream is: header, checksum, side information."""
HAS_FRAMES, HAS_BYTES = 1, 2
"""Flags of what it says."""


def reaches_its_end(path: Path, sound: "SoundFile") -> bool:
    """Return True if the last sample that a file announces is there. The others are not decoded."""
    if _lacks_samples(path, sound):
        return False
    if sound.format in WAV:
        return True
    if sound.format == "OGG":
        return _ends_ogg(path.read_bytes())
    if sound.format == "MP3":
        # Seeking the last sample would make the decoder complain about what is missing.
        return _ends_mp3(_after_tag(path.read_bytes()))
    if sound.frames in (0, UNKNOWN):
        return True
    import soundfile

    try:
        sound.seek(sound.frames - 1)
        return len(sound.read(1)) == 1
    except soundfile.LibsndfileError:
        return False


def is_whole(path: Path, sound: "SoundFile", samples: int) -> bool:
    """Return True if a decoded file held all that it announces."""
    if _lacks_samples(path, sound):
        return False
    if sound.format == "OGG" and not _ends_ogg(path.read_bytes()):
        return False
    if sound.format in WAV or not _counts_frames(path, sound):
        return True
    return bool(samples >= sound.frames)


def is_mpeg(path: Path) -> bool:
    """Return True if a frame of MPEG audio follows the tags. Without one, the decoder searches and
    complains.
    """
    with path.open("rb") as stream:
        stream.seek(_tag_size(stream.read(10)))
        return re.search(FRAME, stream.read(SEARCHED)) is not None


def _lacks_samples(path: Path, sound: "SoundFile") -> bool:
    """Return True if the header of a file announces more samples than libsndfile finds in it."""
    if sound.format in WAV:
        wrong = re.search(r"data : (\d+) \(should be (\d+)\)", sound.extra_info)
        return wrong is not None and int(wrong[2]) < int(wrong[1]) < PIPE
    if sound.format == "RF64":
        told = re.search(r"'ds64' chunk of (\d+)", sound.extra_info)
        return told is not None and sound.frames < int(told[1]) < UNKNOWN
    if sound.format == "NIST":
        with path.open("rb") as stream:
            count = re.search(rb"sample_count -i (\d+)", stream.read(SPHERE_HEAD))
        return count is not None and sound.frames < int(count[1])
    return False


def _counts_frames(path: Path, sound: "SoundFile") -> bool:
    """Return True if the number of samples was written into the file. For an MP3 without it, the
    announced number is a guess.
    """
    return sound.format != "MP3" or bool(ANNOUNCED.search(_after_tag(path.read_bytes())))


def _ends_mp3(content: bytes) -> bool:
    """Return True if a stream has as many bytes as its first frame announces, or announces none."""
    first = ANNOUNCED.search(content, 0, SEARCHED)
    if first is None or not (flags := int.from_bytes(first["flags"])) & HAS_BYTES:
        return True
    place = first.end() + (4 if flags & HAS_FRAMES else 0)
    return len(content) - first.start() >= int.from_bytes(content[place : place + 4])


def _after_tag(content: bytes) -> bytes:
    """Return an MP3 without the ID3 tag at its beginning, whose text may be anything."""
    return content[_tag_size(content[:10]) :]


def _tag_size(head: bytes) -> int:
    """Return the bytes of the ID3 tag that begins with a head, 0 if it is none."""
    if head[:3] != b"ID3":
        return 0
    return 10 + sum(
        (byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False)
    )


def _ends_ogg(content: bytes) -> bool:
    """Return True if the last page is complete and marked as the last."""
    page = content[content.rfind(b"OggS") :]
    lengths = page[27 : 27 + page[26]] if len(page) > 27 else b""
    return len(page) >= 27 + len(lengths) + sum(lengths) and page[5] & 4 == 4
