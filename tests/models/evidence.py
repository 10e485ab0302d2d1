"""The bound of a model with discrete latents beside its evidence, by all of its states."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, distributions

from distvae.interface import Batch
from distvae.models.gumbel import Binary, Categorical, Gumbel
from distvae.numerics.noise import Noise

DRAWS = 2000


@dataclass(frozen=True)
class States:
    """All S states (S, H), and their log mass under the prior (S,) and the posterior (B, S)."""

    z: Tensor
    prior: Tensor
    posterior: Tensor


def assert_bound_is_below_evidence(
    made: Gumbel, batch: Batch, q: Binary | Categorical, states: States
) -> None:
    """Below it by the divergence from the true posterior, and estimated without bias by draws.
    Likelihoods of rows of zeros and ones are torch's.
    """
    rows, ours = len(batch.x), states.posterior
    z = states.z.expand(rows, -1, -1)
    density = distributions.Bernoulli(logits=made.output(z)).log_prob(batch.x[:, None]).sum(-1)
    joint = density + states.prior
    bound = (ours.exp() * (made.log_likelihood(batch, z) + q.log_ratio(z))).sum(-1)
    evidence = joint.logsumexp(1)
    gap = (ours.exp() * (ours - (joint - evidence[:, None]))).sum(-1)
    torch.testing.assert_close(bound, evidence - gap)
    assert (bound <= evidence).all()

    def repeated(values: Tensor) -> Tensor:
        return values.repeat(DRAWS, *[1] * (values.ndim - 1))

    many = Batch(repeated(batch.x), torch.arange(DRAWS * rows))
    same = replace(q, logits=repeated(q.logits), prior_logits=repeated(q.prior_logits))
    draws = made.bound(many, same, Noise(0, 0, many.row)).unflatten(0, (DRAWS, rows))
    assert ((draws.mean(0) - bound).abs() < 5 * draws.std(0) / math.sqrt(DRAWS) + 1e-9).all()
