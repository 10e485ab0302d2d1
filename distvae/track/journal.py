"""What a folder has to tell of its run or sweep, on disk whether MLflow has it or not."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder

LINES = "mlflow.jsonl"
"""The file of a folder with what there is to tell, one entry a line. Who tells adds to it, who
sends reads it.
"""
HEAD = "mlflow.json"
"""The file of a folder that remembers which record belongs to it, what that begins with, and how
far it has come.
"""
Entry = dict[str, Any]


@dataclass(frozen=True)
class Journal:
    """The two files of a folder. One process may add lines while another, elsewhere, sends them."""

    folder: Path

    def head(self) -> Entry:
        """What the record begins with, and once it exists its id and how many bytes of the lines it
        has.
        """
        file = self.folder / HEAD
        try:
            return dict(json.loads(file.read_bytes()))
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError) as error:
            raise Refusal(
                f"{file}: altered or damaged: not the JSON that was written there; without it and"
                f" {LINES} a new record begins"
            ) from error

    def write_head(self, head: Entry) -> None:
        """Keep the head; it replaces the one before."""
        Folder(self.folder).write(HEAD, json.dumps(head, indent=1).encode())

    def update_head(self, **facts: Any) -> None:
        """Add to the head; a folder that is gone is not made again for it."""
        head = self.head() | facts
        if self.folder.is_dir():
            self.write_head(head)

    def append(self, entry: Entry) -> None:
        """One thing more to tell."""
        cut_short = self._ends_amid_a_line()
        Folder(self.folder).append(LINES, b"\n" * cut_short + json.dumps(entry).encode() + b"\n")

    def pending(self) -> list[Entry]:
        """What is still to be told."""
        return [entry for entry, _ in self._waiting()]

    def mark_sent(self, count: int) -> None:
        """Count the first entries that wait as told."""
        if count:
            self.update_head(told=self._waiting()[count - 1][1])

    def mark_unsent(self, lost: Callable[[Entry], bool]) -> None:
        """What was told and is lost waits again, with all that came after it."""
        told, begin = self._told(), 0
        for entry, end in self._entries(0):
            if end > told:
                return
            if lost(entry):
                self.update_head(told=begin)
                return
            begin = end

    def _told(self) -> int:
        """How many bytes of the lines were told."""
        return int(self.head().get("told", 0))

    def _waiting(self) -> list[tuple[Entry, int]]:
        """The entries that are still to be told, each with where its line ends."""
        return list(self._entries(self._told()))

    def _entries(self, begin: int) -> Iterator[tuple[Entry, int]]:
        """The entries from some byte on, each with where its line ends; what was cut short is
        none.
        """
        file, end = self.folder / LINES, begin
        if not file.exists():
            return
        with file.open("rb") as lines:
            lines.seek(begin)
            for line in lines:
                end += len(line)
                if line.endswith(b"\n"):
                    with suppress(ValueError):
                        yield json.loads(line), end

    def _ends_amid_a_line(self) -> bool:
        """Whether a full disk or a crash left half a line."""
        file = self.folder / LINES
        if not file.exists() or not file.stat().st_size:
            return False
        with file.open("rb") as lines:
            lines.seek(-1, 2)
            return lines.read(1) != b"\n"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While no other process sends what this folder tells; one that does may ask again.

        Who wants to be alone with a sweep and a trial of it asks for the sweep first.
        """
        from filelock import FileLock

        folder = self.folder.resolve(strict=True)  # the lock would make one that is gone
        with FileLock(folder / f".{HEAD}.lock", is_singleton=True):
            yield


def unsent_folders(root: Path, damaged: Callable[[Path, Exception], None]) -> list[Path]:
    """The folders below a folder of which MLflow does not have everything; those that cannot be
    read are passed on.
    """
    found = []
    for name, _, files in os.walk(root):  # which leaves out what vanishes meanwhile
        try:
            if LINES in files and Journal(Path(name)).pending():
                found.append(Path(name))
        except FileNotFoundError:
            continue
        except (Refusal, OSError) as error:
            damaged(Path(name), error)
    return sorted(found)
