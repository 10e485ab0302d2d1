"""Paths on this machine: checks of names, of folders to write into and of free memory, and files
that are replaced atomically.
"""

import errno
import gc
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distvae.files.refusal import DISK_FAILED, DISK_FULL, Refusal, cause, shown
from distvae.system import available_memory

TIFF = (".tif", ".tiff")
"""Picture formats with floats and with several pictures in a file."""
DEEP_PICTURES = (".png", *TIFF)
"""Picture formats with 16 bits."""
TRANSPARENT = (*DEEP_PICTURES, ".webp")
"""Picture formats with transparency."""
PICTURES = (*DEEP_PICTURES, ".jpg", ".jpeg", ".bmp", ".webp", ".pgm", ".ppm")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3")


PATH_ERRORS = (
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)
"""System errors caused by the named path."""
MARGIN_OF_NAME = 40
"""The largest number of bytes that a temporary or neighbouring file adds to the name of a file."""
MARGIN_OF_PATH = 256
"""Bytes reserved for paths below a folder."""
LONGEST_NAME, LONGEST_PATH = 255, 4096
"""The largest number of bytes in a name and in a path that the system allows."""


def given_path(value: object, named: str) -> Path:
    """Return the path in the argument with this name."""
    if not isinstance(value, str | os.PathLike):
        raise Refusal(f"{named}: {shown(value)}; a path expected")
    return Path(value)


def resolve_path(path: str | Path, source: str = "") -> Path:
    """Return a path without `~` and links. `source` is the setting with the path."""
    named = f"{source}: {path}" if source else str(path)
    with refusing_bad_paths(named, "a path of this machine expected"):
        found = Path(path).expanduser().resolve()
        found.exists()
    return found


@contextmanager
def refusing_bad_paths(named: str, expected: str) -> Iterator[None]:
    """Raise `Refusal` for a path that the system or Python does not accept."""
    try:
        yield
    except Refusal:
        raise
    # RuntimeError is raised for ~nobody and for links that form a circle
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or cause(error)
        raise Refusal(f"{named}: {reason}; {expected}") from error


def check_path_name(path: Path) -> None:
    """Raise an error for a path at which nothing should be written.

    Refused paths are URIs, an unexpanded `~`, names that are not text, and names too long for files
    beside or below the path.
    """
    if re.match(r"\w+:/", str(path)):
        uri = re.sub(":/+", "://", str(path), count=1)  # a `Path` has only one of the two slashes
        raise Refusal(f"{uri}: a URI; a place of this machine expected")
    if str(path).startswith("~"):
        raise Refusal(
            f"{path}: begins with '~', which the shell has not replaced; the whole path expected"
        )
    absolute = path.absolute()
    str(absolute).encode()
    longest = max(len(os.fsencode(part)) for part in absolute.parts)
    name_fits = longest + MARGIN_OF_NAME <= LONGEST_NAME
    path_fits = len(os.fsencode(absolute)) + MARGIN_OF_PATH <= LONGEST_PATH
    if not (name_fits and path_fits):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def is_writable(folder: Path) -> bool:
    """Return whether a file can be created in a folder, by creating and deleting a file.

    Permissions do not tell: nobody can create a file below /proc.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".distvae-", dir=folder):
            return True
    except OSError as error:
        if error.errno in (*DISK_FULL, *DISK_FAILED):
            raise
        return False


PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial(\.[^.]*)?")
"""The names that `partial_name` returns."""


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which becomes `path` when the block ends without an error.

    The file is on the disk before it gets its name, so a power cut leaves either the old or the new
    file.
    """
    partial = path.with_name(partial_name(path.name))
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def partial_name(name: str) -> str:
    """Return a hidden temporary name for a file. It keeps the suffix, which tells libraries the
    format.
    """
    path = Path(name)
    return f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}"


def finished_name(name: str) -> str:
    """Return the final name of a file from its hidden temporary name, or ''."""
    found = PARTIAL.fullmatch(name)
    return found[1] + (found[2] or "") if found else ""


