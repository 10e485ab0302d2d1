"""The effective number of values of a code that change the output, independent of their scale.

The effect of a value on a row is the distance by which the decoder's output (log power, logits,
means) moves when this value alone is set to zero. Zero is the mean of a Gaussian prior, a spike, or
an inactive bit. A decoder can rescale a value without changing SDM-VAE's objective. Rescaling
changes the size of the value, but not its effect.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from distvae.interface import HasOutput
from distvae.numerics.metrics import effective_atoms
from distvae.numerics.noise import order
from distvae.tasks.measures.subject import Subject
from distvae.train.run import VALUES

ROWS = 4096
"""The largest number of rows that are measured."""


def effects(subject: Subject) -> dict[str, float]:
    """Return the mean effective number of effects of a row's values."""
    run, rows = subject.run, subject.rows
    codes = torch.from_numpy(run.encode(rows[order(0, 0, len(rows))[:ROWS]]))
    together = max(1, VALUES // (codes.shape[1] * run.dims))
    output = run.model.output if isinstance(run.model, HasOutput) else run.model.decode
    found = [moved(output, block) for block in codes.split(together)]
    return {"effective_effects": float(effective_atoms(torch.cat(found)).nanmean())}


@torch.no_grad()
def moved(output: Callable[[Tensor], Tensor], codes: Tensor) -> Tensor:
    """Return (B, H) the distance by which the output moves when each value of a code is zeroed."""
    without = codes[:, None] * (1 - torch.eye(codes.shape[1]))
    distance: Tensor = torch.linalg.vector_norm(output(without) - output(codes[:, None]), dim=-1)
    return distance
