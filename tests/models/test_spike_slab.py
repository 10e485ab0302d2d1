"""Spike-and-slab codes by search, beside the enumeration of all supports."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from distvae.config import AllSupports as AllSupportsConfig
from distvae.config import Selection as SelectionConfig
from distvae.config import SpikeSlabModel
from distvae.estep.supports import AllSupports, Selection, compiled_select, select
from distvae.interface import Batch, Sums
from distvae.models.spike_slab import SpikeSlab, Supports
from distvae.numerics.noise import Noise
from distvae.numerics.rows import Lanes

LATENT, DIMS, ROWS = 8, 6, 24


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rows(missing: float = 0.0, seed: int = 0, count: int = ROWS, dims: int = DIMS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, dims, generator=generator) * 2 + 1
    gone = torch.rand(count, dims, generator=generator) < missing
    return x.masked_fill(gone, math.nan)


def batch_of(x: Tensor) -> Batch:
    return Batch.of(x, torch.arange(len(x)))


def model_of(x: Tensor, **settings: object) -> SpikeSlab:
    """Return a model of some rows with latents that differ from each other."""
    fields: dict[str, object] = {"latent": LATENT, "limit": LATENT, "cycles": 0} | settings
    model = SpikeSlab(SpikeSlabModel(**fields), x.shape[1])  # type: ignore[arg-type]
    model.prepare([x], Lanes(len(x), 1).held(), 0)
    generator = torch.Generator().manual_seed(1)
    for value, low in ((model.pi, 0.1), (model.psi, 0.3), (model.mu, 0.1)):
        value.copy_(low + 0.5 * torch.rand(model.code_size, generator=generator))
    if model.config.latents == "signed":
        model.mu.zero_()
    model.variance.fill_(0.4)
    return model


def all_supports(model: SpikeSlab, batch: Batch) -> Supports:
    return AllSupports(AllSupportsConfig(), model)(model, batch)


def found(model: SpikeSlab, batch: Batch) -> Supports:
    return Selection(SelectionConfig(), model)(model, batch)


def enumerated(model: SpikeSlab, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p(x) and E[s z] of one row, from the dense covariance of each support."""
    seen = ~x.isnan()
    eye = model.variance * torch.eye(int(seen.sum()))
    joints, codes = [], []
    for number in range(2**model.code_size):
        active = [h for h in range(model.code_size) if number >> h & 1]
        atoms, psi, mu = model.dictionary[active][:, seen], model.psi[active], model.mu[active]
        mean = model.bias[seen] + mu @ atoms
        covariance = atoms.T @ (psi[:, None] * atoms) + eye
        is_active = torch.zeros(model.code_size, dtype=torch.bool)
        is_active[active] = True
        prior = model.pi.where(is_active, 1 - model.pi).log().sum()
        joints.append(prior + MultivariateNormal(mean, covariance).log_prob(x[seen]))
        code = torch.zeros(model.code_size)
        if active:
            code[active] = mu + psi * (atoms @ torch.linalg.solve(covariance, x[seen] - mean))
        codes.append(code)
    joint = torch.stack(joints)
    return joint.logsumexp(0), joint.softmax(0) @ torch.stack(codes)


@pytest.mark.parametrize("latents", ["positive", "signed"])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_all_supports_give_the_likelihood_and_a_search_gives_less(
    missing: float, latents: str
) -> None:
    x = rows(missing, count=6)
    model, batch = model_of(x, latents=latents), batch_of(x)
    exact, q = all_supports(model, batch), found(model, batch)
    noise = Noise(0, 0, batch.row)
    bound = model.bound(batch, exact, noise)
    likelihood, code = map(torch.stack, zip(*(enumerated(model, row) for row in x), strict=True))
    torch.testing.assert_close(bound, likelihood)
    torch.testing.assert_close(exact.code, code)
    assert bool((model.bound(batch, q, noise) <= bound + 1e-9).all())
    # Under the exact posterior, log p(x, z) - log q(z) is log p(x) for every z.
    z, _ = exact.points(50, noise)
    each = model.log_likelihood(batch, z) + exact.log_ratio(z)
    torch.testing.assert_close(each, bound[:, None].expand_as(each))


@pytest.mark.parametrize("latents", ["positive", "signed"])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_compiled_loops_and_fixed_shapes_find_the_same_supports(
    missing: float, latents: str
) -> None:
    x = rows(missing, count=64)
    model, batch = model_of(x, latents=latents, limit=5), batch_of(x)
    one, other = compiled_select(model, batch), select(model, batch)
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(first, second)
    given = model.on_supports(batch, one.active)
    torch.testing.assert_close(given.gain, one.gain)
    assert int((one.active >= 0).sum(2).max()) <= 5


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_standard_columns_have_the_same_codes_in_any_units(missing: float) -> None:
    x, units = rows(missing), torch.tensor([1.0, 1e-3, 50.0, 2.0, 1e4, 0.3])
    found = []
    for unit in (torch.ones(DIMS), units):
        batch, model = batch_of(x * unit), model_of(x * unit, standard=True)
        q = all_supports(model, batch)
        volume = unit.log().where(~x.isnan(), 0.0).sum(1)
        bound = model.bound(batch, q, Noise(0, 0, batch.row)) + volume
        found.append((q.code, bound, model.decode(q.code) / unit))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_standard_logarithms_are_those_of_columns_of_logarithms(missing: float) -> None:
    x = rows(missing)
    batch, powers = batch_of(x), batch_of(x.exp())
    model = model_of(x, standard=True)
    other = model_of(x.exp(), standard=True, likelihood="log_normal", floor=1e-300)
    q, of_powers = all_supports(model, batch), all_supports(other, powers)
    noise = Noise(0, 0, batch.row)
    torch.testing.assert_close(of_powers.code, q.code)
    torch.testing.assert_close(
        other.bound(powers, of_powers, noise), model.bound(batch, q, noise) - x.nansum(1)
    )
    torch.testing.assert_close(other.decode(q.code), model.decode(q.code).exp())


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_an_update_never_lowers_the_bound_of_given_supports(missing: float) -> None:
    x = rows(missing, seed=3, count=40)
    batch = batch_of(x)
    for every in (True, False):
        model = model_of(x)
        index = compiled_select(model, batch).active
        last = -math.inf
        for epoch in range(12):
            noise = Noise(0, epoch, batch.row)
            q = model.posterior(batch, model.on_supports(batch, index))
            if every:
                q = all_supports(model, batch)
            bound = float(model.bound(batch, q, noise).sum())
            assert bound >= last - 1e-9
            last = bound
            model.maximise(sums_of(model, batch, q, noise))


