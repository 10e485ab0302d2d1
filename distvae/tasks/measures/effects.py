"""How many values of a code change what is decoded, whatever the scale that a value has.

The effect of a value on a data point is how far the decoder's output (log power, logits, means)
moves when that value alone is set to zero: the mean of a Gaussian prior, a spike, a bit that is
off. A decoder may scale a value as it likes, and SDM-VAE's objective does not change when it does;
effects do not change either, sizes of values do.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from distvae.interface import HasOutput
from distvae.numerics.measures import effective_atoms
from distvae.numerics.noise import order
from distvae.tasks.measures.subject import Subject
from distvae.train.run import VALUES

ROWS = 4096  # data points looked at, at most


def effects(subject: Subject) -> dict[str, float]:
    """The mean of how many equal effects would be as spread as those of a data point's values."""
    run, rows = subject.run, subject.rows
    codes = torch.from_numpy(run.encode(rows[order(0, 0, len(rows))[:ROWS]]))
    together = max(1, VALUES // (codes.shape[1] * run.dims))
    output = run.model.output if isinstance(run.model, HasOutput) else run.model.decode
    found = [moved(output, block) for block in codes.split(together)]
    return {"effective_effects": float(effective_atoms(torch.cat(found)).nanmean())}


@torch.no_grad()
def moved(output: Callable[[Tensor], Tensor], codes: Tensor) -> Tensor:
    """(B, H) how far an output moves without each value of a code."""
    without = codes[:, None] * (1 - torch.eye(codes.shape[1]))
    far: Tensor = torch.linalg.vector_norm(output(without) - output(codes[:, None]), dim=-1)
    return far
