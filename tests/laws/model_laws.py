"""The laws that models, E-steps and their posteriors keep.

A law takes a `Case` and raises an AssertionError where it is broken.
"""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distvae.config import Config, from_dict
from distvae.estep import assemble
from distvae.interface import (
    AnyEStep,
    AnyModel,
    Batch,
    ClosedForm,
    Persistent,
    Posterior,
    Projects,
    Scheduled,
    Searches,
    Sums,
    expect,
    prepare,
)
from distvae.numerics.noise import Noise
from distvae.numerics.rows import Lanes

ROWS = 6
SHAPE = (1, 3, 4)
DRAWS, COPIES = 2000, 400
"""Draws of the integrand, and copies of each row, which have their own draws. An E-step that keeps
states of rows knows no copies: each row then has as many epochs.
"""
IMPORTANCE_DRAWS = 5000
STANDARD_ERRORS = 5


@dataclass(frozen=True)
class Case:
    """An untrained model, its E-step, and some rows with values between 0 and 1."""

    config: Config
    model: AnyModel
    estep: AnyEStep
    batch: Batch
    noise: Noise
    shape: tuple[int, ...]

    @classmethod
    def of(cls, settings: Mapping[str, object], shape: tuple[int, ...] = SHAPE) -> "Case":
        """Return a new case for the sections of a configuration, such as {"model": {...}}."""
        config = from_dict(settings)
        model, estep = assemble(config, torch.Size(shape).numel(), shape)
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(ROWS, torch.Size(shape).numel(), generator=generator)
        row = torch.arange(ROWS)
        for part in (model, estep):
            prepare(part, [x], Lanes(ROWS, 1).held(), 0)
        return cls(config, model, estep, Batch(x, row), Noise(0, 0, row), shape)

    @property
    def q(self) -> Posterior:
        """The posteriors of the rows."""
        return self.estep(self.model, self.batch)

    def assemble(self, **train: object) -> tuple[AnyModel, AnyEStep]:
        """Return the model and the E-step anew, with other settings of the section `train`."""
        config = self.config.with_("train", **train) if train else self.config
        return assemble(config, self.batch.x.shape[1], self.shape)

    def part(self, rows: slice) -> Batch:
        """Return some of the rows."""
        return Batch(self.batch.x[rows], self.batch.row[rows])


def shapes_are_those_of_the_interface(case: Case) -> None:
    """Codes, points, weights, decoded values and densities have the shapes of the protocols."""
    rows, dims = case.batch.x.shape
    size, q = case.model.code_size, case.q
    missing = [name for name in ("code", "points", "log_ratio") if not hasattr(q, name)]
    assert not missing, f"a posterior of class {type(q).__name__} has no {' and no '.join(missing)}"
    _has_shape("code", q.code, rows, size)
    if hasattr(q, "kl"):  # one divergence for all rows would be spread over their bounds
        _has_shape("kl", q.kl(), rows)
    for draws in (0, 1, 3):
        z, weight = q.points(draws, case.noise)
        _has_shape("weights of points", weight, rows, weight.shape[1])
        _has_shape("points", z, *weight.shape, size)
        torch.testing.assert_close(weight.sum(1), torch.ones(rows))
        _has_shape("decode", case.model.decode(z), *weight.shape, dims)
        log_likelihood = case.model.log_likelihood(case.batch, z)
        _has_shape("log_likelihood", log_likelihood, *weight.shape)
        _has_shape("log_ratio", q.log_ratio(z), *weight.shape)
    bound = case.model.bound(case.batch, q, case.noise)
    objective = case.model.objective(case.batch, q, case.noise)
    for name, value in (("bound", bound), ("objective", objective)):
        _has_shape(name, value, rows)
        assert value.isfinite().all(), f"{name}: a value that is not finite"
    _has_shape("prior", case.model.prior(case.noise, case.estep), rows, 1, size)


def _has_shape(name: str, value: Tensor, *shape: int) -> None:
    found = tuple(value.shape)
    assert found == shape, f"{name}: a tensor of shape {found}; {shape} expected"


