"""Laws of an objective over several draws of each data point's latents."""

from typing import Any

import pytest
import torch
from torch import Tensor

from distvae.config import from_dict
from distvae.estep import assemble
from distvae.estep.amortised import Amortised
from distvae.interface import Batch
from distvae.models.vae import VAE
from distvae.numerics.noise import Noise

DIMS, ROWS = 6, 4
MODELS = (
    {"kind": "vae"},
    {"kind": "sdm", "atoms": 9, "dictionary": "learned"},
    {"kind": "vsc", "alpha": 0.3},
    {"kind": "gumbel"},
    {"kind": "gumbel", "categories": 3},
)


def assembled(fields: dict[str, Any], draws: int) -> tuple[VAE, Amortised]:
    """A small model with its E-step, the same weights for any number of draws."""
    torch.manual_seed(0)
    model = {"latent": 3, "hidden": [5], "likelihood": "gaussian", "draws": draws, **fields}
    config = from_dict({"model": model, "estep": {"hidden": [5], "input": "raw"}})
    made, estep = assemble(config, DIMS, (DIMS,))
    assert isinstance(made, VAE)
    assert isinstance(estep, Amortised)
    return made, estep


def batch() -> Batch:
    x = torch.randn(ROWS, DIMS, generator=torch.Generator().manual_seed(1))
    return Batch(x, torch.arange(ROWS), None)


def objectives(model: VAE, estep: Amortised, seed: int = 0) -> Tensor:
    rows = batch()
    value: Tensor = model.objective(rows, estep(model, rows), Noise(seed, 0, rows.row))
    return value


@pytest.mark.parametrize("fields", MODELS, ids=str)
def test_the_objective_is_the_mean_over_the_draws_minus_the_weighed_divergence(
    fields: dict[str, Any],
) -> None:
    model, estep = assembled({**fields, "beta": 2.0}, 7)
    rows = batch()
    q, noise = estep(model, rows), Noise(0, 0, rows.row)
    z = q.sample(7, noise)
    assert z.shape == (ROWS, 7, model.code_size)
    assert len({tuple(state) for state in z[0].tolist()}) == 7, "all draws differ"
    each = [model.log_likelihood(rows, z[:, [s]])[:, 0] for s in range(7)]
    expected = sum(each) / 7 - 2.0 * q.kl()
    torch.testing.assert_close(objectives(model, estep), expected)


@pytest.mark.parametrize("fields", MODELS, ids=str)
def test_more_draws_have_the_same_mean_and_less_noise(fields: dict[str, Any]) -> None:
    one, sixteen = (
        torch.stack([objectives(*made, seed) for seed in range(200)]).detach()
        for made in (assembled(fields, 1), assembled(fields, 16))
    )
    error = (one.var(0) / 200 + sixteen.var(0) / 200).sqrt()
    assert ((one.mean(0) - sixteen.mean(0)).abs() < 5 * error).all()
    ratio = one.var(0) / sixteen.var(0)  # near 16; of 200 draws each, it varies by a seventh
    assert ((ratio > 9) & (ratio < 28)).all(), ratio
