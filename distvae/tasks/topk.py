"""A top-k autoencoder (Makhzani and Frey, 2014; Gao et al., 2024), with which searched codes are
compared.

    code = the k largest values of relu(E (x - b) + e),    x^ = D code + b,    atoms of norm 1
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH = 1024
RATE = 1e-3
STEPS = 800
"""Steps of a fit by default: 86 processor seconds for 1024 atoms of 513 values."""


class TopK(nn.Module):
    """An encoder of one layer, whose codes keep their largest values, and a dictionary."""

    def __init__(self, rows: Tensor, latent: int, values: int, seed: int = 0) -> None:
        super().__init__()
        self.values = values
        generator = torch.Generator().manual_seed(seed)
        atoms = functional.normalize(torch.randn(latent, rows.shape[1], generator=generator), dim=1)
        self.dictionary = nn.Parameter(atoms)
        self.encoder = nn.Parameter(atoms.clone())
        self.offset = nn.Parameter(torch.zeros(latent))
        self.bias = nn.Parameter(rows.mean(0))
        self.scale = float((rows - rows.mean(0)).std())

    @classmethod
    def fit(
        cls, rows: Tensor, latent: int, values: int, steps: int = STEPS, seed: int = 0
    ) -> "TopK":
        """Return an autoencoder fitted by Adam with a decaying rate."""
        model = cls(rows, latent, values, seed)
        generator = torch.Generator().manual_seed(seed)
        adam = torch.optim.Adam(model.parameters(), RATE, fused=True)
        for step in range(steps):
            adam.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            x = rows[torch.randint(len(rows), (min(BATCH, len(rows)),), generator=generator)]
            adam.zero_grad()
            loss = ((model.decode(model.encode(x)) - x) / model.scale).square().sum(1).mean()
            loss.backward()
            adam.step()
            with torch.no_grad():
                model.dictionary.copy_(functional.normalize(model.dictionary, dim=1))
        return model.requires_grad_(False)

    def encode(self, x: Tensor) -> Tensor:
        """Return codes with at most `values` values that are not zero."""
        return largest(functional.relu((x - self.bias) @ self.encoder.T + self.offset), self.values)

    def decode(self, code: Tensor) -> Tensor:
        """Return the rows of codes."""
        return code @ self.dictionary + self.bias


def largest(code: Tensor, count: int) -> Tensor:
    """Return codes (..., H) that keep their `count` values of largest size."""
    kept = code.abs().topk(min(count, code.shape[-1]), dim=-1, sorted=False).indices
    return torch.zeros_like(code).scatter(-1, kept, code.gather(-1, kept))
