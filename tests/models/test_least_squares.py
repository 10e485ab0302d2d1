"""The closed-form weights of a linear decoder against least squares by NumPy."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distvae.config import Evolution as EvolutionConfig
from distvae.config import Train, TVAEModel
from distvae.engines.tvae_gpu import DeviceTVAEEngine
from distvae.estep.truncated import Evolution
from distvae.files.refusal import Refusal
from distvae.interface import Batch, Sums
from distvae.models.population import pack
from distvae.models.truncated import KeptStates
from distvae.models.tvae import TVAE
from distvae.numerics.rows import Lanes
from distvae.train.loop import Trainer
from tests import dense
from tests.engines.test_tvae import Keeps, ways
from tests.engines.test_tvae import sums_of as step_sums

ROWS, KEPT, LATENT = 60, 9, 6
LINEAR: list[dict[str, Any]] = [
    {"hidden": ()},
    {"hidden": (LATENT,), "linear": 10},
    {"hidden": (), "missing": "completed"},
]


def linear_model(**fields: Any) -> TVAE:
    """A model with a linear decoder whose weights are random, in its linear phase."""
    model = dense.model(linear_fit="closed_form", **fields).double()
    with torch.no_grad():
        for layer in model.decoder.linear[:-1]:
            layer.weight.copy_(torch.eye(LATENT))
            layer.bias.zero_()
    model.at(0)
    return model


def sums_of(model: TVAE, batch: Batch, z: Tensor, way: str = "cpu") -> Sums:
    return step_sums(model, batch, KeptStates(pack(z)), 3, way)


def double_rows(model: TVAE, missing: float = 0.0) -> Batch:
    rows = dense.rows(ROWS, model, missing=missing)
    return rows._replace(x=rows.x.double())


def maximised(model: TVAE, total: Sums) -> Any:
    """Update the model in closed form; return the weights and the bias (H + 1, D) of its layer."""
    model.maximise({name: value.double() for name, value in total.items()})
    return last_layer(model)


def last_layer(model: TVAE) -> Any:
    return np.vstack([part.detach().double() for part in dense.layers(model)[-1]])


def weighted_rows(model: TVAE, batch: Batch, z: Tensor) -> tuple[Any, Any, Any]:
    """Each kept state of each row with a one at its end, the row, and the weight of the state."""
    weight = dense.log_joint(model, batch, z).softmax(1).detach()
    x = batch.x
    if batch.mask is not None:
        expected = (weight.unsqueeze(-1) * dense.decode(model, z).detach()).sum(1)
        x = x.where(batch.mask, expected)
    states = torch.nn.functional.pad(z, (0, 1), value=1.0).flatten(0, 1)
    return states.numpy(), x.repeat_interleave(KEPT, 0).numpy(), weight.flatten().numpy()


@pytest.mark.parametrize("fields", LINEAR, ids=str)
@ways
def test_weights_and_variance_are_those_of_least_squares(fields: dict[str, Any], way: str) -> None:
    model = linear_model(**fields)
    batch = double_rows(model, 0.3 if "missing" in fields else 0.0)
    z = dense.some_states(ROWS, KEPT, LATENT)
    states, x, weight = weighted_rows(model, batch, z)
    after = maximised(model, sums_of(model, batch, z, way))
    root = np.sqrt(weight)[:, None]
    found, *_ = np.linalg.lstsq(root * states, root * x, rcond=None)
    np.testing.assert_allclose(after, found, atol=1e-8)
    error = (weight[:, None] * (x - states @ found) ** 2).sum() / batch.x.numel()
    assert dense.variance(model).item() == pytest.approx(error, rel=1e-8)


@ways
def test_bits_that_the_data_do_not_tell_apart_change_as_little_as_they_can(way: str) -> None:
    """In single precision as well, whose rounding would otherwise decide on their weights. Bits
    that are never active keep their weights.
    """
    model = linear_model(hidden=()).float()
    batch, z = dense.rows(ROWS, model), dense.some_states(ROWS, KEPT, LATENT)
    z[..., 3], z[..., 4] = 1 - z[..., 2], 0
    states, x, weight = weighted_rows(model, batch, z)
    before = last_layer(model)
    after = maximised(model, sums_of(model, batch, z, way))
    root = np.sqrt(weight)[:, None]
    least, *_ = np.linalg.lstsq(root * states, root * (x - states @ before), rcond=1e-6)
    np.testing.assert_allclose(after - before, least, atol=1e-4)
    np.testing.assert_allclose(after[4], before[4], rtol=1e-5)


@ways
def test_rounded_weights_of_many_rows_do_not_pass_for_a_part_of_the_rows(way: str) -> None:
    """The weights of a million rows may add up to one row less."""
    model = linear_model(hidden=())
    z = dense.some_states(ROWS, KEPT, LATENT)
    total = sums_of(model, double_rows(model), z, way)
    total["moments"] *= 1 - 0.6 / ROWS
    before = last_layer(model)
    assert np.abs(maximised(model, total) - before).max() > 1e-2
    with pytest.raises(Refusal, match="missing values"):
        sums_of(model, double_rows(model, 0.3), z, way)


def test_the_bound_never_falls() -> None:
    """An epoch is a step of expectation-maximisation: search, and the best parameters for it. The
    data are sums of random fields with noise.
    """
    generator = torch.Generator().manual_seed(3)
    z = (torch.rand(320, 8, generator=generator) < 0.2).float()
    rows = z @ torch.randn(8, 12, generator=generator)
    rows += 0.1 * torch.randn(320, 12, generator=generator)
    fields: dict[str, Any] = {"hidden": (), "horizon": None, "linear_fit": "closed_form"}
    model = dense.model(latent=10, dims=12, **fields)
    estep = Evolution(EvolutionConfig(states=12, block=64, parents=4, children=3), model)
    estep.prepare([rows], Lanes(len(rows), 1).held(), 0)
    config = Train(epochs=12, batch=32, rate=0.01, warmup=0, device="cpu")
    trainer = Trainer(config, model, estep, rows.numpy(), rows.numpy())
    bounds = [epoch.val_bound for epoch in trainer.run()]
    assert len(bounds) == 12
    assert all(later >= earlier - 1e-4 for earlier, later in pairwise(bounds))
    assert bounds[-1] > bounds[0] + 1


def test_an_epoch_in_which_the_decoder_ceases_to_be_linear_has_no_closed_form() -> None:
    """Its weights after the change follow the gradient."""
    model = linear_model(hidden=(LATENT,), linear=10)
    batch, z = double_rows(model), dense.some_states(ROWS, KEPT, LATENT)
    total = sums_of(model, batch, z)
    model.at(10)
    later = sums_of(model, batch, z)
    assert "moments" not in later
    total = {name: value + later.get(name, 0) for name, value in total.items()}
    before = last_layer(model)
    assert (maximised(model, total) == before).all()


def test_a_decoder_without_a_closed_form_is_refused() -> None:
    fields: list[dict[str, Any]] = [{"hidden": (64,)}]
    fields += [{"hidden": (), "likelihood": "bernoulli"}, {"hidden": (), "output": "sigmoid"}]
    for each in fields:
        with pytest.raises(Refusal, match="linear_fit"):
            TVAEModel(linear_fit="closed_form", **each)


def test_sums_that_were_taken_are_not_in_those_of_the_next_epoch() -> None:
    model = linear_model(hidden=())
    batch, words = double_rows(model), pack(dense.some_states(ROWS, KEPT, LATENT))
    engine, epochs = DeviceTVAEEngine(model, Keeps(KeptStates(words))), []
    for _ in range(2):
        engine.differentiate(batch, dense.noise(batch), ROWS)
        epochs.append(engine.sums())
        assert engine.sums() == {}
    torch.testing.assert_close(epochs[1], epochs[0])
    assert epochs[1]["fitted_rows"] == ROWS
