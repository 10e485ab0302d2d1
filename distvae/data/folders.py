"""Folders of data: the files in them, broken files, and the cache of computed results.

A folder may come from anyone. It is listed with the links in it, but no file is listed twice, and
no link puts a file into a second split. Data on a storage that many machines share is copied to the
disk of each machine once.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from distvae.config import DataConfig
from distvae.files.paths import MemoryShortage, resolve_path
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder, without_password
from distvae.files.untrusted import read_json
from distvae.numerics.metrics import counted
from distvae.system import available_cores

if TYPE_CHECKING:
    from filelock import FileLock

Item = TypeVar("Item")
Result = TypeVar("Result")
SPLITS = ("train", "val", "test")
SPLIT_WORDS = {name: name for name in SPLITS} | dict.fromkeys(("dev", "valid", "validation"), "val")
"""The split that each usual name of a folder stands for."""
SHOWN = 5
"""Names in a message about many files."""
FORMAT = 2
"""Version of the cached list of broken files. Another version decodes the files again."""
REASONS = "broken.json"
TOLD_AFTER = 5.0
"""Seconds of a wait for another process after which the user is told."""


def split_of_word(word: str) -> str | None:
    """Return the split that a word names, also as in dev-clean, or None."""
    return SPLIT_WORDS.get(re.split(r"[-_]", word.lower())[0])


def find_data_folder(path: str, kind: str, expected: str) -> Path:
    """Return the folder at `path`, otherwise $DISTVAE_DATA (or its sub-folder `kind`). Refuse
    neither of them; the message says what is expected.
    """
    if path:
        return _existing(Path(path), "data.path")
    variable = os.environ.get("DISTVAE_DATA")
    if not variable:
        raise Refusal(f"data.path: empty, and $DISTVAE_DATA is not set; {expected}")
    folder = _existing(Path(variable), "$DISTVAE_DATA")
    return folder / kind if (folder / kind).is_dir() else folder


def _existing(path: Path, source: str) -> Path:
    folder = resolve_path(path, source)
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        way = f"; 'distvae data check {path}' says how it can be used" if folder.is_file() else ""
        raise Refusal(f"{source}: {path} {problem}; a folder of data expected{way}")
    return folder


def list_files(root: Path, suffixes: Collection[str]) -> list[str]:
    """Return the files below a folder that have one of the suffixes, relative to it and sorted.

    Hidden files are left out. Links to folders are followed, but no folder is listed twice.
    """

    def refuse(error: OSError) -> None:
        raise Refusal(
            f"{error.filename}: {error.strerror}; a folder that can be read expected"
        ) from error

    found, real_root = [], root.resolve()
    listed_as = {real_root: root}
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        visible = (Path(folder, name) for name in sorted(folders) if not name.startswith("."))
        folders[:] = [path.name for path in visible if _is_new(path, root, real_root, listed_as)]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in suffixes and path.is_file():
                found.append(path.relative_to(root).as_posix())
    return sorted_names(found)


def _is_new(folder: Path, root: Path, real_root: Path, listed_as: dict[Path, Path]) -> bool:
    """Return whether a folder is not listed under another name yet, and note its name.

    Refuse a link that names another split for files that are listed already.
    """
    target = folder.resolve()
    if folder.is_symlink():
        if any(place.is_relative_to(target) for place in (real_root, folder.parent.resolve())):
            return False  # a loop
        if target.is_relative_to(real_root):
            below = target.relative_to(real_root)
            if not any(part.startswith(".") for part in below.parts):
                listed_as.setdefault(target, root / below)
    first = listed_as.setdefault(target, folder)
    split, first_split = (
        split_of_word(each.relative_to(root).parts[0]) for each in (folder, first)
    )
    if first != folder and split not in (None, first_split):
        raise Refusal(
            f"{folder}: a link to the files of {first}, which would be in two splits; one split"
            " for each file expected"
        )
    return first == folder


def sorted_names(names: Iterable[str]) -> list[str]:
    """Return the names of files in order. Refuse a name that is not in UTF-8."""
    found = sorted(names)
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise Refusal(
                f"{name!r}: a name that is not in UTF-8; rename the file, such as with convmv"
            ) from error
    return found


def describe_unread(root: Path, suffixes: Collection[str]) -> str:
    """Return a note on the files below a folder whose kinds are not read, or ""."""
    kinds = Counter(Path(name).suffix.lower() for name in list_files(root, suffixes))
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    return f"left out, of kinds that are not read here: {counts}" if kinds else ""


def some_names(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file; refuse a file that cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; a readable file expected") from error


def key_of(facts: object) -> str:
    """Return the SHA-256 of facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def digests(paths: Iterable[Path]) -> list[str]:
    """Return the SHA-256 of each file."""
    return list(map_in_order(digest, paths))


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map a function over items in threads, and yield the results in order.

    Only a few results are in memory at a time.
    """
    threads = available_cores()
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def with_progress(items: Iterable[Item], title: str, total: int, quiet: bool) -> Iterator[Item]:
    """Yield the items under a progress bar, if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    yield from track(items, title, total, console=console, disable=hidden, transient=True)


