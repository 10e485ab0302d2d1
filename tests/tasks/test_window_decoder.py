"""The decoded values of a posterior in a restoration, against sums over all states."""

from typing import Any

import numpy as np
import pytest
import torch

from distvae.config import Config
from distvae.config.recipes import load
from distvae.data.windows.patches import Grid
from distvae.estep import assemble
from distvae.models.gumbel import Binary, Gumbel
from distvae.tasks.restoration import COVER, WindowDecoder

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
    draws = 4000
    found = torch.from_numpy(WindowDecoder(draws, seed=3)(model, q, np.arange(ROWS)))
    allowed = 5 * spread / draws**0.5
    assert ((found - exact).abs() <= allowed).all()
    at_mean = torch.from_numpy(WindowDecoder(0, seed=3)(model, q, np.arange(ROWS)))
    assert torch.equal(at_mean, model.decode(q.code[:, None])[:, 0])
    assert ((at_mean - exact).abs() > allowed).any(), (
        "the mean of the bits decodes to another value"
    )


@torch.no_grad()
def test_a_window_draws_the_same_whatever_it_is_decoded_with() -> None:
    model, q = model_and_posterior()
    decode, rows = WindowDecoder(4, seed=3), np.arange(ROWS)
    part = Binary(q.logits[2:], q.prior_logits[2:], 1.0)
    np.testing.assert_allclose(
        decode(model, part, rows[2:]), decode(model, q, rows)[2:], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_each_value_is_covered_by_as_many_states_whatever_the_stride(stride: int) -> None:
    grid = Grid((24, 28, 1), (4, 4), stride)
    covered = np.zeros((24, 28))
    for y in grid.starts[0]:
        for x in grid.starts[1]:
            covered[y : y + 4, x : x + 4] += 1
    inner = covered[4:-4, 4:-4]  # away from the borders
    assert WindowDecoder.of(config(), grid).draws * np.median(inner) == COVER


def test_models_say_what_is_restored() -> None:
    grid = Grid((24, 28, 1), (4, 4))
    assert WindowDecoder.of(config(**{"model.restored": "mean"}), grid).draws == 0
    assert WindowDecoder.of(load("picture-fast"), grid).draws == 0
    assert WindowDecoder.of(load("mnist-vae"), grid).draws == 0
    for recipe in ("mnist-vsc", "mnist-gumbel", "speech-sdm"):
        assert WindowDecoder.of(load(recipe), grid).draws == COVER / 16
