"""Scores on bars, whose causes are known; the model that made them has no distance to them."""

import itertools

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily, Normal

from distvae.config import BarsData, TVAEModel
from distvae.data import open_dataset
from distvae.data.generated import BarsFamily, all_bars
from distvae.interface import Batch
from distvae.models.likelihoods import Gaussian
from distvae.models.nets import FromBits
from distvae.models.tvae import TVAE
from distvae.numerics.noise import Noise
from distvae.tasks.truth import (
    compare_combinations,
    compare_with_truth,
    log_likelihood,
    share_recovered,
)
from distvae.train.run import Run


def restraint(correlated: bool) -> torch.Tensor:
    """Return weights below rectified hidden units, with a unit for each bar. The causes of other
    bars hold down some units.
    """
    weights = torch.eye(8)
    if correlated:
        weights[0, 1] = weights[7, 0] = -2
    return weights


@pytest.mark.parametrize("correlated", [True, False])
def test_the_likelihood_is_that_of_a_network_with_the_weights_of_the_truth(
    correlated: bool,
) -> None:
    data = BarsData(correlated=correlated, rows=50)
    x = open_dataset(data, quiet=True).splits["train"][:]
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)))
    means = (states @ restraint(correlated)).relu() @ torch.from_numpy(all_bars(4))
    prior = Categorical(logits=Independent(Bernoulli(torch.full((8,), 0.25)), 1).log_prob(states))
    truth = MixtureSameFamily(prior, Independent(Normal(means, data.variance**0.5), 1))
    expected = truth.log_prob(torch.from_numpy(x)).double()
    found = log_likelihood(BarsFamily(data), x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_a_model_that_is_the_truth_gives_combinations_their_likelihood() -> None:
    model = TVAE(TVAEModel(latent=8, hidden=(8,)), 16)
    first, second = (layer for layer in model.decoder if isinstance(layer, nn.Linear | FromBits))
    with torch.no_grad():
        for layer, weight in ((first, restraint(True)), (second, torch.from_numpy(all_bars(4)).T)):
            layer.weight.copy_(weight)
            layer.bias.zero_()
        model.pi.fill_(0.25)
        assert isinstance(model.likelihood, Gaussian)
        model.likelihood.variance.fill_(0.01)
    comparison = compare_combinations(model, BarsFamily(BarsData(correlated=True, rows=50)))
    assert comparison["combinations_apart"] < 1e-3
    expected = comparison["true_never_together"]
    assert comparison["never_together"] == pytest.approx(expected, rel=1e-5)
    assert expected < -150
    assert share_recovered(model, all_bars(4)) == 1


def test_reliability_is_of_the_states_that_training_kept(bars_run: Run) -> None:
    left, data = Run.left(bars_run.path), bars_run.config.data
    assert isinstance(data, BarsData)
    x = open_dataset(data, quiet=True).splits["train"][:]
    row = torch.arange(len(x))
    batch = Batch.of(torch.from_numpy(x), row)
    bound = left.model.bound(batch, left.estep.infer(left.model, batch, 0), Noise(0, 0, row))
    truth = float(log_likelihood(BarsFamily(data), x).mean())
    expected = (float(bound.mean()) - truth) / abs(truth)
    assert compare_with_truth(left, x)["reliability"] == pytest.approx(expected, rel=1e-5)