def sums_of(model: SpikeSlab, batch: Batch, q: Supports, noise: Noise) -> Sums:
    objective = model.objective(batch, q, noise).sum()
    return {"objective": objective} | model.statistics(batch, q, noise)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_parts_of_the_rows_have_the_sums_of_the_whole(missing: float) -> None:
    x = rows(missing, count=40)
    model, batch = model_of(x, cycles=3, limit=4), batch_of(x)
    noise = Noise(0, 5, batch.row)
    whole = sums_of(model, batch, found(model, batch), noise)
    parts = []
    for part in (slice(0, 7), slice(7, 8), slice(8, 40)):
        piece = batch.part(part)
        parts.append(sums_of(model, piece, found(model, piece), noise.part(part)))
    for name, value in whole.items():
        added = sum(part[name] for part in parts)
        assert isinstance(added, Tensor)
        torch.testing.assert_close(added, value, rtol=1e-12, atol=1e-12)


def test_the_fixed_point_of_an_update_has_no_gradient() -> None:
    x = rows(seed=2, count=60)
    model, batch = model_of(x, latent=3, limit=3), batch_of(x)
    noise = Noise(0, 0, batch.row)
    for _ in range(800):
        q = all_supports(model, batch)
        model.maximise(sums_of(model, batch, q, noise))
    psi, mu, pi = (value.clone().requires_grad_() for value in (model.psi, model.mu, model.pi))
    model.psi, model.mu, model.pi = psi, mu, pi
    with torch.enable_grad():
        index = AllSupports(AllSupportsConfig(), model).index
        q = model.posterior(batch, model.on_supports(batch, index))
        bound = model.bound(batch, q, noise).mean()
        gradients = torch.autograd.grad(bound, (psi, mu, pi))
    inside = (psi > 1e-2) & (pi < 0.5) & (pi > 0.3 / 60)
    for gradient in gradients:
        assert float(gradient[inside].abs().max()) < 1e-3


def test_a_wide_slab_on_one_support_is_least_squares() -> None:
    x = rows()
    model, batch = model_of(x, bias=False), batch_of(x)
    model.psi.fill_(1e12)
    index = torch.tensor([[[1, 4, 6]]])
    q = model.posterior(batch, model.on_supports(batch, index))
    solved = torch.linalg.lstsq(model.dictionary[[1, 4, 6]].T, x.T).solution
    torch.testing.assert_close(q.code[:, [1, 4, 6]], solved.T)


def test_with_all_latents_active_it_is_probabilistic_pca() -> None:
    x = rows()
    model, batch = model_of(x, latents="signed"), batch_of(x)
    index = torch.arange(LATENT)[None, None]
    q = model.posterior(batch, model.on_supports(batch, index))
    atoms = model.dictionary
    precision = atoms @ atoms.T / model.variance + torch.diag(1 / model.psi)
    mean = torch.linalg.solve(precision, atoms @ (x - model.bias).T / model.variance).T
    torch.testing.assert_close(q.code, mean)


@pytest.mark.parametrize(
    "settings", [{"latent": 1, "limit": 1}, {"limit": 0}, {"dictionary": "dct"}], ids=str
)
def test_small_and_odd_cases_have_finite_bounds(settings: dict[str, object]) -> None:
    x = rows()
    x[3] = math.nan
    x[4] = 1.0
    model, batch = model_of(x, **settings), batch_of(x)
    for epoch in range(3):
        noise = Noise(0, epoch, batch.row)
        q = found(model, batch)
        assert bool(model.bound(batch, q, noise).isfinite().all())
        model.maximise(sums_of(model, batch, q, noise))


def test_twin_atoms_never_share_a_support_without_gain() -> None:
    x = rows()
    model, batch = model_of(x), batch_of(x)
    model.dictionary[1].copy_(model.dictionary[0])
    model.variance.fill_(1e-6)
    q = found(model, batch)
    assert bool(model.bound(batch, q, Noise(0, 0, batch.row)).isfinite().all())


@pytest.mark.parametrize(("wanted", "price"), [(0.5, 0.0), (2.0, 1e4), (4.5, 0.0)])
def test_rows_have_the_wanted_number_of_active_latents(wanted: float, price: float) -> None:
    x = rows(count=400, seed=5)
    model, batch = model_of(x, active=wanted, limit=6), batch_of(x)
    model.price.fill_(price)
    for epoch in range(30):
        noise = Noise(0, epoch, batch.row)
        q = found(model, batch)
        model.maximise(sums_of(model, batch, q, noise))
    active = float((found(model, batch).found.active >= 0).sum() / len(x))
    assert active == pytest.approx(wanted, rel=0.1)
