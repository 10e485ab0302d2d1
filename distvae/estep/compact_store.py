"""Populations in memory as lists of active bits: a tenth of their words where few are active."""

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from distvae.estep.store import (
    HeldPopulations,
    LocalStore,
    Places,
    check_populations_fit,
    empty_populations,
)
from distvae.models.compiled import kernels
from distvae.models.population import words_of
from distvae.numerics.lanes import HeldRows
from distvae.system.memory import available_memory

MAX_LATENT = 2**16
"""The most bits of a state whose places take two bytes each."""


class CompactStore(HeldPopulations):
    """The rows of one holder in the memory of the host."""

    def __init__(self, states: int, width: int, held: HeldRows) -> None:
        count = len(held)
        super().__init__(held, (count, states, width))
        self.written = [bytes(states)] * count  # no state has an active bit

    def read(self, places: Places) -> Tensor:
        """Return the words (B, S, W) at these places."""
        if isinstance(places, slice):
            rows = self.written[places]
        else:
            rows = [self.written[place] for place in places.tolist()]
        words = torch.empty(len(rows), *self.shape[1:], dtype=torch.int64)
        _loops().read_states(np.frombuffer(b"".join(rows), np.uint8), words.numpy())
        return words

    def write(self, places: Places, words: Tensor) -> None:
        """Replace the words at these places."""
        count, states, width = words.shape
        ends = np.empty(count, np.int64)
        written = np.empty(count * states * (1 + 8 * width), np.uint8)
        _loops().write_states(words.cpu().contiguous().numpy(), ends, written)
        if isinstance(places, slice):
            places = torch.arange(len(self.written))[places]
        start = 0
        for place, end in zip(places.tolist(), ends.tolist(), strict=True):
            self.written[place] = written[start:end].tobytes()
            start = end


def _loops() -> ModuleType:
    """Return the compiled loops, which need numba."""
    from distvae.estep import compact_kernels

    return compact_kernels


def new_store(latent: int, states: int, held: HeldRows, mapped: str | None) -> HeldPopulations:
    """Return a store of a holder's rows: in a file in a folder, or in memory, there compact if that
    is worth it and can be.
    """
    rows, width = len(held), words_of(latent)
    if mapped is None and width > 1 and latent <= MAX_LATENT and kernels(torch.empty(0)):
        check_populations_fit(available_memory(), rows, states, width)
        return CompactStore(states, width, held)
    words = empty_populations(rows, states, width, mapped)
    return LocalStore(words, held, stays=mapped is not None)


def as_words(store: HeldPopulations, device: torch.device) -> HeldPopulations:
    """Return a compact store as words on a device, and any other as it is."""
    if not isinstance(store, CompactStore):
        return store
    words = LocalStore(store.read(slice(None)).to(device), store.held)
    words.mirror = store.mirror
    return words
