"""Where populations live: bit-packed, rows by id, in blocks."""

import hashlib
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from distvae.refusal import Refusal

VERSION = 1


class PopulationStore(Protocol):
    """The kept states of every row. Rows travel in blocks; minibatches are cut from a block."""

    def get(self, rows: Tensor) -> Tensor:
        """(B, S, W) the words of these rows."""

    def put(self, rows: Tensor, words: Tensor) -> None:
        """Replace the words of these rows."""

    def save(self, path: Path) -> str:
        """Write all rows to an Arrow file; its checksum."""


class LocalStore:
    """All rows in the memory of this process."""

    def __init__(self, words: Tensor) -> None:
        self.words = words

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
        column = pa.FixedSizeListArray.from_arrays(pa.array(self.words.cpu().numpy().ravel()), states * width)
        facts = {"version": VERSION, "states": states, "words": width, "rows": rows}
        schema = pa.schema({"states": column.type}, {key: str(value) for key, value in facts.items()})
        partial = path.with_name(f".{path.name}.partial")
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch([column], schema=schema))
        partial.replace(path)
        return checksum(path)

    @classmethod
    def load(cls, path: Path, expected: str) -> "LocalStore":
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
        values = reader.get_batch(0).column(0).values.to_numpy(zero_copy_only=True)
        return cls(torch.from_numpy(values.copy()).view(-1, facts["states"], facts["words"]))


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
