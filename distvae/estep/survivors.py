"""The states that survive a search, and their parts in training."""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from distvae.models.compiled import kernels
from distvae.models.population import keep_best
from distvae.models.truncated import NEAR, SAMPLED
from distvae.numerics.noise import Noise

SAMPLE = 1 / 64  # share of rows that are sampled: all states of a sampled row take part
Scored = tuple[Tensor, Tensor]
"""States (B, S, W) and their log-joints (B, S)."""


class Improved(NamedTuple):
    """The states of some rows after a search."""

    words: Tensor
    """(B, S, W)"""
    gap: Tensor
    """(B, S) the row's best log-joint minus each state's log-joint."""
    replaced: Tensor
    """The number of new states."""

    @classmethod
    def together(cls, parts: "Sequence[Improved]") -> "Improved":
        """Concatenate the results for slices of rows."""
        if len(parts) == 1:
            return parts[0]
        words, gap, replaced = zip(*parts, strict=True)
        return cls(torch.cat(words), torch.cat(gap), torch.stack(replaced).sum())


def compiled_search(words: Tensor) -> ModuleType | None:
    """Return the compiled loops of a search, or None without numba or on a GPU."""
    if not kernels(words):
        return None
    from distvae.estep import kernels as loops

    return loops


def best_states(kept: Scored, new: Scored, ranked: bool = False) -> Improved:
    """Return the best distinct states among the kept and the new states; their number stays.

    With `ranked` the states are sorted, best first; otherwise they stay in order. The result may
    overwrite the memory of the kept states.
    """
    loops = None if ranked else compiled_search(kept[0])
    if loops:
        shared = not kept[0].is_contiguous()  # one set of states, expanded to all rows
        better = torch.empty_like(kept[0]) if shared else kept[0]
        gap = torch.empty_like(kept[1])
        replaced = loops.survivors(*(t.numpy() for t in (*kept, *new, better, gap)))
        return Improved(better, gap, torch.tensor(replaced))
    count = kept[0].shape[1]
    words, value = (torch.cat(both, 1) for both in zip(kept, new, strict=True))
    better, place = keep_best(words, value, count, ranked)
    value = value.gather(1, place)
    gap = value.amax(1, keepdim=True) - value
    return Improved(better, gap, (place >= count).sum())


def parts_in_training(gap: Tensor, horizon: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Return the part (B, S) of each state in training, and the number of sampled rows.

    A state takes part if its gap is at most the horizon, or if its row is sampled.
    """
    sampled = noise.uniform("sample", 1) < SAMPLE
    improbable = sampled.byte().mul_(SAMPLED)  # LEFT_OUT is zero
    return improbable.where(gap > horizon, NEAR), sampled.sum(dtype=torch.float64)
