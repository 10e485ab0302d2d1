"""What every model keeps to, present and future: one test for each promise of the interface, over
all families.
"""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from distvae.config import Config
from distvae.config.registry import FAMILIES
from distvae.estep import assemble
from distvae.interface import Batch, expect, prepare
from distvae.models.registry import MODELS
from distvae.numerics.lanes import Lanes
from distvae.numerics.noise import Noise
from tests import tiny

ROWS = 6
AMORTISED: list[dict[str, Any]] = [
    {"kind": "vae"},
    *({"kind": "vae", "likelihood": likelihood} for likelihood in ("gaussian", "bernoulli")),
    {"kind": "sdm"},
    {"kind": "sdm", "dictionary": "dct", "atoms": 7},
    {"kind": "sdm", "dictionary": "learned", "atoms": 7, "coherence": 0.1},
    {"kind": "vsc"},
    {"kind": "vsc", "prior": "pseudo"},
    {"kind": "gumbel"},
    {"kind": "gumbel", "prior": "learned", "alpha": 0.2, "cooling": 100},
    {"kind": "vae", "hidden": []},
    {"kind": "vae", "hidden": [9, 8, 7], "activation": "relu"},
]
TRUNCATED: list[dict[str, Any]] = [
    {
        "model": {"kind": "tvae"},
        "estep": {"kind": "evolution", "states": 9, "parents": 3, "children": 2},
    },
    {"model": {"kind": "tvae", "hidden": []}, "estep": {"kind": "random", "states": 5}},
    {
        "model": {"kind": "tvae", "likelihood": "bernoulli", "hidden": [5, 6]},
        "estep": {"kind": "exact"},
    },
    {"model": {"kind": "tvae", "output": "sigmoid", "variance": None}, "estep": {"kind": "exact"}},
]
CONVOLVED: dict[str, Any] = {"net": "conv", "channels": [3], "activation": "leaky_relu"}
CONVOLUTIONAL = [
    {
        "model": {"kind": kind, "likelihood": "bernoulli"} | CONVOLVED,
        "estep": {"input": "raw"} | CONVOLVED,
    }
    for kind in ("vae", "sdm", "vsc", "gumbel")
]
VARIANTS = [
    *({"model": model, "estep": {"input": "log"}} for model in AMORTISED),
    *CONVOLUTIONAL,
    *TRUNCATED,
]


@dataclasses.dataclass
class Case:
    """A model with random weights, its E-step, and some rows."""

    config: Config
    model: Any
    estep: Any
    batch: Batch
    noise: Noise

    @property
    def q(self) -> Any:
        """The posteriors of the rows."""
        return self.estep(self.model, self.batch)


@pytest.fixture(params=VARIANTS, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    """Every family, and the variants that take another path."""
    config = tiny.config(**request.param)
    model, estep = assemble(config, tiny.DIMS, tiny.SHAPE)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ROWS, tiny.DIMS, generator=generator)
    row = torch.arange(ROWS)
    for part in (model, estep):
        prepare(part, [x], Lanes(ROWS, 1).held(), 0)
    return Case(config, model, estep, Batch(x, row), Noise(0, 0, row))


def test_every_family_has_a_model_and_is_among_the_variants() -> None:
    assert {variant["model"]["kind"] for variant in VARIANTS} == set(FAMILIES["model"])
    assert {FAMILIES["model"][kind] for kind in FAMILIES["model"]} == set(MODELS)


def test_shapes_are_those_of_the_interface(case: Case) -> None:
    states = case.model.code_size
    assert case.q.code.shape == (ROWS, states)
    for draws in (0, 1, 3):
        z, weight = case.q.points(draws, case.noise)
        assert z.shape == (*weight.shape, states)
        assert len(weight) == ROWS
        torch.testing.assert_close(weight.sum(1), torch.ones(ROWS))
        assert case.model.decode(z).shape == (*weight.shape, tiny.DIMS)
        assert case.model.log_likelihood(case.batch, z).shape == weight.shape
        assert case.q.log_ratio(z).shape == weight.shape
    for value in (
        case.model.bound(case.batch, case.q, case.noise),
        case.model.objective(case.batch, case.q, case.noise),
    ):
        assert value.shape == (ROWS,)
        assert value.isfinite().all()
    assert case.model.prior(case.noise, case.estep).shape == (ROWS, 1, states)


def test_expectation_is_linear_and_keeps_constants(case: Case) -> None:
    ones = expect(case.q, torch.ones_like, 3, case.noise)
    torch.testing.assert_close(ones, torch.ones_like(ones))
    once = expect(case.q, case.model.decode, 3, case.noise)
    torch.testing.assert_close(
        expect(case.q, lambda z: 2 * case.model.decode(z), 3, case.noise), 2 * once
    )


