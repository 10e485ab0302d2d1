"""The limits of likelihoods: what becomes of outputs and of variances that are out of range."""

import math

import pytest
import torch
from torch import distributions

from distvae.files.refusal import Refusal
from distvae.models import likelihoods
from distvae.models.likelihoods import (
    Bernoulli,
    Gaussian,
    GaussianLearned,
    ItakuraSaito,
    Likelihood,
)


def test_the_least_powers_have_the_density_of_their_mean() -> None:
    output = torch.tensor([-1e4, -41.0, -39.0, 0.0], dtype=torch.float64)
    power = torch.full_like(output, 1e-18)
    expected = distributions.Exponential(1 / ItakuraSaito().mean(output)).log_prob(power)
    torch.testing.assert_close(ItakuraSaito().log_density(power, output), expected)


def test_no_decoded_power_is_too_large_to_be_squared() -> None:
    assert ItakuraSaito().mean(torch.tensor([43.5, 1e4])).square().isfinite().all()


def test_log_variances_by_the_decoder_beyond_their_range_count_as_its_ends() -> None:
    output = torch.tensor([[0.5, 0.5, -1000.0, 1000.0]])
    deviation = torch.tensor([math.exp(-10), math.exp(5)])
    expected = distributions.Normal(0.5, deviation).log_prob(torch.tensor([0.5, 1.0]))
    found = GaussianLearned().log_density(torch.tensor([[0.5, 1.0]]), output)
    torch.testing.assert_close(found[0], expected)


def test_data_whose_variance_has_no_reciprocal_are_refused() -> None:
    with pytest.raises(Refusal, match="scale the columns"):
        Gaussian().start(None, lambda: 1e-31)


@pytest.mark.parametrize("likelihood", [ItakuraSaito(), Bernoulli(), GaussianLearned()])
@pytest.mark.parametrize("masked", [False, True])
def test_rows_that_are_compared_in_parts_have_the_densities_of_all_together(
    likelihood: Likelihood, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = torch.Generator().manual_seed(0)
    x, chance = torch.rand(2, 7, 5, generator=draws)
    output = torch.randn(4, 5 * likelihood.outputs, generator=draws)
    place = torch.randint(4, (7, 3), generator=draws)
    mask = chance < 0.5 if masked else None
    monkeypatch.setattr(likelihoods, "COMPARED", 2 * place.shape[1] * output.shape[1])
    found = likelihood.pairs(x, output, place, mask)
    torch.testing.assert_close(found, likelihood(x, output[place], mask))
