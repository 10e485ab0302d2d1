"""The TVAE's engines on the CPU and on a GPU against the dense model, and against autograd in
training.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from distvae.config import Evolution as EvolutionConfig
from distvae.config import Train
from distvae.engines import tvae_gpu
from distvae.engines.tvae_cpu import TVAEEngine
from distvae.engines.tvae_gpu import DeviceTVAEEngine, Scores
from distvae.estep import assemble
from distvae.estep.store import CompactStore, as_words
from distvae.estep.truncated import Evolution
from distvae.interface import Batch, Sums
from distvae.models.population import LEFT_OUT, NEAR, SAMPLED, pack
from distvae.models.truncated import KeptStates
from distvae.models.tvae import TVAE, weight_left_out
from distvae.numerics.rows import Lanes
from distvae.train.loop import Trainer, choose_engine
from distvae.train.step import add
from distvae.train.team import CPU
from tests import dense, tiny

ROWS, KEPT = 40, 9
WAYS = ["autograd", "cpu", "gpu"]
VARIANTS: list[dict[str, Any]] = [*dense.VARIANTS, {"latent": 70, "hidden": (9,)}]
ways = pytest.mark.parametrize("way", WAYS)


class Keeps:
    """An E-step that keeps given states."""

    def __init__(self, kept: KeptStates) -> None:
        self.kept = kept

    def kept_states(self, batch: Batch) -> KeptStates:
        return self.kept


def sums_of(model: TVAE, batch: Batch, kept: KeptStates, rows: int, way: str) -> Sums:
    """Return the sums of one step; its gradients are in the parameters."""
    noise = dense.noise(batch)
    if way == "autograd":
        q = model.posterior(batch, kept.words, kept.part)
        objective = model.objective(batch, q, noise).sum()
        if objective.requires_grad:
            (-objective / rows).backward()
        return model.statistics(batch, q, noise) | {"objective": objective.detach()}
    if way == "cpu":
        return TVAEEngine(model, Keeps(kept)).differentiate(batch, noise, rows)
    engine = DeviceTVAEEngine(model, Keeps(kept))
    assert engine.differentiate(batch, noise, rows) == {}, "sums wait"
    sums = engine.sums()
    assert sums.pop("finite") == 1
    return sums


def some_states(model: TVAE) -> Tensor:
    """(B, S, H) distinct in each row, with few active bits if there are many."""
    if model.code_size <= 10:
        return dense.some_states(ROWS, KEPT, model.code_size)
    z = torch.zeros(ROWS, KEPT, model.code_size, dtype=torch.float64)
    for state in range(KEPT):
        z[:, state, state * 7 : state * 7 + 1 + state % 3] = 1
    return z


def parts(leaves_out: bool = True) -> Tensor:
    """(B, S) whether states take part; the first one of each row does."""
    generator = torch.Generator().manual_seed(0)
    part = torch.randint(0, 3, (ROWS, KEPT), generator=generator, dtype=torch.uint8)
    part[:, 0] = NEAR
    return part if leaves_out else torch.full_like(part, NEAR)


def near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize(
    ("dtype", "leaves_out", "missing"),
    [(torch.float32, True, 0.0), (torch.float64, True, 0.3), (torch.float64, False, 0.0)],
)
@ways
def test_gradients_and_sums_are_those_of_the_dense_model(
    variant: dict[str, Any], missing: float, dtype: torch.dtype, leaves_out: bool, way: str
) -> None:
    model = dense.model(**variant).to(dtype)
    rows = dense.rows(ROWS, model, missing=missing)
    batch = rows._replace(x=rows.x.to(dtype))
    z, part = some_states(model), parts(leaves_out)
    kept = KeptStates(pack(z), part if leaves_out else None)
    sums = sums_of(model, batch, kept, 2 * ROWS, way)
    joint = dense.log_joint(model, batch, z).masked_fill(part == LEFT_OUT, -torch.inf)
    bound = joint.logsumexp(1).sum()
    expected = torch.autograd.grad(-bound / (2 * ROWS), list(model.parameters()))
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-10}[dtype]
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        near(parameter.grad, gradient, tolerance)
    weight = joint.softmax(1).detach()
    code = (weight.unsqueeze(-1) * z).sum(1)
    assert sums["objective"].item() == pytest.approx(bound.item(), rel=tolerance)
    assert torch.allclose(sums["active"].double(), code.sum(0), rtol=tolerance, atol=tolerance)
    counts = code.sum(1).round().long().bincount(minlength=z.shape[2] + 1)
    assert torch.equal(sums["counts"].double(), counts.double())
    sampled = weight.where(part == SAMPLED, 0).sum().item()
    assert sums["sampled_weight"].item() == pytest.approx(sampled, rel=tolerance, abs=tolerance)
    autograd = sums_of(model, batch, kept, 2 * ROWS, "autograd")
    assert sums.keys() == autograd.keys()
    for name, value in autograd.items():
        near(sums[name].double(), value.double(), 1e-5)
    score, all_joints = model.score(batch, pack(z)).double(), dense.log_joint(model, batch, z)
    torch.testing.assert_close(score, all_joints, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("variant", [VARIANTS[0], *VARIANTS[3:5]], ids=str)
@ways
def test_completed_values_are_explained_like_observed_ones(
    variant: dict[str, Any], way: str
) -> None:
    """The posterior is that given the observed values alone."""
    model = dense.model(**variant, missing="completed").double()
    rows = dense.rows(ROWS, model, missing=0.3)
    batch = rows._replace(x=rows.x.double())
    z, part = some_states(model), parts()
    joint = dense.log_joint(model, batch, z).masked_fill(part == LEFT_OUT, -torch.inf)
    weight = joint.softmax(1).detach()
    filled = (weight.unsqueeze(-1) * dense.likelihood(model, z).mean.detach()).sum(1)
    assert batch.mask is not None
    densities = dense.log_densities(model, batch.x.where(batch.mask, filled), z)
    explained = (weight * densities.sum(-1)).sum()
    expected = torch.autograd.grad(-explained, list(model.parameters()))
    sums = sums_of(model, batch, KeptStates(pack(z), part), 1, way)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        near(parameter.grad, gradient, 1e-9)
    if model.likelihood.learns:
        assert sums["values"] == batch.x.numel()
        assert sums["density"].item() == pytest.approx(explained.item(), rel=1e-9)


@ways
def test_layers_that_do_not_learn_yet_have_no_gradient(way: str) -> None:
    model = dense.model(hidden=(6, 6), linear=3)
    model.at(0)
    batch, z = dense.rows(ROWS, model), some_states(model)
    sums_of(model, batch, KeptStates(pack(z)), ROWS, way)
    learning = [parameter.grad is not None for parameter in model.parameters()]
    assert learning == [parameter.requires_grad for parameter in model.parameters()]
    assert sum(learning) == 2


@pytest.mark.parametrize("fields", [{}, {"likelihood": "bernoulli"}], ids=str)
@pytest.mark.parametrize(("decoded", "missing"), [(1, 0.3), (10**9, 0.0)])
def test_scores_on_a_gpu_are_those_of_the_dense_model_and_follow_its_parameters(
    fields: dict[str, Any], missing: float, decoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tvae_gpu, "DECODED", decoded)
    model = dense.model(**fields)
    scores, batch = Scores(model), dense.rows(ROWS, model, missing=missing)
    z = some_states(model)
    for _ in range(2):
        with torch.no_grad():
            found = scores.score(batch, pack(z))
        expected = dense.log_joint(model, batch, z)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
        with torch.no_grad():
            model.pi.mul_(0.5)
            if model.likelihood.learns:
                dense.variance(model).mul_(3)


def test_sums_of_many_steps_on_a_gpu_are_those_of_each() -> None:
    model = dense.model()
    batch = dense.rows(ROWS, model, missing=0.3)
    states = KeptStates(pack(some_states(model)), parts())
    kept = Keeps(states)
    together, single = DeviceTVAEEngine(model, kept), DeviceTVAEEngine(model, kept)
    total: Sums = {}
    for rows in (slice(0, 16), slice(16, 32), slice(32, ROWS)):
        part, kept.kept = batch.part(rows), states.of_rows(rows)
        request = (part, dense.noise(part), ROWS)
        assert not together.differentiate(*request)
        add(total, single.differentiate(*request) | single.sums())
    sums = together.sums()
    assert sums.pop("finite") == 2, "whole steps"
    assert sums.keys() == total.keys() - {"finite"}
    for name, value in sums.items():
        near(value.double(), total[name], 1e-5)


def test_a_diverged_model_has_no_number_for_its_objective() -> None:
    model = dense.model()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    batch, z = dense.rows(ROWS, model), some_states(model)
    assert sums_of(model, batch, KeptStates(pack(z)), ROWS, "cpu")["objective"].isnan()


def trained(gradients: str, horizon: float | None, compact: bool = True, **fields: Any) -> Trainer:
    """Train a small model for two epochs."""
    model = dense.model(latent=70, hidden=(9,), horizon=horizon, **fields)
    rows = dense.rows(300, model).x.numpy()
    estep = Evolution(EvolutionConfig(states=12, block=64, parents=4, children=3), model)
    held = Lanes(len(rows), 1).held()
    estep.prepare([torch.from_numpy(rows)], held, 0)
    if not compact:
        estep.store = as_words(estep.store, CPU, math.inf)
    assert isinstance(estep.store, CompactStore) == compact
    config = Train(epochs=2, batch=32, rate=0.01, warmup=0, device="cpu", gradients=gradients)  # type: ignore[arg-type]
    trainer = Trainer(config, model, estep, rows, rows)
    records = list(trainer.run())
    assert len(records) == 2
    return trainer


@pytest.mark.parametrize(("likelihood", "horizon"), [("gaussian", 3.0), ("bernoulli", None)])
def test_training_ends_where_autograd_ends(likelihood: str, horizon: float | None) -> None:
    by_hand, by_autograd = (
        trained(way, horizon, likelihood=likelihood) for way in ("auto", "autograd")
    )
    assert by_hand.eager.engine is not None
    assert by_autograd.eager.engine is None
    horizons = [each.model.state_dict()["horizon"] for each in (by_hand, by_autograd)]
    assert torch.equal(*horizons)
    for one, other in zip(by_hand.parameters, by_autograd.parameters, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()


def test_states_as_words_and_the_completion_of_nothing_change_no_bit() -> None:
    plain = trained("auto", 3.0)
    for same in (trained("auto", 3.0, compact=False), trained("auto", 3.0, missing="completed")):
        for one, other in zip(plain.parameters, same.parameters, strict=True):
            assert torch.equal(one, other)


def test_the_horizon_grows_when_more_than_a_trace_is_left_out() -> None:
    narrow, wide = (trained("auto", horizon).model for horizon in (0.5, 500.0))
    assert narrow.state_dict()["horizon"] > 0.5
    assert wide.state_dict()["horizon"] == 500.0
    none = torch.zeros((), dtype=torch.float64)
    assert weight_left_out({"sampled_weight": none, "sampled_rows": none}) == 0


def test_the_horizon_shrinks_when_less_than_a_trace_would_be_left_out() -> None:
    model, rows = dense.model(horizon=24.0), 50.0
    for horizon, left_out, then in (
        (24.0, 2e-5, 36.0),
        (24.0, 0.0, 24.0),
        (36.0, 1e-5 * math.exp(-13), 24.0),
        (36.0, 1e-5 * math.exp(-11), 36.0),
        (30.0, 0.0, 24.0),
        (54.0, 0.0, 36.0),
    ):
        model.horizon.fill_(horizon)
        sums = {"sampled_weight": left_out * rows, "sampled_rows": rows}
        sums |= {"values": 1.0, "density": -1.0}
        total = {name: torch.tensor(value, dtype=torch.float64) for name, value in sums.items()}
        total |= {"active": model.pi.double(), "counts": torch.ones(model.code_size + 1)}
        model.maximise(total)
        assert model.horizon.item() == pytest.approx(then)


def test_what_is_left_out_is_what_states_beyond_the_horizon_weigh() -> None:
    """With all rows sampled, by the weights of the kept states before the first step."""
    trainer = trained("auto", 1.0)
    model, estep = trainer.model, trainer.estep
    assert isinstance(model, TVAE)
    assert isinstance(estep, Evolution)
    model.horizon.fill_(5.0)
    batch = dense.rows(300, model)
    noise = dense.noise(batch, 7)
    estep.search_block(model, batch, noise)
    kept = estep.kept_states(batch)
    assert kept.part is not None
    exact = model.posterior(batch, kept.words)
    gap = exact.log_joint.amax(1, keepdim=True) - exact.log_joint
    sampled = (noise.uniform("sample", 1) < 1 / 64).expand_as(gap)
    beyond = gap > model.horizon
    assert (beyond & (gap < 6)).any(), "states little beyond it"
    assert (~beyond & (gap > 4)).any(), "and states little within it"
    assert torch.equal(kept.part == LEFT_OUT, beyond & ~sampled)
    assert torch.equal(kept.part == SAMPLED, beyond & sampled)
    sums = sums_of(model, batch, kept, 300, "cpu")
    expected = exact.weight.where(beyond & sampled, 0).sum()
    assert sums["sampled_weight"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_derived_models_are_left_to_autograd() -> None:
    class Derived(TVAE):
        """A model of someone else, whose objective may be another."""

    config = tiny.config(model={"kind": "tvae"}, estep={"kind": "evolution", "states": 6})
    model, estep = assemble(config, tiny.DIMS)
    derived = Derived(config.model, tiny.DIMS)  # type: ignore[arg-type]
    assert choose_engine("auto", model, estep) is not None
    assert choose_engine("auto", derived, estep) is None
