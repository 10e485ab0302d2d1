"""What a folder has to tell of its run or sweep, on disk whether MLflow has it or not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distvae.storage import Folder

LINES = "mlflow.jsonl"
"""The file of a folder with what there is to tell, one entry a line. Who tells adds to it, who sends reads it."""
HEAD = "mlflow.json"
"""The file of a folder that remembers which record belongs to it, what that begins with, and how far it has come."""
Entry = dict[str, Any]


@dataclass(frozen=True)
class Journal:
    """The two files of a folder. One process may add lines while another, elsewhere, sends them."""

    folder: Path

    def head(self) -> Entry:
        """What the record begins with, and once it exists its id and how many bytes of the lines it has."""
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
        cut_short = self._ends_amid_a_line()
        Folder(self.folder).append(LINES, b"\n" * cut_short + json.dumps(entry).encode() + b"\n")

    def pending(self) -> list[Entry]:
        """What is still to be told."""
        return [entry for entry, _ in self._waiting()]

    def told(self, count: int) -> None:
        """Count the first entries that wait as told."""
        if count:
            self.remember(told=self._waiting()[count - 1][1])

    def _waiting(self) -> list[tuple[Entry, int]]:
        """The entries that are still to be told, each with where its line ends; what was cut short is none."""
        file, end, found = self.folder / LINES, int(self.head().get("told", 0)), list[tuple[Entry, int]]()
        if not file.exists():
            return found
        with file.open("rb") as lines:
            lines.seek(end)
            for line in lines:
                end += len(line)
                if line.endswith(b"\n"):
                    with suppress(ValueError):
                        found.append((json.loads(line), end))
        return found

    def _ends_amid_a_line(self) -> bool:
        """Whether a full disk or a crash left half a line."""
        file = self.folder / LINES
        if not file.exists() or not file.stat().st_size:
            return False
        with file.open("rb") as lines:
            lines.seek(-1, 2)
            return lines.read(1) != b"\n"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While no other process sends what this folder tells."""
        from filelock import FileLock

        with FileLock(self.folder / f".{HEAD}.lock"):
            yield


def with_something_to_tell(root: Path) -> list[Path]:
    """The folders below a folder of which MLflow does not have everything."""
    return sorted(path.parent for path in root.rglob(LINES) if Journal(path.parent).pending())
