"""What an E-step has to say that keeps nothing of a row from one visit to the next: nothing."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distvae.interface import Batch
from distvae.numerics.lanes import HeldRows
from distvae.numerics.noise import Noise


class Stateless(nn.Module):
    """An E-step without populations."""

    block = 0

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Nothing to take from the data."""

    def search_block(self, model: Any, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Nothing to improve."""
        return {}

    def prefetch(self, rows: Tensor) -> None:
        """Nothing to bring."""

    def drain(self) -> None:
        """Nothing to wait for."""

    def telemetry(self) -> dict[str, float]:
        """Nothing to tell."""
        return {}

    def save(self, folder: Path, name: str) -> list[Any]:
        """Nothing beside the weights."""
        return []

    def load(self, folder: Path, kept: Sequence[Any]) -> None:
        """Nothing beside the weights."""