def cache_folder() -> Path:
    """Return $DISTVAE_CACHE, otherwise $XDG_CACHE_HOME/distvae, otherwise ~/.cache/distvae."""
    if chosen := os.environ.get("DISTVAE_CACHE"):
        return resolve_path(chosen, "$DISTVAE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "distvae"


def build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Build a folder unless it exists. One process builds the folder while others wait.

    The folder gets its name when it is complete, so a killed or failed build leaves nothing behind.
    """
    from filelock import FileLock

    if folder.is_dir():
        return
    part = folder.with_name(f"{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(FileLock(f"{folder}.lock"), folder):
            if folder.is_dir():
                return
            try:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                build(part)
                part.replace(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise Refusal(
            f"{folder.parent}: {error.strerror or error}; make room, or set DISTVAE_CACHE to"
            " another folder"
        ) from error


@contextmanager
def _locked(lock: "FileLock", folder: Path) -> Iterator[None]:
    """Hold a lock; say so if another process holds it for long. A process that ends releases it."""
    from filelock import Timeout

    try:
        lock.acquire(TOLD_AFTER)
    except Timeout:
        print(f"distvae: waiting for another process, which prepares {folder}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Decode(Protocol):
    """A function that decodes a whole file, and refuses a damaged or silent file."""

    __name__: str

    def __call__(self, path: Path, /) -> object:
        """Decode a file."""


def find_broken(root: Path, names: Sequence[str], decode: Decode, quiet: bool) -> dict[str, str]:
    """Return the files of a folder that cannot be decoded, each with the reason.

    Each content is decoded once, and the reasons are kept in the cache.
    """
    paths = [root / name for name in names]
    # the suffix belongs to the content, because the decoder of MP3 is chosen by it
    contents = [
        f"{known}{path.suffix.lower()}" for path, known in zip(paths, digests(paths), strict=True)
    ]
    distinct = dict(zip(contents, paths, strict=True))

    def reason(path: Path) -> str:
        try:
            decode(path)
        except MemoryShortage:
            raise  # which says nothing about the file
        except Refusal as refusal:
            return str(refusal).removeprefix(f"{path}: ")
        return ""

    def write_reasons(part: Path) -> None:
        found = map_in_order(reason, distinct.values())
        shown = with_progress(found, "Decoding every file", len(distinct), quiet)
        reasons = {content: why for content, why in zip(distinct, shown, strict=True) if why}
        (part / REASONS).write_text(json.dumps(reasons))

    folder = cache_folder() / "broken" / key_of([FORMAT, decode.__name__, sorted(distinct)])
    build_once(folder, write_reasons)
    reasons = read_json(folder / REASONS)
    return {
        name: f"{root / name}: {reasons[content]}"
        for name, content in zip(names, contents, strict=True)
        if content in reasons
    }


def leave_out_broken(
    root: Path, splits: Mapping[str, str], decode: Decode, skip: bool, quiet: bool
) -> tuple[dict[str, str], str]:
    """Return the broken files of a folder with the reasons, and a note on them; nothing unless
    `skip`. `splits` has the split of each file. Refuse a folder in which all files of a split are
    broken.
    """
    broken = find_broken(root, [*splits], decode, quiet) if skip else {}
    if not broken:
        return {}, ""
    kept = {split for file, split in splits.items() if file not in broken}
    if lost := sorted({*splits.values()} - kept):
        where = f" of {' and '.join(lost)}" if any(lost) else ""
        reason = next(iter(broken.values()))
        raise Refusal(
            f"{root}: every file{where} is broken, such as {reason}; one or more that can be"
            " decoded expected"
        )
    return broken, f"{counted(len(broken), 'broken file')} skipped: {some_names(sorted(broken))}"


class Inspected(NamedTuple, Generic[Result]):
    """The files of a folder, as their headers describe them."""

    heads: dict[str, Result]
    """What the header of each file says that can be read."""
    unreadable: tuple[str, ...]
    """Why each other file cannot be read."""
    left_out: frozenset[str]
    """Broken files that are skipped, of which nothing else is said."""
    note: str
    """A note on the skipped files, or ""."""


def inspect(
    root: Path,
    splits: Mapping[str, str],
    head: Callable[[Path], Result],
    decode: Decode,
    decoded: bool,
    skip: bool,
) -> Inspected[Result]:
    """Return what the headers of files say. `splits` has the split of each file. Files are also
    decoded if `decoded` or `skip`; `skip` leaves broken files out.
    """
    broken, note = leave_out_broken(root, splits, decode, skip, quiet=False)
    if decoded and not skip:
        broken = find_broken(root, [*splits], decode, quiet=False)

    def attempt(name: str) -> Result | Refusal:
        try:
            return head(root / name)
        except Refusal as refusal:
            return refusal

    whole = [name for name in splits if name not in broken]
    unreadable, heads = [] if skip else [*broken.values()], dict[str, Result]()
    for name, found in zip(whole, map_in_order(attempt, whole), strict=True):
        if isinstance(found, Refusal):
            unreadable.append(str(found))
        else:
            heads[name] = found
    left_out = frozenset(broken) if skip else frozenset[str]()
    return Inspected(heads, tuple(unreadable), left_out, note)


@contextmanager
def hinting_at_broken(root: Path, skipped: bool) -> Iterator[None]:
    """Add to the error how to list all broken files and how to skip them, unless broken files are
    skipped already.
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


Settings = TypeVar("Settings", bound=DataConfig)


def is_remote(path: str) -> bool:
    """Return True for a URI."""
    return "://" in path


def fetch(config: Settings) -> Settings:
    """Return the settings with a path on this machine. Data at a URI is copied here first."""
    return replace(config, path=local_path(config.path)) if is_remote(config.path) else config


def local_path(path: str) -> str:
    """Return a path on this machine. Data at a URI is copied here first."""
    return str(download(path)) if is_remote(path) else path


def download(uri: str) -> Path:
    """Copy the folder or file at a URI to the cache, unless its present version is there already;
    return the copy.
    """
    if without_password(uri) != uri:
        advice = (
            "names and passwords belong in the environment, for runs keep the path of their data"
        )
        raise Refusal(f"data.path: {Folder(uri)}: {advice}")
    source = Folder(uri)
    files = _list_remote_files(source.with_short_timeout())
    known = key_of([str(source), files])[:16]
    folder, name = (
        cache_folder() / "data" / known,
        source.path.rstrip("/").rpartition("/")[2],
    )
    build_once(folder, lambda part: _copy(source, part / name, files))
    return folder / name


def _list_remote_files(source: Folder) -> list[tuple[str, int, str]]:
    """Return every file with its path below, its size, and when it was written."""
    from pyarrow.fs import FileSelector, FileType

    try:
        found = source.system.get_file_info([source.path])
        if found[0].type != FileType.File:
            found = source.system.get_file_info(FileSelector(source.path, recursive=True))
    except OSError as error:
        raise Refusal(
            f"data.path: {source}: {cause(error)}; a folder or file that can be read expected"
        ) from error
    found = [info for info in found if info.type == FileType.File]
    if not found:
        raise Refusal(f"data.path: {source}: holds no files; a folder of data expected")
    return sorted(
        (
            info.path[len(source.path) :].lstrip("/"),
            int(info.size),
            info.mtime.isoformat() if info.mtime else "",
        )
        for info in found
    )


def _copy(source: Folder, target: Path, files: list[tuple[str, int, str]]) -> None:
    from pyarrow.fs import LocalFileSystem, copy_files

    for folder in {(target / name).parent for name, _, _ in files}:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        copy_files(
            source.path,
            str(target),
            source_filesystem=source.system,
            destination_filesystem=LocalFileSystem(),
        )
    except OSError as error:
        raise Refusal(
            f"data.path: {source}: {cause(error)}; data that can be brought to"
            f" {target.parent.parent} expected"
        ) from error
