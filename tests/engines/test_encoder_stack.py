"""Several trainings whose products are computed together: each is what it is alone, to the bit."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distvae.engines import choose_engine, stacked_products
from distvae.engines.protocols import Request, Stack, Stackable
from distvae.engines.stacked_products import (
    LINE,
    MatrixLayout,
    Precision,
    Product,
    keeps_bits,
    lay_out,
)
from distvae.interface import Batch, Sums
from distvae.numerics.noise import Noise
from distvae.train.together import stack_engines
from tests import tiny
from tests.engines.test_encoder_engine import ACTIVATIONS, INPUTS, LIKELIHOODS, MODELS, Pair

Settings = dict[str, Any]
WIDTHS = st.lists(st.integers(1, 40), max_size=2)


def parameters(pair: Pair) -> dict[str, torch.nn.Parameter]:
    return {**dict(pair.model.named_parameters()), **dict(pair.estep.named_parameters())}


def gradients(pair: Pair) -> dict[str, Tensor]:
    found = {}
    for name, parameter in parameters(pair).items():
        if parameter.grad is not None:
            found[name] = parameter.grad.clone()
    return found


def request(pair: Pair) -> Request:
    return Request(pair.batch, Noise(pair.seed, 1, pair.batch.row), 40)


def alone(pair: Pair) -> tuple[Sums, dict[str, Tensor]]:
    engine = choose_engine("auto", pair.model, pair.estep)
    assert engine is not None
    return engine.differentiate(*request(pair)), gradients(pair)


def stacked(pairs: Sequence[Pair]) -> Stack:
    engines = [choose_engine("auto", pair.model, pair.estep) for pair in pairs]
    assert isinstance(engines[0], Stackable)
    stack = stack_engines(engines)
    assert stack is not None
    return stack


def assert_as_alone(pairs: Sequence[Pair], expected: list[tuple[Sums, dict[str, Tensor]]]) -> None:
    """Compare sums and gradients bit by bit, in two steps of the same stack."""
    stack = stacked(pairs)
    for _ in range(2):
        found = stack.differentiate([request(pair) for pair in pairs])
        for pair, sums, (alone_sums, alone_gradients) in zip(pairs, found, expected, strict=True):
            assert {name: float(value.sum()) for name, value in sums.items()} == {
                name: float(value.sum()) for name, value in alone_sums.items()
            }
            together = gradients(pair)
            assert together.keys() == alone_gradients.keys()
            for name, value in alone_gradients.items():
                assert torch.equal(together[name], value), name


@settings(max_examples=60)
@given(
    st.sampled_from(MODELS),
    st.sampled_from(LIKELIHOODS),
    st.sampled_from(INPUTS),
    st.tuples(st.sampled_from(ACTIVATIONS), WIDTHS, WIDTHS),
    st.tuples(st.integers(1, 33), st.sampled_from([0.0, 0.4])),
    st.integers(2, 5),
)
def test_sums_and_gradients_are_those_of_each_training_alone(
    model: Settings,
    likelihood: str,
    kind: str,
    nets: tuple[str, list[int], list[int]],
    data: tuple[int, float],
    trainings: int,
) -> None:
    activation, encoder, decoder = nets
    model = model | {"likelihood": likelihood, "activation": activation, "hidden": decoder}
    estep = {"input": kind, "activation": activation, "hidden": encoder}
    pairs = [Pair(model, estep, *data, seed=seed) for seed in range(trainings)]
    assert_as_alone(pairs, [alone(pair) for pair in pairs])


def test_the_settings_of_each_training_are_its_own() -> None:
    """What is no shape of a layer may differ: beta, alpha, likelihood, even the kind."""
    models: list[Settings] = [
        {"kind": "vae", "beta": 3.0, "likelihood": "gaussian"},
        {"kind": "sdm", "activation": "relu"},
        {"kind": "vae", "likelihood": "bernoulli"},
    ]
    pairs = [Pair(model | {"hidden": [30]}, {}, 20, seed=i) for i, model in enumerate(models)]
    assert_as_alone(pairs, [alone(pair) for pair in pairs])
    spikes = [Pair({"kind": "vsc", "alpha": alpha}, {}, 20) for alpha in (0.1, 0.5)]
    assert_as_alone(spikes, [alone(pair) for pair in spikes])


def test_parameters_stay_the_same_objects_with_the_same_values() -> None:
    pairs = [Pair({"kind": "vae"}, {}, seed=seed) for seed in range(3)]
    before = [{name: (each, each.clone()) for name, each in parameters(p).items()} for p in pairs]
    stacked(pairs)
    for pair, kept in zip(pairs, before, strict=True):
        for name, each in parameters(pair).items():
            assert each is kept[name][0]
            assert torch.equal(each, kept[name][1])


def test_one_that_leaves_a_stack_goes_on_alone_and_others_without_it() -> None:
    pairs = [Pair({"kind": "vae"}, {}, seed=seed) for seed in range(3)]
    expected = [alone(pair) for pair in pairs]
    engines = [choose_engine("auto", pair.model, pair.estep) for pair in pairs]
    for members in ([0, 1, 2], [0, 2], [0, 1], [2, 1, 0]):
        stack = stack_engines([engines[i] for i in members])
        assert stack is not None
        stack.differentiate([request(pairs[i]) for i in members])
        for i in members:
            for name, value in gradients(pairs[i]).items():
                assert torch.equal(value, expected[i][1][name])
    engine = engines[1]
    assert engine is not None
    engine.differentiate(*request(pairs[1]))
    for name, value in gradients(pairs[1]).items():
        assert torch.equal(value, expected[1][1][name])


def test_batches_of_different_sizes_are_computed_one_by_one() -> None:
    pairs = [Pair({"kind": "vae"}, {}, seed=seed) for seed in range(3)]
    short = pairs[1].batch
    pairs[1].batch = Batch(short.x[:4], short.row[:4])
    assert_as_alone(pairs, [alone(pair) for pair in pairs])


def test_engines_of_other_layers_are_not_stacked() -> None:
    pairs = [Pair({"kind": "vae", "hidden": [size]}, {}) for size in (8, 9)]
    assert stack_engines([choose_engine("auto", p.model, p.estep) for p in pairs]) is None
    assert stack_engines([choose_engine("auto", p.model, p.estep) for p in pairs[:1]]) is None
    by_autograd = choose_engine("autograd", pairs[0].model, pairs[0].estep)
    engine = choose_engine("auto", pairs[0].model, pairs[0].estep)
    assert stack_engines([engine, by_autograd]) is None
    assert stack_engines([by_autograd, engine]) is None


@pytest.mark.parametrize("together", [True, False])
def test_products_that_would_have_other_bits_are_computed_one_by_one(
    together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked_products, "keeps_bits", lambda *layouts: together)
    a, b, addend = torch.randn(3, 5, 7), torch.randn(3, 9, 7).mT, torch.randn(3, 1, 9)
    for added in (None, addend):
        out = torch.empty(3, 5, 9)
        product = Product(a, b, out, added)
        product.compute()
        assert product.together == together
        expected = a.double() @ b.double() + (0 if added is None else added)
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_whether_bits_are_kept_is_found_by_trying() -> None:
    """A product that errs in the last digit is noticed."""
    layouts = tuple(
        MatrixLayout.of(torch.empty(2, *shape)) for shape in ((40, 30), (30, 20), (40, 20))
    )
    assert len(layouts) == 3
    exact, precision = torch.bmm, Precision.current(torch.float32)

    def rounded(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
        return exact(a, b, out=out).mul_(1 + 1e-7)

    keeps_bits.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "bmm", rounded)
        assert not keeps_bits(layouts, False, precision)
    keeps_bits.cache_clear()


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40))
def test_every_matrix_begins_at_a_line_of_cache(count: int, rows: int, columns: int) -> None:
    whole = lay_out(count, (rows, columns), torch.float32)
    assert whole.shape == (count, rows, columns)
    assert all(matrix.is_contiguous() for matrix in whole)
    assert all(matrix.data_ptr() % LINE == 0 for matrix in whole)


def test_a_pass_of_tiny_models_is_that_of_each_alone() -> None:
    """So small that libraries choose other loops for products together."""
    model: Settings = {"kind": "vae", "hidden": [2], "latent": 1}
    pairs = [Pair(model, {"hidden": [2]}, 3, seed=seed) for seed in range(4)]
    assert pairs[0].batch.x.shape[1] == tiny.DIMS
    assert_as_alone(pairs, [alone(pair) for pair in pairs])