def test_no_draws_leave_nothing_to_chance(case: Case) -> None:
    other = Noise(99, 7, case.noise.row)
    assert torch.equal(
        expect(case.q, case.model.decode, 0, case.noise),
        expect(case.q, case.model.decode, 0, other),
    )


def test_the_same_rows_in_another_order_give_the_same_values(case: Case) -> None:
    turned = torch.arange(ROWS).flip(0)
    batch = Batch(case.batch.x[turned], turned)
    noise = Noise(0, 0, turned)
    one = case.model.objective(case.batch, case.q, case.noise)
    other = case.model.objective(batch, case.estep(case.model, batch), noise)
    torch.testing.assert_close(one[turned], other)


def test_statistics_add_over_parts_of_a_batch(case: Case) -> None:
    whole = case.model.statistics(case.batch, case.q, case.noise)
    parts = []
    for rows in (slice(0, 2), slice(2, None)):
        batch = Batch(case.batch.x[rows], case.batch.row[rows])
        parts.append(
            case.model.statistics(batch, case.estep(case.model, batch), Noise(0, 0, batch.row))
        )
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[0][name] + parts[1][name])
    case.model.maximise(whole)


def test_the_bound_is_the_mean_of_its_integrand(case: Case) -> None:
    """E_q[log p(x | z) + log p(z) - log q(z)], by many draws, is what one draw and the closed forms
    estimate.
    """
    draws, visits = 2000, 400
    with torch.no_grad():
        z, _ = case.q.points(draws, case.noise)
        integrand = case.model.log_likelihood(case.batch, z) + case.q.log_ratio(z)
        singles = torch.stack(
            [
                case.model.bound(case.batch, case.q, Noise(1, epoch, case.batch.row))
                for epoch in range(visits)
            ]
        )
    error = (integrand.var(1) / draws + singles.var(0) / visits).sqrt()
    assert ((singles.mean(0) - integrand.mean(1)).abs() < 5 * error + 1e-4).all()


def test_the_bound_never_exceeds_an_importance_weighted_estimate(case: Case) -> None:
    with torch.no_grad():
        z, _ = case.q.points(5000, case.noise)
        integrand = (case.model.log_likelihood(case.batch, z) + case.q.log_ratio(z)).double()
        weighted = integrand.logsumexp(1) - math.log(integrand.shape[1])
    assert (integrand.mean(1) <= weighted + 1e-5).all()


def test_the_objective_reaches_every_parameter(case: Case) -> None:
    case.model.at(math.inf)
    (-case.model.objective(case.batch, case.q, case.noise).sum()).backward()
    for name, parameter in [*case.model.named_parameters(), *case.estep.named_parameters()]:
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert bool(parameter.grad.any()), name


def test_what_is_missing_changes_nothing(case: Case) -> None:
    mask = torch.ones_like(case.batch.x, dtype=torch.bool)
    mask[:, ::3] = False
    values: list[Tensor] = []
    for filled in (0.5, 2.0):
        batch = Batch(case.batch.x.where(mask, filled), case.batch.row, mask)
        values.append(case.model.bound(batch, case.estep(case.model, batch), case.noise))
    assert torch.equal(*values)


def test_the_weights_are_a_function_of_the_seed(case: Case) -> None:
    again, _ = assemble(case.config, tiny.DIMS, tiny.SHAPE)
    other, _ = assemble(case.config.with_("train", seed=1), tiny.DIMS, tiny.SHAPE)
    same = [
        torch.equal(a, b) for a, b in zip(case.model.parameters(), again.parameters(), strict=True)
    ]
    differ = [
        not torch.equal(a, b)
        for a, b in zip(case.model.parameters(), other.parameters(), strict=True)
    ]
    assert all(same)
    assert any(differ)


def test_warm_ups_end(case: Case) -> None:
    case.model.at(0)
    case.model.at(math.inf)
    ended = case.model.objective(case.batch, case.q, case.noise)
    case.model.at(10**9)
    assert torch.equal(ended, case.model.objective(case.batch, case.q, case.noise))


def test_projecting_twice_is_projecting_once(case: Case) -> None:
    if not hasattr(case.model, "project"):
        return
    case.model.project()
    once = {name: value.clone() for name, value in case.model.state_dict().items()}
    case.model.project()
    for name, value in case.model.state_dict().items():
        torch.testing.assert_close(value, once[name])
