"""Work on many files at once: list them, hash them, and map over them in order with a progress
bar.
"""

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, TypeVar

from distvae.data.splits import split_of_word
from distvae.files.refusal import Refusal
from distvae.system.processors import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")
SHOWN = 5
"""Names that are told where there may be many."""


def list_files(root: Path, suffixes: Collection[str]) -> list[str]:
    """Return every file under a folder with one of some suffixes, relative to the folder and
    sorted. Hidden files are left out. Symbolic links are followed, and no folder is listed twice.
    """
    found, real_root = [], root.resolve()
    places = {real_root: root}
    for folder, folders, names in os.walk(root, onerror=_unreadable, followlinks=True):
        visible = (Path(folder, name) for name in sorted(folders) if not name.startswith("."))
        folders[:] = [path.name for path in visible if _is_new(path, root, real_root, places)]
        paths = (Path(folder, name) for name in names if not name.startswith("."))
        found += [
            path.relative_to(root)
            for path in paths
            if path.suffix.lower() in suffixes and path.is_file()
        ]
    return sorted_names(path.as_posix() for path in found)


def _is_new(folder: Path, root: Path, real_root: Path, places: dict[Path, Path]) -> bool:
    """Return whether the files of a folder are not listed under another name, and note its place.

    Refuse a link that states another split of files that are listed.
    """
    target = folder.resolve()
    if folder.is_symlink():
        if any(place.is_relative_to(target) for place in (real_root, folder.parent.resolve())):
            return False  # a loop
        if target.is_relative_to(real_root) and not _is_hidden(target, real_root):
            places.setdefault(target, root / target.relative_to(real_root))
    listed = places.setdefault(target, folder)
    if listed != folder and _split(folder, root) not in (None, _split(listed, root)):
        raise Refusal(
            f"{folder}: a link to the files of {listed}, which would be in two splits; one split"
            " for each file expected"
        )
    return listed == folder


def _split(folder: Path, root: Path) -> str | None:
    """Return the split that the top folder states, of a folder below it."""
    top, *_ = folder.relative_to(root).parts
    return split_of_word(top)


def _is_hidden(folder: Path, root: Path) -> bool:
    """Return whether a folder or one that it lies in, up to a root, is hidden."""
    return any(part.startswith(".") for part in folder.relative_to(root).parts)


def describe_unread(root: Path, suffixes: Collection[str]) -> str:
    """Return a note on files under a folder of kinds that are not read here, or "" if there are
    none.
    """
    kinds = Counter(Path(name).suffix.lower() for name in list_files(root, suffixes))
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    return f"left out, of kinds that are not read here: {counts}" if kinds else ""


def some_names(names: Sequence[str]) -> str:
    """Return the first few of some names, and how many more there are."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _unreadable(error: OSError) -> NoReturn:
    raise Refusal(
        f"{error.filename}: {error.strerror}; a folder that can be read expected"
    ) from error


def sorted_names(names: Iterable[str]) -> list[str]:
    """Return the names of files in order. Refuse a name that is not text, because it cannot be
    written down.
    """
    found = sorted(names)
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise Refusal(
                f"{name!r}: a name that is not in UTF-8; rename the file, such as with convmv"
            ) from error
    return found


def digests(paths: Iterable[Path]) -> list[str]:
    """Return the SHA-256 of every file; refuse one that cannot be read."""
    with ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(digest, paths))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file; refuse one that cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; a readable file expected") from error


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map a function over items in threads, a few items ahead, and yield the results in order. Only
    a few results are in memory at a time.
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


def or_refusal(function: Callable[[Item], Result]) -> Callable[[Item], Result | Refusal]:
    """Return a function that returns a refusal instead of raising it."""

    def attempt(item: Item) -> Result | Refusal:
        try:
            return function(item)
        except Refusal as refusal:
            return refusal

    return attempt


def with_progress(items: Iterable[Item], title: str, total: int, quiet: bool) -> Iterator[Item]:
    """Yield the items under a progress bar, if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    yield from track(items, title, total, console=console, disable=hidden, transient=True)
