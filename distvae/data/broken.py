"""Files of a folder that cannot be decoded, or are silent. Each is decoded once, and what was found
is kept in the cache by content.
"""

import hashlib
import json
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from distvae.data import files, folders
from distvae.files.memory import MemoryShortage
from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_json

FORMAT = 2  # of the kept file; a change makes old ones unknown
REASONS = "broken.json"


class Decode(Protocol):
    """A function that decodes a whole file, and refuses a damaged or silent one."""

    __name__: str

    def __call__(self, path: Path, /) -> object:
        """Decode a file."""


def find_broken(root: Path, names: Sequence[str], decode: Decode, quiet: bool) -> dict[str, str]:
    """Return the files of a folder that cannot be decoded, each with the reason."""
    paths = [root / name for name in names]
    digests = files.digests(paths)
    # the name of an MP3 decides how it is decoded
    contents = [
        f"{digest}{path.suffix.lower()}" for path, digest in zip(paths, digests, strict=True)
    ]
    distinct = dict(zip(contents, paths, strict=True))
    what = [FORMAT, decode.__name__, sorted(distinct)]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    folder = folders.cache_folder() / "broken" / key
    folders.build_once(folder, lambda part: _decode_all(part / REASONS, distinct, decode, quiet))
    reasons = read_json(folder / REASONS)
    return {
        name: f"{root / name}: {reasons[content]}"
        for name, content in zip(names, contents, strict=True)
        if content in reasons
    }


def _decode_all(target: Path, distinct: dict[str, Path], decode: Decode, quiet: bool) -> None:
    """Decode a file of each content, and write why some cannot be."""
    found = files.map_in_order(lambda path: _reason(path, decode), distinct.values())
    shown = files.with_progress(found, "Decoding every file", len(distinct), quiet)
    reasons = {content: reason for content, reason in zip(distinct, shown, strict=True) if reason}
    target.write_text(json.dumps(reasons))


def _reason(path: Path, decode: Decode) -> str:
    """Return why a file cannot be decoded, or "". A shortage of memory says nothing of the file."""
    try:
        decode(path)
    except MemoryShortage:
        raise
    except Refusal as refusal:
        return str(refusal).removeprefix(f"{path}: ")
    return ""


def describe_skipped(broken: Collection[str]) -> str:
    """Return a note on files that are left out because they are broken, or "" if there are none."""
    if not broken:
        return ""
    count = "1 broken file" if len(broken) == 1 else f"{len(broken):,} broken files"
    return f"{count} skipped: {files.some_names(sorted(broken))}"


def refuse_lost_splits(
    root: Path, broken: dict[str, str], found: Iterable[str], kept: Iterable[str]
) -> None:
    """Refuse a folder that has only broken files in one of the splits that were found in it."""
    lost = sorted(set(found) - set(kept))
    if lost:
        where = f" of {' and '.join(lost)}" if any(lost) else ""
        reason = next(iter(broken.values()))
        raise Refusal(
            f"{root}: every file{where} is broken, such as {reason}; one or more that can be"
            " decoded expected"
        )


@contextmanager
def hinting_at_broken(root: Path, skipped: bool) -> Iterator[None]:
    """Add to the refusal of a file what finds the others and what leaves them out, unless they are
    left out already.
    """
    try:
        yield
    except Refusal as refusal:
        if skipped or root.is_file() or isinstance(refusal, MemoryShortage):
            raise
        raise Refusal(
            f"{refusal}; 'distvae data check {shlex.quote(str(root))}' names every file that cannot"
            " be read, and data.skip_broken=true leaves them out"
        ) from refusal
