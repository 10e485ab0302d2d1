"""A shard of the populations, which a process holds for workers in other processes.

Each time a shard is filled, with first states or from files, it gets a new token: its incarnation.
Readers and writers name the incarnation that they mean. A write to an earlier incarnation, or to
one that was lost with its process, is therefore never mixed into the present states. Within an
incarnation writes are numbered, and the highest number wins.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distvae.estep.store import Draw, LocalStore, PopulationFile, empty_populations
from distvae.files.memory import peak_memory
from distvae.numerics.lanes import HeldRows

Rows = NDArray[np.int64]
Words = NDArray[np.int64]


class StaleShard(RuntimeError):
    """The states that were asked for are gone: the shard restarted, in another process or from
    other files.
    """


class Shard:
    """The rows of one holder; all answers are NumPy arrays."""

    def __init__(self, held: HeldRows, states: int, width: int, mapped: str | None = None) -> None:
        self.held, self.shape, self.mapped = held, (states, width), mapped
        self.store: LocalStore | None = None
        self.version = torch.empty(0, dtype=torch.int64)
        self.present: str | None = None

    def initialise(self, draw: Draw) -> str:
        """Fill it with first states; the new incarnation."""
        self._empty_store().initialise(draw)
        return self._new_incarnation()

    def restore(self, folder: Path | str, files: Sequence[PopulationFile]) -> str:
        """Fill it from the files of a generation; the new incarnation."""
        self._empty_store().load(folder, files)
        return self._new_incarnation()

    def incarnation(self) -> str:
        """Return the present incarnation, for callers that did not fill the shard."""
        if self.present is None:
            raise StaleShard(f"shard {self.held.rank} of {self.held.size}: empty after a restart")
        return self.present

    def get(self, rows: Rows, incarnation: str) -> Words:
        """Return the words (B, S, W) of these rows."""
        words: Words = self._current_store(incarnation).get(torch.tensor(rows)).numpy()
        return words

    def put(self, rows: Rows, words: Words, step: int, incarnation: str) -> int:
        """Replace the words of these rows where nothing of this step or a later one was put; how
        many were.
        """
        store, place = self._current_store(incarnation), torch.tensor(rows)
        index = self.held.index(place)
        newer = self.version[index] < step
        # Arrays that Ray delivers are read-only, hence the copy.
        store.put(place[newer], torch.from_numpy(words[newer.numpy()]))
        self.version[index[newer]] = step
        return int(newer.sum())

    def snapshot(self, folder: Path | str, generation: str, incarnation: str) -> PopulationFile:
        """Write all rows to a new file; how a checkpoint names it."""
        (kept,) = self._current_store(incarnation).save(folder, generation)
        return kept

    def status(self) -> dict[str, float]:
        """Return its rows, its bytes, and the peak memory of its process."""
        words = self.store.words if self.store else torch.empty(0)
        return {
            "filled": self.present is not None,
            "rows": len(words),
            "bytes": 8 * words.numel(),
            "memory": peak_memory(),
        }

    def rows_without_memory(self) -> int:
        """Return the number of rows whose states will take memory of the machine later."""
        return 0 if self.store or self.mapped else len(self.held.rows())

    def _current_store(self, incarnation: str) -> LocalStore:
        """Return the states, if the caller means the present incarnation."""
        if self.store is None or incarnation != self.incarnation():
            raise StaleShard(
                f"shard {self.held.rank} of {self.held.size}: restarted; resume from the last"
                " checkpoint"
            )
        return self.store

    def _empty_store(self) -> LocalStore:
        """Return a store for the states, which nobody may read before it is filled."""
        self.present = None
        if self.store is None:
            self.store = LocalStore(
                empty_populations(len(self.held.rows()), *self.shape, self.mapped), self.held
            )
        return self.store

    def _new_incarnation(self) -> str:
        self.version = torch.full((len(self.held.rows()),), -1)
        self.present = secrets.token_hex(8)
        return self.present
