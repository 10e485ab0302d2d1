"""The two tasks of an ingest: to sort a stretch of the sources into slabs, and to write a file."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from distvae.data.tables import arrow
from distvae.data.tables.plan import Plan
from distvae.data.tables.rows import FileEntry
from distvae.data.tables.slabs import Slabs
from distvae.files.atomic import replaced_file
from distvae.numerics.facts import Facts, FactsRecord

Task = tuple[Literal["sort", "gather"], int]
"""What to do, and the number of the stretch or of the file."""


class Written(TypedDict):
    """A file that was written, and what is known of its rows."""

    entry: FileEntry
    facts: FactsRecord


@dataclass(frozen=True)
class Work:
    """The folders of an ingest that has begun."""

    plan: Plan
    folder: Path
    """The folder of the files, with nothing else in it."""
    scratch: Path
    """The folder of what is needed until the files are complete."""

    def do(self, task: Task) -> int:
        """Do a task; return how many rows it was about."""
        kind, number = task
        return self.sort(number) if kind == "sort" else self.gather(number)

    def sort(self, number: int) -> int:
        """Sort a stretch of the sources into slabs; return how many rows it has."""
        stretch = self.plan.stretches[number]
        self._slabs.write(stretch)
        return stretch.rows

    def gather(self, number: int) -> int:
        """Write a file, and then what is known of it; return how many rows it has."""
        part = self.plan.parts[number]
        rows = self._slabs.take(number)
        size, checksum = arrow.save(self.folder / part.name, rows)
        entry: FileEntry = {"file": part.name, "rows": part.rows, "bytes": size, "sha256": checksum}
        written: Written = {"entry": entry, "facts": Facts.of(rows).record()}
        with replaced_file(self._note(number)) as partial:
            partial.write_text(json.dumps(written))
        return part.rows

    def unsorted(self) -> list[int]:
        """Return the stretches that are still to be sorted, none of them if no file needs any."""
        if not self.ungathered():
            return []
        made, stretches = self._made(), enumerate(self.plan.stretches)
        return [number for number, stretch in stretches if not self._slabs.names(stretch) <= made]

    def ungathered(self) -> list[int]:
        """Return the files that are still to be written."""
        made = self._made()
        return [n for n in range(len(self.plan.parts)) if self._note(n).name not in made]

    def written(self) -> list[Written]:
        """Return what is known of all files, in their order."""
        notes = map(self._note, range(len(self.plan.parts)))
        return [json.loads(note.read_bytes()) for note in notes]

    def written_bytes(self) -> int:
        """Return how many bytes all that was written has."""
        paths = (*self.folder.iterdir(), *self.scratch.iterdir())
        return sum(path.stat().st_size for path in paths)

    def make_folders(self) -> None:
        """Make the folders, unless an earlier ingest did."""
        for folder in (self.folder, self.scratch):
            folder.mkdir(parents=True, exist_ok=True)

    def remove_torn(self) -> None:
        """Remove what was being written when an earlier ingest was killed."""
        for folder in (self.folder, self.scratch):
            for path in folder.glob(".*"):
                with suppress(FileNotFoundError):
                    path.unlink()

    def _made(self) -> set[str]:
        """Return the names in the scratch folder.

        They are listed, because network storage remembers for a while that a name was not there.
        """
        return {path.name for path in self.scratch.iterdir()}

    @property
    def _slabs(self) -> Slabs:
        return Slabs(self.scratch, self.plan)

    def _note(self, number: int) -> Path:
        return self.scratch / f"{self.plan.parts[number].name}.json"
