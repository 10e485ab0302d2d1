"""Where populations live: bit-packed, rows by id, in blocks."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from distvae.memory import available
from distvae.refusal import Refusal

VERSION = 1
PART = 65536  # rows written at a time


class PopulationStore(Protocol):
    """The kept states of every row. Rows travel in blocks; minibatches are cut from a block."""

    def get(self, rows: Tensor) -> Tensor:
        """(B, S, W) the words of these rows."""

    def put(self, rows: Tensor, words: Tensor) -> None:
        """Replace the words of these rows."""

    def save(self, path: Path) -> str:
        """Write all rows to an Arrow file; its checksum."""


class LocalStore(nn.Module):
    """All rows in the memory of this process, or of its device, or in a file mapped into it."""

    words: Tensor

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.register_buffer("words", words, persistent=False)

    def get(self, rows: Tensor) -> Tensor:
        """(B, S, W) the words of these rows."""
        return self.words[rows]

    def put(self, rows: Tensor, words: Tensor) -> None:
        """Replace the words of these rows."""
        self.words[rows] = words

    def save(self, path: Path) -> str:
        """Write all rows to an Arrow file; its checksum."""
        import pyarrow as pa

        rows, states, width = self.words.shape
        facts = {"version": VERSION, "states": states, "words": width, "rows": rows}
        schema = pa.schema({"states": pa.list_(pa.int64(), states * width)}, {k: str(v) for k, v in facts.items()})
        partial = path.with_name(f".{path.name}.partial")
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for part in self.words.split(PART):
                values = pa.array(part.cpu().numpy().ravel())
                column = pa.FixedSizeListArray.from_arrays(values, states * width)
                writer.write_batch(pa.record_batch([column], schema=schema))
        partial.replace(path)
        return checksum(path)

    @classmethod
    def load(cls, path: Path, expected: str, mapped: str | None = None) -> "LocalStore":
        """All rows from a file that must have that checksum."""
        import pyarrow as pa

        if not path.is_file():
            raise Refusal(f"{path}: missing; the checkpoint names it")
        if checksum(path) != expected:
            raise Refusal(f"{path}: altered or damaged: its checksum is not the one in the checkpoint")
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        facts = {key.decode(): int(value) for key, value in reader.schema.metadata.items()}
        if facts["version"] > VERSION:
            raise Refusal(f"{path}: written by a newer distvae (format {facts['version']}, {VERSION} is known here)")
        words = room(facts["rows"], facts["states"], facts["words"], mapped)
        _fill(words, reader)
        return cls(words)


def _fill(words: Tensor, reader: Any) -> None:
    """The words of an Arrow file, batch after batch."""
    first = 0
    for i in range(reader.num_record_batches):
        column = reader.get_batch(i).column(0)
        values = torch.from_numpy(column.flatten().to_numpy(zero_copy_only=True).copy())
        words[first : first + len(column)] = values.view(-1, *words.shape[1:])
        first += len(column)


def room(rows: int, states: int, words: int, mapped: str | None = None) -> Tensor:
    """(rows, states, words) to be filled, in memory or in an unnamed file in the folder `mapped`."""
    needed = 8 * rows * states * words
    if mapped is None:
        if needed > available():
            raise Refusal(
                f"estep.states: {states} states for {rows:,} rows need {_gigabytes(needed)}, and "
                f"{_gigabytes(available())} of memory are free; fewer expected, or estep.mapped=FOLDER on a large disk"
            )
        return torch.empty(rows, states, words, dtype=torch.int64)
    try:
        with tempfile.NamedTemporaryFile(dir=mapped, prefix="distvae-population-") as file:
            file.truncate(needed)
            values = torch.from_file(file.name, shared=True, size=needed // 8, dtype=torch.int64)
    except OSError as error:
        raise Refusal(
            f"estep.mapped: {mapped}: {error.strerror}; a folder that can be written into expected"
        ) from error
    return values.view(rows, states, words)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