def expectations_are_linear_and_keep_constants(case: Case) -> None:
    """E[1] = 1 and E[2 f] = 2 E[f], by draws and without."""
    q, decode = case.q, case.model.decode
    for draws in (0, 3):
        ones = expect(q, torch.ones_like, draws, case.noise)
        torch.testing.assert_close(ones, torch.ones_like(ones))
        once = expect(q, decode, draws, case.noise)
        twice = expect(q, lambda z: 2 * decode(z), draws, case.noise)
        torch.testing.assert_close(twice, 2 * once)


def expectations_without_draws_are_fixed(case: Case) -> None:
    """Without draws, an expectation does not depend on the noise; the code of a row is E_q[z]."""
    q, other = case.q, Noise(99, 7, case.noise.row)
    one = expect(q, case.model.decode, 0, case.noise)
    assert torch.equal(one, expect(q, case.model.decode, 0, other))
    torch.testing.assert_close(q.code, expect(q, lambda z: z))


def the_order_of_rows_does_not_matter(case: Case) -> None:
    """Rows in another order have the same objectives."""
    turned = case.batch.row.flip(0)
    batch = Batch(case.batch.x[turned], turned)
    one = case.model.objective(case.batch, case.q, case.noise)
    q = case.estep(case.model, batch)
    other = case.model.objective(batch, q, Noise(0, 0, turned))
    torch.testing.assert_close(one[turned], other)


def statistics_add_over_parts_of_a_batch(case: Case) -> None:
    """The statistics of a batch are the sums over the statistics of its parts."""
    if not isinstance(case.model, ClosedForm):
        return
    whole: Sums = case.model.statistics(case.batch, case.q, case.noise)
    parts = []
    for rows in (slice(0, 2), slice(2, None)):
        batch = case.part(rows)
        q = case.estep(case.model, batch)
        parts.append(case.model.statistics(batch, q, Noise(0, 0, batch.row)))
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[0][name] + parts[1][name])
    case.model.maximise(whole)


