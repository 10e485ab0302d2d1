"""A sweep whose trials are kept in an object store: no two machines need to share a disk.

The machine that trains a trial copies the trial's folder from the store and, now and then, to it.
The machine of the sweep copies what it ranks, shows and sends.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder, Stamp
from distvae.files.untrusted import path_inside

STORE_TICK = 2 * 10**9
"""Nanoseconds in which a store may give two versions of a file the same time."""
UNSETTLED: Stamp = (-1, -1)
"""Stands for a file so new that a later version could look the same: it is copied again."""


@dataclass
class Mirror:
    """A folder here, and the folder of an object store with the same files.

    Files whose names begin with a dot are not copied.
    """

    here: Path
    there: Folder
    without: str = "."
    """The beginning of the names of files that stay in the store."""
    _pulled: dict[str, Stamp] = field(default_factory=dict)
    """The files of the store that were copied from it, as they were then."""
    _pushed: dict[str, Stamp] = field(default_factory=dict)
    """The files here that the store has, as they were when they were copied."""

    def pull(self, below: str = "") -> None:
        """Copy files of the store that are new or have changed, or only the files of a subfolder.

        Delete files here that the store no longer has.
        """
        with self._naming_the_store():
            kept = self._wanted(self.there.stamps(below))
            newest = max((changed for _, changed in kept.values()), default=0)
            for name, stamp in kept.items():
                if self._pulled.get(name) != stamp:
                    path = path_inside(self.here, name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with suppress(FileNotFoundError):  # replaced since; the next call copies it
                        self.there.download(name, path)
                        settled = stamp[1] < newest - STORE_TICK
                        self._pulled[name] = stamp if settled else UNSETTLED
                        self._pushed[name] = _stamp(path)
        within = f"{below}/" if below else ""
        for name in [name for name in self._pulled if name.startswith(within)]:
            if name not in kept:
                path_inside(self.here, name).unlink(missing_ok=True)
                del self._pulled[name], self._pushed[name]

    def push(self) -> None:
        """Copy to the store the files here that are new or have changed.

        They are copied in the order in which they were written: if this is cut short, the store has
        a folder as a killed process leaves it.
        """
        local = self._wanted(dict(self._files()))
        changed = [name for name, stamp in local.items() if self._pushed.get(name) != stamp]
        # a manifest is written last, but the clock of a file system may not tell
        changed.sort(key=lambda name: (local[name][1], name.endswith(".json")))
        with self._naming_the_store():
            for name in changed:
                self.there.upload(self.here / name, name)
                self._pushed[name] = local[name]
            for name in self._pushed.keys() - local.keys():
                self.there.remove_file(name)
                del self._pushed[name]
                self._pulled.pop(name, None)

    def _wanted(self, files: Mapping[str, Stamp]) -> dict[str, Stamp]:
        def is_wanted(name: str) -> bool:
            *folders, plain = name.split("/")
            hidden = any(part.startswith(".") for part in (*folders, plain))
            return not (hidden or plain.startswith(self.without))

        return {name: stamp for name, stamp in files.items() if is_wanted(name)}

    def _files(self) -> Iterator[tuple[str, Stamp]]:
        for place, _, names in os.walk(self.here):
            for name in names:
                path = Path(place, name)
                with suppress(FileNotFoundError):  # a file that another thread replaces
                    yield path.relative_to(self.here).as_posix(), _stamp(path)

    @contextmanager
    def _naming_the_store(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Refusal(f"{self.there}: {cause(error)}; a store that answers expected") from error


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