def delete_partials(path: Path) -> None:
    """Delete the temporary files that killed writers of this file have left beside it."""
    for each in path.parent.iterdir():
        if finished_name(each.name) == path.name:
            each.unlink()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def check_new_file(path: Path, suffixes: tuple[str, ...], force: bool) -> None:
    """Raise `Refusal` if a file cannot be written, or has another suffix, or exists already."""
    if path.suffix.lower() not in suffixes:
        raise Refusal(
            f"{path}: {shown(path.suffix)} is no kind of file for this result;"
            f" {' or '.join(suffixes)} expected"
        )
    with refusing_bad_paths(str(path), "another name expected"):
        check_path_name(path)
        if path.is_dir():
            raise Refusal(f"{path}: a folder; the name of a file expected")
        if not (path.parent.is_dir() and is_writable(path.parent)):
            raise Refusal(
                f"{path}: cannot write into {path.parent}; an existing, writable folder expected"
            )
    if path.exists() and not force:
        raise Refusal(f"{path}: exists; another name or --force expected")


def check_writable_folder(folder: Path) -> None:
    """Raise `Refusal` if a folder can be neither created nor written into. Leave nothing behind."""
    with refusing_bad_paths(str(folder), "another name expected"):
        check_path_name(folder)
        above = (folder, *folder.absolute().parents)
        existing = next(place for place in above if os.path.lexists(place))
        if not (existing.is_dir() and is_writable(existing)):
            raise Refusal(
                f"{folder}: cannot write into {existing}; a writable folder, or one that can be"
                " made, expected"
            )


def prepare_folder(path: Path, force: bool) -> None:
    """Create a folder for several files. Refuse a folder that is not empty, unless `force`."""
    with refusing_bad_paths(str(path), "another name expected"):
        if path.is_dir() and any(path.iterdir()) and not force:
            raise Refusal(f"{path}: exists and is not empty; another name or --force expected")
    make_folder(path)


def make_folder(path: Path) -> None:
    """Create a folder if it does not exist, and check that it can be written into."""
    with refusing_bad_paths(str(path), "a folder that can be made expected"):
        check_path_name(path)
        path.mkdir(parents=True, exist_ok=True)
        if not is_writable(path):
            raise Refusal(f"{path}: cannot be written into; a writable folder expected")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which becomes `path` when the block ends without an error.

    A device or a pipe is not replaced: the content is copied into it. An `OSError` becomes a
    `Refusal` that names the file.
    """
    is_special = path.exists() and not path.is_file()
    writing = _copied_into(path) if is_special else replaced_file(path)
    try:
        with writing as temporary:
            yield temporary
    except OSError as error:
        raise Refusal(
            f"{path}: {error.strerror or error}; a disk with room and a writable folder expected"
        ) from error


@contextmanager
def _copied_into(special: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        temporary = Path(scratch) / partial_name(special.name)
        yield temporary
        special.write_bytes(temporary.read_bytes())


class MemoryShortage(Refusal):
    """More memory is needed than the machine has free."""


def require_memory(source: str | Path, needed: int, what: str, expected: str = "") -> None:
    """Raise `MemoryShortage` if `what` needs more than the free bytes of memory.

    The message names the source, which is a file or a setting, and the expected value.
    """
    free = available_memory()
    if needed <= free:
        return
    message = f"{source}: {what} need {gigabytes(needed)} of memory, but {gigabytes(free)} are free"
    raise MemoryShortage(f"{message}; {expected} expected" if expected else message)


def gigabytes(count: int) -> str:
    """Return a number of bytes as text: in GB, or in MB or kB if it is below one GB or MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"


@contextmanager
def collecting_later() -> Iterator[None]:
    """Collect no garbage until `collect_from_now_on` is called, or until the block ends.

    Imported modules stay in memory. Not scanning them saves a fifth of the import time.
    """
    gc.disable()
    try:
        yield
    finally:
        collect_from_now_on()


def collect_from_now_on() -> None:
    """Collect garbage again, only among objects that are created from now on."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