@torch.no_grad()
def the_bound_is_the_mean_of_its_integrand(case: Case) -> None:
    """The bound is E_q[log p(x | z) + log p(z) - log q(z)], however it is computed."""
    q = case.q
    z, _ = q.points(DRAWS, case.noise)
    integrand = case.model.log_likelihood(case.batch, z) + q.log_ratio(z)
    copies = 1 if isinstance(case.estep, Persistent) else COPIES
    row = torch.arange(copies * ROWS)
    batch = Batch(case.batch.x.repeat(copies, 1), row)
    q = case.estep(case.model, batch)
    noises = (Noise(1, epoch, row) for epoch in range(COPIES // copies))
    bounds = torch.cat([case.model.bound(batch, q, noise) for noise in noises])
    bound = bounds.view(COPIES, ROWS)
    error = (integrand.var(1) / DRAWS + bound.var(0) / COPIES).sqrt()
    difference = (bound.mean(0) - integrand.mean(1)).abs()
    assert (difference < STANDARD_ERRORS * error + 1e-4).all()


@torch.no_grad()
def the_bound_never_exceeds_an_importance_weighted_estimate(case: Case) -> None:
    """The mean of the integrand is at most the logarithm of the mean of its exponential."""
    z, _ = case.q.points(IMPORTANCE_DRAWS, case.noise)
    integrand = (case.model.log_likelihood(case.batch, z) + case.q.log_ratio(z)).double()
    weighted = integrand.logsumexp(1) - math.log(integrand.shape[1])
    assert (integrand.mean(1) <= weighted + 1e-5).all()


def the_objective_reaches_every_parameter(case: Case) -> None:
    """After all warm-ups every parameter that learns has a gradient."""
    if isinstance(case.model, Scheduled):
        case.model.at(math.inf)
    objective = case.model.objective(case.batch, case.q, case.noise)
    if objective.requires_grad:
        (-objective.sum()).backward()
    for name, parameter in [*case.model.named_parameters(), *case.estep.named_parameters()]:
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert bool(parameter.grad.any()), name


def missing_values_change_nothing(case: Case) -> None:
    """A value that is masked does not enter the bound."""
    mask = torch.ones_like(case.batch.x, dtype=torch.bool)
    mask[:, ::3] = False
    values = []
    for filled in (0.5, 2.0):
        batch = Batch(case.batch.x.where(mask, filled), case.batch.row, mask)
        values.append(case.model.bound(batch, case.estep(case.model, batch), case.noise))
    assert torch.equal(*values)


def the_weights_are_a_function_of_the_seed(case: Case) -> None:
    """A seed gives the same first weights again; another seed gives others."""
    (again, _), (other, _) = case.assemble(), case.assemble(seed=case.config.train.seed + 1)
    for seed, model in enumerate((again, other)):
        prepare(model, [case.batch.x], Lanes(ROWS, 1).held(), seed)
    for one, two in zip(case.model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    pairs = zip(case.model.parameters(), other.parameters(), strict=True)
    assert any(not torch.equal(one, two) for one, two in pairs)


def warm_ups_end(case: Case) -> None:
    """Late in training the objective equals the objective after all warm-ups."""
    if not isinstance(case.model, Scheduled):
        return
    values = []
    for step in (math.inf, 10**9):
        case.model.at(0)
        case.model.at(step)
        q = case.estep(case.model, case.batch)
        values.append(case.model.objective(case.batch, q, case.noise))
    assert torch.equal(*values)


def projecting_twice_is_projecting_once(case: Case) -> None:
    """A second projection changes nothing."""
    if not isinstance(case.model, Projects):
        return
    case.model.project()
    once = {name: value.clone() for name, value in case.model.state_dict().items()}
    case.model.project()
    for name, value in case.model.state_dict().items():
        torch.testing.assert_close(value, once[name])


@torch.no_grad()
def inference_is_repeatable_and_keeps_nothing(case: Case) -> None:
    """Rows have the same posteriors whenever they are asked for, and training rows keep theirs."""
    before = case.q.code
    one, other = (case.estep.infer(case.model, case.batch).code for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(before, case.q.code)


@torch.no_grad()
def inference_without_sweeps_is_that_of_training(case: Case) -> None:
    """Without sweeps, rows in training have the posteriors that training uses."""
    q = case.estep.infer(case.model, case.batch, 0)
    assert isinstance(q, Posterior)
    torch.testing.assert_close(q.code, case.q.code)


@torch.no_grad()
def a_search_never_lowers_a_bound(case: Case) -> None:
    """Under fixed parameters a searched block is bounded at least as well as before."""
    if not isinstance(case.estep, Searches):
        return
    assert case.estep.block_size > 0
    search = case.estep
    before = case.model.bound(case.batch, case.q, case.noise)
    for epoch in range(3):
        search.search_block(case.model, case.batch, Noise(0, epoch, case.batch.row))
        after = case.model.bound(case.batch, case.q, case.noise)
        assert (after >= before - 1e-4).all()
        before = after


@torch.no_grad()
def the_state_survives_saving_and_loading(case: Case) -> None:
    """An E-step that loads what another saved has the same posteriors."""
    if not isinstance(case.estep, Persistent):
        return
    if isinstance(case.estep, Searches):
        case.estep.search_block(case.model, case.batch, case.noise)
    _, other = case.assemble()
    prepare(other, [case.batch.x], Lanes(len(case.batch.x), 1).held(), 1)
    assert isinstance(other, Persistent)
    with tempfile.TemporaryDirectory() as folder:
        other.load(folder, case.estep.save(folder, "1"))
    found = other(case.model, case.batch).code
    torch.testing.assert_close(found, case.q.code)


LAWS: tuple[Callable[[Case], None], ...] = (
    shapes_are_those_of_the_interface,
    expectations_are_linear_and_keep_constants,
    expectations_without_draws_are_fixed,
    the_order_of_rows_does_not_matter,
    statistics_add_over_parts_of_a_batch,
    the_bound_is_the_mean_of_its_integrand,
    the_bound_never_exceeds_an_importance_weighted_estimate,
    the_objective_reaches_every_parameter,
    missing_values_change_nothing,
    the_weights_are_a_function_of_the_seed,
    warm_ups_end,
    projecting_twice_is_projecting_once,
    inference_is_repeatable_and_keeps_nothing,
    inference_without_sweeps_is_that_of_training,
    a_search_never_lowers_a_bound,
    the_state_survives_saving_and_loading,
)
