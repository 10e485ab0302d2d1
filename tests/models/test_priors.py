"""States drawn from the priors of models, as often and as wide as the priors say."""

from typing import Any

import pytest
import torch
from torch import Tensor

from distvae.estep import assemble
from distvae.estep.amortised import Amortised
from distvae.interface import AnyEStep, AnyModel, Batch
from distvae.models.posteriors import LearnedVariance, SpikeAndSlab
from distvae.models.sdm import SDM
from distvae.models.tvae import TVAE
from distvae.models.vsc import VSC
from distvae.numerics.noise import Noise
from tests import tiny

H, DRAWS = 4, 20_000


def untrained(**fields: Any) -> tuple[AnyModel, AnyEStep]:
    torch.manual_seed(0)
    return assemble(tiny.config(model={"latent": H, **fields}), tiny.DIMS)


def drawn(model: AnyModel, estep: AnyEStep) -> Tensor:
    """States (DRAWS, H) of the prior."""
    return model.prior(Noise(0, 0, torch.arange(DRAWS)), estep)[:, 0]


def test_bits_of_a_tvae_are_active_with_probability_pi() -> None:
    torch.manual_seed(0)
    config = tiny.config(model={"kind": "tvae", "latent": H}, estep={"kind": "exact"})
    model, estep = assemble(config, tiny.DIMS)
    assert isinstance(model, TVAE)
    model.pi.copy_(torch.tensor([0.1, 0.3, 0.5, 0.9]))
    torch.testing.assert_close(drawn(model, estep).mean(0), model.pi, atol=0.02, rtol=0)


def test_values_of_a_sparse_code_are_active_with_probability_alpha() -> None:
    z = drawn(*untrained(kind="vsc", alpha=0.2))
    assert float((z != 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert float(z[z != 0].std()) == pytest.approx(1, abs=0.02)


@torch.no_grad()
def test_sparse_codes_of_pseudo_inputs_come_from_all_of_them_alike() -> None:
    model, encoder = untrained(kind="vsc", prior="pseudo", pseudo_inputs=3)
    assert isinstance(model, VSC)
    assert isinstance(encoder, Amortised)
    assert model.pseudo is not None
    model.pseudo.points.mul_(5)
    each = encoder.encode(model.pseudo.points)
    assert isinstance(each, SpikeAndSlab)
    assert each.gamma.std(0).max() > 0.2, "pseudo-inputs that differ"
    often = (drawn(model, encoder) != 0).float().mean(0)
    torch.testing.assert_close(often, each.gamma.mean(0), atol=0.02, rtol=0)


def test_coefficients_of_a_dictionary_have_the_mean_variances_of_the_rows() -> None:
    """The variance of a coefficient is mu^2 + sigma^2 in each row. Their mean over rows is
    expected.
    """
    model, estep = untrained(kind="sdm")
    assert isinstance(model, SDM)
    mean, log_variance = torch.randn(2, 7, H, generator=torch.Generator().manual_seed(1))
    batch = Batch(torch.rand(7, tiny.DIMS), torch.arange(7))
    q = LearnedVariance(mean, log_variance)
    model.maximise(model.statistics(batch, q, Noise(0, 0, batch.row)))
    expected = (mean.square() + log_variance.exp()).mean(0)
    torch.testing.assert_close(drawn(model, estep).var(0), expected, rtol=0.05, atol=0)
