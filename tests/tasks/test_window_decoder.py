"""The decoded values of a posterior in a restoration, against sums over all states."""

from typing import Any

import numpy as np
import torch

from distvae.config import Config
from distvae.config.recipes import load
from distvae.estep import assemble
from distvae.models.gumbel import Binary, Gumbel
from distvae.tasks.restoration import WindowDecoder

ROWS, BITS, DIMS = 5, 6, 16


def config(**changes: Any) -> Config:
    small = {"data.window": [4, 4], "model.latent": BITS, "model.hidden": [16]}
    return load("house-gumbel", small | {"model.activation": "tanh"} | changes)


def model_and_posterior() -> tuple[Gumbel, Binary]:
    """An untrained model with large weights, which is far from linear in its bits."""
    torch.manual_seed(0)
    model, _ = assemble(config(), DIMS)
    assert isinstance(model, Gumbel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    logits = torch.randn(ROWS, BITS)
    return model, Binary(logits, torch.zeros_like(logits), 1.0)


@torch.no_grad()
def test_drawn_states_have_the_expectation_over_all_states() -> None:
    model, q = model_and_posterior()
    states = torch.cartesian_prod(*BITS * [torch.tensor([0.0, 1.0])])
    p = q.logits.sigmoid()[:, None]
    weight = torch.where(states > 0, p, 1 - p).prod(-1)
    decoded = model.decode(states[None])[0]
    exact = weight @ decoded
    spread = (weight @ decoded.square() - exact.square()).sqrt()
    draws = 1000
    found = torch.from_numpy(WindowDecoder(draws, seed=3)(model, q, np.arange(ROWS)))
    allowed = 5 * spread / draws**0.5
    assert ((found - exact).abs() <= allowed).all()
    at_mean = torch.from_numpy(WindowDecoder(0, seed=3)(model, q, np.arange(ROWS)))
    assert torch.equal(at_mean, model.decode(q.code[:, None])[:, 0])
    assert ((at_mean - exact).abs() > allowed).any(), (
        "the mean of the bits decodes to another value"
    )
