"""What a folder has to tell of its run or sweep, on disk until MLflow has it."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distvae.storage import Folder

PENDING = "mlflow.pending.jsonl"
"""The file of a folder with what MLflow does not have yet, one entry a line."""
HEAD = "mlflow.json"
"""The file of a folder that remembers which record belongs to it, and what that record begins with."""
Entry = dict[str, Any]


@dataclass(frozen=True)
class Journal:
    """The two files of a folder."""

    folder: Path

    def head(self) -> Entry:
        """What the record begins with, and its id if it has one."""
        file = self.folder / HEAD
        found: Entry = json.loads(file.read_bytes()) if file.exists() else {}
        return found

    def begin(self, head: Entry) -> None:
        """Keep the head; it replaces the one before."""
        Folder(self.folder).write(HEAD, json.dumps(head, indent=1).encode())

    def remember(self, **facts: Any) -> None:
        """Add to the head."""
        self.begin(self.head() | facts)

    def append(self, entry: Entry) -> None:
        """One thing more to tell."""
        with self._writing():
            if (self.folder / PENDING).exists() and not (self.folder / PENDING).read_bytes().endswith(b"\n"):
                self._keep(self.pending())  # without what a full disk cut short
            Folder(self.folder).append(PENDING, (json.dumps(entry) + "\n").encode())

    def pending(self) -> list[Entry]:
        """What is still to be told; a line that a crash cut short is none."""
        file = self.folder / PENDING
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def told(self, count: int) -> None:
        """Forget the first entries."""
        with self._writing():
            self._keep(self.pending()[count:])

    def _keep(self, entries: Sequence[Entry]) -> None:
        folder = Folder(self.folder)
        if entries:
            folder.write(PENDING, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
        else:
            folder.delete(PENDING)

    def alone(self) -> AbstractContextManager[Any]:
        """While no other process tells of this folder, which may take as long as a server takes."""
        return self._lock(HEAD)

    def _writing(self) -> AbstractContextManager[Any]:
        """While no other process writes down what there is to tell."""
        return self._lock(PENDING)

    def _lock(self, name: str) -> AbstractContextManager[Any]:
        from filelock import FileLock

        return FileLock(self.folder / f".{name}.lock")


def with_something_to_tell(root: Path) -> list[Path]:
    """The folders below a folder of which MLflow does not have everything."""
    return sorted(path.parent for path in root.rglob(PENDING))
