"""A deep TVAE that begins as a linear one is binary sparse coding until its hidden layers learn."""

from typing import Any

import pytest
import torch
from torch import Tensor

from distvae.config import from_dict
from distvae.estep import assemble
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models.nets import FromBits
from distvae.models.population import pack
from distvae.models.tvae import TVAE
from distvae.numerics.noise import Noise
from distvae.train.step import Adam, EagerSteps
from distvae.train.team import ALONE
from tests import dense

H, D, LINEAR = 6, 9, 5


def model_of(hidden: list[int], **settings: Any) -> tuple[TVAE, Any]:
    tree = {"kind": "tvae", "latent": H, "hidden": hidden, **settings}
    model, _ = assemble(from_dict({"model": tree}), D)
    assert isinstance(model, TVAE)
    torch.manual_seed(1)
    words = pack(torch.stack([every_state()[torch.randperm(2**H)[:8]] for _ in range(20)]))
    return model, lambda model, batch: model.posterior(batch, words[batch.row])


def trained(model: TVAE, posterior: Any, steps: range, adam: Adam) -> None:
    x = torch.randn(20, D, generator=torch.Generator().manual_seed(2))
    row = torch.arange(20)
    for step in steps:
        model.at(step)
        EagerSteps(model, posterior, adam).step(Batch(x, row), Noise(0, step, row), 20)


def adam_of(model: TVAE) -> Adam:
    adam = Adam(list(model.parameters()), ALONE)
    adam.rate = 0.05
    return adam


def every_state() -> Tensor:
    return dense.all_states(H).float()


@pytest.mark.parametrize(("hidden", "activation"), [([H], "relu"), ([H, H], "leaky_relu")])
def test_it_is_binary_sparse_coding_while_linear_and_more_thereafter(
    hidden: list[int], activation: str
) -> None:
    deep, posterior = model_of(hidden, activation=activation, linear=LINEAR)
    bsc, _ = model_of([])
    only, last = bsc.decoder[0], deep.decoder[-1]
    assert isinstance(only, FromBits)
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        only.weight.copy_(last.weight.T)
    adams = [adam_of(model) for model in (deep, bsc)]
    for model, adam in zip((deep, bsc), adams, strict=True):
        trained(model, posterior, range(LINEAR), adam)
    z = every_state()
    torch.testing.assert_close(deep.output(z), z @ last.weight.T + last.bias)
    torch.testing.assert_close(deep.output(z), bsc.output(z), atol=1e-4, rtol=1e-4)
    trained(deep, posterior, range(LINEAR, 2 * LINEAR), adams[0])
    assert (deep.output(z) - z @ last.weight.T - last.bias).abs().max() > 1e-3


def test_hidden_layers_begin_with_steps_of_the_rate() -> None:
    """Adam's steps are as large as the rate at first, which is so of layers that begin late as
    well.
    """
    deep, posterior = model_of([H], linear=LINEAR)
    adam = adam_of(deep)
    trained(deep, posterior, range(LINEAR), adam)
    torch.testing.assert_close(deep.decoder.linear[0].weight, torch.eye(H))
    trained(deep, posterior, range(LINEAR, LINEAR + 1), adam)
    change = (deep.decoder.linear[0].weight.detach() - torch.eye(H)).abs().max()
    assert float(change) == pytest.approx(0.05, rel=1e-3)


def test_layers_that_cannot_pass_states_on_are_refused() -> None:
    for hidden, activation in (([H], "tanh"), ([H + 1], "relu"), ([H, 3], "relu")):
        with pytest.raises(Refusal, match="cannot pass states on"):
            model_of(hidden, linear=1, activation=activation)
    assert model_of([], linear=1, activation="tanh")[0].config.hidden == ()


@pytest.mark.parametrize(
    ("latent", "output", "hidden_layers"),
    [(H, "linear", 2), (200, "linear", 1), (200, "sigmoid", 2)],
)
def test_scores_with_and_without_layers_that_pass_bits_on(
    latent: int, output: str, hidden_layers: int
) -> None:
    """Many and few bits are active."""
    hidden = [latent] * hidden_layers
    model, _ = model_of(hidden, latent=latent, output=output, linear=LINEAR)
    generator = torch.Generator().manual_seed(3)
    z = torch.stack([every_state()[:40], every_state()[24:]])
    z = torch.nn.functional.pad(z, (latent - H, 0)).double()
    batch = Batch(torch.randn(2, D, generator=generator), torch.arange(2))
    scores = [model.score(batch, pack(z))]
    torch.testing.assert_close(scores[0], dense.log_joint(model, batch, z).float())
    with torch.no_grad():
        model.decoder.linear[-2].weight[-1, -2] = 0.5
    scores.append(model.score(batch, pack(z)))
    torch.testing.assert_close(scores[1], dense.log_joint(model, batch, z).float())
    assert (scores[1] - scores[0]).abs().max() > 1e-3
