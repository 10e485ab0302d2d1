"""The journal of a run or sweep: everything to record, on disk until MLflow has it."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack, cast

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.files.untrusted import (
    WRITTEN_FILE,
    parse_json,
    refuse_strange_entries,
    require_regular_file,
)

LINES = "mlflow.jsonl"
"""The file of a folder with its entries, one a line. Trackers append to it, and senders read it."""
HEAD = "mlflow.json"
"""The file of a folder that says which record belongs to it and how many entries were sent."""
AFTERWARDS = ("report", "files")
"""Kinds of entries that may follow the end of a run or sweep without making it run again."""

Entry = TypedDict(
    "Entry",
    {
        "is": str,
        "when": int,
        "step": int,
        "values": Mapping[str, float],
        "groups": Mapping[str, str],
        "paths": list[str],
        "below": str,
        "path": str,
        "name": str,
        "folder": str,
        "status": str,
        "text": str,
        "varied": Sequence[str],
        "ranked": Mapping[str, str],
    },
    total=False,
)
"""An entry of a journal. The key `is` says of which kind, and the kind which keys there are."""


class Head(TypedDict, total=False):
    """The first facts about a record, and once it exists its id and what was sent."""

    experiment: str
    name: str
    parent: str | None
    began: int
    tags: dict[str, str]
    params: dict[str, str]
    id: str
    store: str
    told: int
    """Bytes of the entries that were sent."""
    model: str
    grouped: bool
    """Whether the names of metrics begin with their groups. False in old records."""
    described: bool
    """False while the record may lack its parameters and its data."""


@dataclass(frozen=True)
class Journal:
    """The two files of a folder. One process may append entries while another sends them."""

    folder: Path

    def head(self) -> Head:
        """Return the head, or {} if nothing was written yet."""
        file = self.folder / HEAD
        try:
            content = Folder(self.folder).read(HEAD)
        except FileNotFoundError:
            return {}
        try:
            return cast(Head, parse_json(content, str(file)))
        except Refusal as error:
            raise Refusal(f"{error}; without it and {LINES} a new record begins") from error

    def write_head(self, head: Head) -> None:
        """Write the head, replacing the one before."""
        Folder(self.folder).write(HEAD, json.dumps(head, indent=1).encode())

    def update_head(self, **facts: Unpack[Head]) -> None:
        """Add facts to the head, unless the folder was deleted."""
        head: Head = {**self.head(), **facts}
        if self.folder.is_dir():
            self.write_head(head)

    def append(self, entry: Entry) -> None:
        """Append an entry, after ending a line that was cut short."""
        newline = b"\n" if self._ends_amid_a_line() else b""
        Folder(self.folder).append(LINES, newline + json.dumps(entry).encode() + b"\n")

    @property
    def ended(self) -> bool:
        """True if the last entry is an end, or belongs to what had ended."""
        kinds = [entry["is"] for entry, _ in self.entries(0) if entry["is"] not in AFTERWARDS]
        return kinds[-1:] == ["end"]

    def pending(self) -> list[Entry]:
        """Return the entries that were not sent yet."""
        return [entry for entry, _ in self._pending_with_ends()]

    def mark_sent(self, count: int) -> None:
        """Mark the first `count` pending entries as sent."""
        if count:
            _, end = self._pending_with_ends()[count - 1]
            self.update_head(told=end)

    def mark_unsent(self, is_lost: Callable[[Entry], bool]) -> None:
        """Mark the first lost entry as pending again, with all that came after it."""
        sent, start = self._sent_bytes(), 0
        for entry, end in self.entries(0):
            if end > sent:
                return
            if is_lost(entry):
                self.update_head(told=start)
                return
            start = end

    def _sent_bytes(self) -> int:
        told = self.head().get("told", 0)
        if not isinstance(told, int):
            raise Refusal(
                f"{self.folder / HEAD}: altered or damaged: told is {told!r}, a number of bytes"
                f" expected; without it and {LINES} a new record begins"
            )
        return told

    def _pending_with_ends(self) -> list[tuple[Entry, int]]:
        """Return the pending entries, each with the position where its line ends."""
        return list(self.entries(self._sent_bytes()))

    def entries(self, start: int) -> Iterator[tuple[Entry, int]]:
        """Yield the entries from a byte on, each with the position where its line ends.

        A line that was cut short, or that is no entry, is skipped.
        """
        file, end = self.folder / LINES, start
        if not file.exists():
            return
        require_regular_file(file, WRITTEN_FILE)
        with file.open("rb") as lines:
            lines.seek(start)
            for line in lines:
                end += len(line)
                if line.endswith(b"\n"):
                    with suppress(ValueError):
                        if isinstance(entry := json.loads(line), dict):
                            yield cast(Entry, entry), end

    def _ends_amid_a_line(self) -> bool:
        """Return whether a full disk or a crash left half a line."""
        file = self.folder / LINES
        if not file.exists() or not file.stat().st_size:
            return False
        with file.open("rb") as lines:
            lines.seek(-1, 2)
            return lines.read(1) != b"\n"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from sending this journal. The same process may enter again.

        To lock a sweep and one of its trials, lock the sweep first.
        """
        from filelock import FileLock

        folder = self.folder.resolve(strict=True)  # a lock would create a folder that is gone
        with FileLock(folder / f".{HEAD}.lock", is_singleton=True):
            yield


def unsent_folders(root: Path, on_damage: Callable[[Path, Exception], None]) -> list[Path]:
    """Return the folders below a root that have pending entries.

    A folder that cannot be read is passed to `on_damage`.
    """
    found = []
    for name, _, files in os.walk(root):  # which skips folders that vanish meanwhile
        try:
            if LINES in files:
                refuse_strange_entries(Path(name))
                if Journal(Path(name)).pending():
                    found.append(Path(name))
        except FileNotFoundError:
            continue
        except (Refusal, OSError) as error:
            on_damage(Path(name), error)
    return sorted(found)
