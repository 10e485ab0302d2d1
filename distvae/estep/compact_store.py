"""Populations in memory as lists of active bits: a tenth of the size of words if few bits are
active.
"""

import numpy as np
import torch
from numpy.typing import NDArray
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
from distvae.numerics.rows import HeldRows
from distvae.system.memory import available_memory

MAX_LATENT = 2**16
"""The largest number of latents for which two bytes hold the place of a bit."""


class CompactStore(HeldPopulations):
    """The populations of one worker, as lists of active bits in host memory."""

    def __init__(self, states: int, width: int, held: HeldRows) -> None:
        count = len(held)
        super().__init__(held, (count, states, width))
        self.written = [bytes(states)] * count  # states without active bits

    def read(self, places: Places) -> Tensor:
        """Return the words (B, S, W) at these places."""
        if isinstance(places, slice):
            rows = self.written[places]
        else:
            rows = [self.written[place] for place in places.tolist()]
        return _from_lists(b"".join(rows), len(rows), self.shape)

    def write(self, places: Places, words: Tensor) -> None:
        """Replace the words at these places."""
        written, ends = _as_lists(words)
        if isinstance(places, slice):
            places = torch.arange(len(self.written))[places]
        start = 0
        for place, end in zip(places.tolist(), ends.tolist(), strict=True):
            self.written[place] = written[start:end].tobytes()
            start = end


def _as_lists(words: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Encode words (B, S, W) as lists of active bits; return them and the end of each row."""
    from distvae.estep import compact_kernels

    count, states, width = words.shape
    ends = np.empty(count, np.int64)
    written = np.empty(count * states * (1 + 8 * width), np.uint8)
    compact_kernels.write_states(words.cpu().contiguous().numpy(), ends, written)
    return written, ends


def _from_lists(lists: bytes, rows: int, shape: tuple[int, int, int]) -> Tensor:
    """Decode lists of active bits to words (B, S, W)."""
    from distvae.estep import compact_kernels

    words = torch.empty(rows, *shape[1:], dtype=torch.int64)
    compact_kernels.read_states(np.frombuffer(lists, np.uint8), words.numpy())
    return words


def may_be_compact(width: int) -> bool:
    """Return whether states of `width` words can be stored, and are smaller, as lists of bits."""
    return 1 < width <= MAX_LATENT // 64 and kernels(torch.empty(0)) is not None


def packed(store: HeldPopulations, part: slice) -> bytes:
    """Return the states of a slice of rows as lists of active bits, or as words if lists would not
    be smaller.
    """
    if isinstance(store, CompactStore):
        return b"".join(store.written[part])
    words = store.read(part).cpu()
    if not may_be_compact(store.shape[2]):
        return words.numpy().tobytes()
    written, ends = _as_lists(words)
    return written[: ends[-1]].tobytes()


def unpacked(content: bytes, rows: int, shape: tuple[int, int, int]) -> Tensor:
    """Decode the result of `packed` to words (B, S, W), for a store of the given shape."""
    if may_be_compact(shape[2]):
        return _from_lists(content, rows, shape)
    return torch.frombuffer(bytearray(content), dtype=torch.int64).view(rows, *shape[1:])


def new_store(latent: int, states: int, held: HeldRows, mapped: str | None) -> HeldPopulations:
    """Return a new store for a worker's rows: in a file in the folder `mapped`, or in memory.

    In memory, states are stored as lists of active bits if `may_be_compact`.
    """
    rows, width = len(held), words_of(latent)
    if mapped is None and may_be_compact(width):
        check_populations_fit(available_memory(), rows, states, width)
        return CompactStore(states, width, held)
    words = empty_populations(rows, states, width, mapped)
    return LocalStore(words, held, stays=mapped is not None)


def as_words(store: HeldPopulations, device: torch.device) -> HeldPopulations:
    """Convert a compact store to words on a device, and return any other store unchanged."""
    if not isinstance(store, CompactStore):
        return store
    return LocalStore(store.read(slice(None)).to(device), store.held)
