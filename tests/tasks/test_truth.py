"""Scores on bars, whose causes are known; the model that made them has no distance to them."""

import itertools

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily, Normal

from distvae.config import BarsData, TVAEModel
from distvae.data import open_dataset
from distvae.data.generated import BarsFamily, all_bars, causes_of
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

CORRELATED = BarsData(correlated=True, rows=50)


def restraint(correlated: bool) -> torch.Tensor:
    """Return weights below rectified hidden units, with a unit for each bar. The causes of other
    bars hold down some units.
    """
    weights = torch.eye(8)
    if correlated:
        weights[0, 1] = weights[7, 0] = -2
    return weights


@pytest.mark.parametrize("data", [CORRELATED, BarsData(rows=50)])
def test_the_likelihood_is_that_of_a_network_with_the_weights_of_the_truth(data: BarsData) -> None:
    x = open_dataset(data).splits["train"][:]
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)))
    means = (states @ restraint(data.correlated)).relu() @ torch.from_numpy(all_bars(4))
    prior = Categorical(logits=Independent(Bernoulli(torch.full((8,), 0.25)), 1).log_prob(states))
    truth = MixtureSameFamily(prior, Independent(Normal(means, data.variance**0.5), 1))
    torch.testing.assert_close(
        log_likelihood(BarsFamily(data), x),
        truth.log_prob(torch.from_numpy(x)).double(),
        rtol=1e-4,
        atol=1e-3,
    )


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
    comparison = compare_combinations(model, BarsFamily(CORRELATED))
    assert comparison["combinations_apart"] < 1e-3
    assert comparison["never_together"] == pytest.approx(
        comparison["true_never_together"], rel=1e-5
    )
    assert comparison["true_never_together"] < -150
    assert share_recovered(model, all_bars(4)) == 1


def test_reliability_is_of_the_states_that_training_kept(bars_run: Run) -> None:
    left = Run.left(bars_run.path)
    x = torch.from_numpy(open_dataset(bars_run.config.data).splits["train"][:])
    row = torch.arange(len(x))
    bound = left.model.bound(
        Batch.of(x, row), left.estep.infer(left.model, Batch.of(x, row), 0), Noise(0, 0, row)
    )
    data = causes_of(bars_run.config.data)
    assert data is not None
    truth = float(log_likelihood(data, x.numpy()).mean())
    comparison = compare_with_truth(left, x.numpy())
    assert comparison["reliability"] == pytest.approx(
        (float(bound.mean()) - truth) / abs(truth), rel=1e-5
    )
