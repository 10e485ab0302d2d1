"""Spike-and-slab sparse coding by search (Sheikh, Shelton and Luecke, JMLR 2014; Drefs, Guiraud and
Luecke, JMLR 2022).

    s_h ~ Bern(pi_h),    z_h ~ N(mu_h, psi_h),    x | s, z ~ N(b + W (s * z), sigma^2 I)

The atoms, which are the columns of W, have norm 1. There is no encoder. A search finds the support
of each row, the set A of its active latents. Given a support, everything is Gaussian. With the
precision M = diag(1 / psi_A) + W_A^T W_A / sigma^2,

    z_A | x ~ N(kappa, M^-1),    kappa = M^-1 u,    u = W_A^T (x - b) / sigma^2 + mu_A / psi_A,
    log p(x, A) = log p(x, {}) + sum_A worth - log|M| / 2 + u^T M^-1 u / 2,
    worth = log pi / (1 - pi) - log(psi) / 2 - mu^2 / (2 psi).

q is the exact posterior on the supports that were found, so the bound log sum p(x, A) is never
above log p(x). All parameters have closed-form updates, once an epoch, from sums over rows:
sum E[s z] x^T, sum E[(s z)(s z)^T], sum E[s] and sum E[s z]. A missing value is one more Gaussian
latent, with its mean and variance under the posterior.

Dictionaries are learned in cycles, with an update for every `model.update_rows` rows per atom, or
at the end of each epoch of fewer rows. At first a row may have two active latents; the limit grows
while rows use most of it. At the end of a cycle, atoms that are not well formed give way to
residuals of badly explained rows, and the next cycle begins from the best atoms so far. After the
last cycle the updates are plain EM, which never lowers the bound of given supports.

With `model.active`, latents have a price in nats: a latent joins a support only if log p(x, A)
gains more. Updates after the last cycle set the price so that rows have the wanted number of active
latents on average.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from distvae.config import SpikeSlabModel
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models.sdm import dct
from distvae.numerics.metrics import declare
from distvae.numerics.noise import Noise, mix
from distvae.numerics.rows import HeldRows

declare("sparsity", "active", "dead")
LOG_TWO_PI = math.log(2 * math.pi)
AT_FIRST = 3.0
"""The number of active latents of a row that the first parameters assume."""
LEAST_NOISE = 1e-4
"""The least sigma^2, in units of the variance of the data."""
CONSTANT = 1e-10
"""The variance of a column below which the column counts as constant, relative to its square."""
LEAST_SLAB = 1e-3
"""The least psi, in units of the variance of the data."""
RIDGE = 1e-4
"""The strength with which an update keeps the old atoms, relative to the mean of E[z^2]."""
MOSTLY = 0.8
"""The limit of active latents grows while rows use more than this share of it."""
GROWTH = 5, 2
"""The number of epochs at each limit while it grows, in the first cycle and later."""
HOLD = 6
"""The number of epochs at the last limit of a cycle."""
LIMIT = 2, 6
"""The limit at the beginning of the first cycle, and of later cycles."""
FORMED = 0.7
"""An atom is well formed if mu / sqrt(psi) is above this share of the median of the better half."""
UNFORMED = 0.25
"""The largest share of the atoms that one cycle replaces because they are not well formed."""
TWINS = 0.85
"""The cosine above which the rarer of two atoms is replaced."""
EDGES = 2.0 ** torch.arange(-6.0, 12.0)
"""Distances from the price, in nats, below which active latents are counted."""
NEAR = 0.1
"""The share of active latents near the price from which their density there is estimated."""
FARTHEST = 5.0
"""The largest step of the price downwards, in distances that hold this share."""
DAMPED = 0.5
"""The share of a step of the price that is taken, as sigma and psi change with the price."""


class Found(NamedTuple):
    """The supports of some rows, and the posteriors on them."""

    active: Tensor
    """(B, S, K) the active latents of each support, then -1."""
    mean: Tensor
    """(B, S, K) kappa, then 0."""
    root: Tensor
    """(B, S, K, K) L^-1 with M = L L^T, then 0."""
    gain: Tensor
    """(B, S) log p(x, A) - log p(x, {})."""


@dataclass(frozen=True)
class Supports:
    """The exact posterior on the supports that were found for each row."""

    found: Found
    log_joint: Tensor
    """(B, S) log p(x, A)."""
    mu: Tensor
    psi: Tensor
    odds: Tensor
    """(H,) log pi / (1 - pi)."""

    @cached_property
    def weight(self) -> Tensor:
        """(B, S) the probability of each support."""
        return self.log_joint.softmax(1)

    @property
    def code(self) -> Tensor:
        """(B, H) E[s z], with exact zeros beside the supports."""
        return self._scattered(self.found.mean * self.weight[:, :, None])

    def _scattered(self, values: Tensor) -> Tensor:
        """Return values (B, S, K) of the supports summed into codes (B, H)."""
        latent = len(self.mu)
        place = self.found.active.where(self.found.active >= 0, latent)
        codes = values.new_zeros(len(values), latent + 1)
        return codes.scatter_add_(1, place.flatten(1), values.flatten(1))[:, :latent]

    def points(self, draws: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """Return the mean, or draws of a support and of the values on it, with equal weights."""
        if draws == 0 or noise is None:
            z = self.code[:, None]
            return z, z.new_ones(z.shape[:2])
        ladder = self.weight.cumsum(1)
        drawn = torch.searchsorted(ladder, noise.uniform("state", draws) * ladder[:, -1:])
        drawn = drawn.clamp_max(ladder.shape[1] - 1)
        epsilon = noise.normal("slab", draws, self.found.mean.shape[2]).to(self.mu.dtype)
        rows = torch.arange(len(drawn), device=drawn.device)[:, None]
        index, mean, root, _ = self.found
        values = mean[rows, drawn] + (epsilon[:, :, None] @ root[rows, drawn])[:, :, 0]
        latent = len(self.mu)
        place = index.where(index >= 0, latent)[rows, drawn]
        z = values.new_zeros(*drawn.shape, latent + 1).scatter_(2, place, values)[:, :, :latent]
        return z, z.new_full(z.shape[:2], 1 / draws)

    def log_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z), (B, P), at points whose support was found; at other points
        minus infinity.
        """
        index, mean, root, _ = self.found
        used = index >= 0
        points, atoms = z.shape[1], index.clamp_min(0)
        values = z[:, :, None].expand(-1, -1, index.shape[1], -1)
        values = values.gather(3, atoms[:, None].expand(-1, points, -1, -1))
        same = (values != 0).where(used[:, None], True).all(3)
        same &= (z != 0).sum(2, keepdim=True) == used.sum(2)[:, None]
        psi, mu = self.psi[atoms][:, None], self.mu[atoms][:, None]
        prior = -0.5 * ((values - mu).square() / psi + psi.log()) + self.odds[atoms][:, None]
        apart = (values - mean[:, None]).masked_fill(~used[:, None], 0.0)
        whole = root + torch.diag_embed((~used).to(z.dtype))
        white = torch.linalg.solve_triangular(whole.mT[:, None], apart[..., None], upper=True)
        log_root = whole.diagonal(dim1=2, dim2=3).log()[:, None]
        ratio = prior + 0.5 * white[..., 0].square() + log_root
        ratio = ratio.masked_fill(~used[:, None], 0.0).sum(3) - self.weight.log()[:, None]
        best: Tensor = ratio.masked_fill(~same, -torch.inf).amax(2)
        return best - functional.softplus(self.odds).sum()


class SpikeSlab(nn.Module):
    """A linear model whose latents are zero or Gaussian."""

    bias: Tensor
    pi: Tensor
    mu: Tensor
    psi: Tensor
    variance: Tensor
    unit: Tensor
    """(D,) by which columns are divided, with `model.standard`."""
    scale: Tensor
    """The variance of the data, to which floors are relative."""
    rows: Tensor
    """The number of rows of the data."""
    limit: Tensor
    """The largest number of active latents of a row at present."""
    waited: Tensor
    """The number of epochs at this limit."""
    cycle: Tensor
    """The number of finished cycles."""
    best: Tensor
    """The best objective at the end of a cycle."""
    price: Tensor
    """What an active latent must add to log p(x, A), in nats."""

    def __init__(self, config: SpikeSlabModel, dims: int) -> None:
        super().__init__()
        self.config, self.dims = config, dims
        latent = config.latent
        self.dictionary = nn.Parameter(first_atoms(config, dims), requires_grad=False)
        self.register_buffer("bias", torch.zeros(dims))
        self.register_buffer("unit", torch.ones(dims), persistent=config.standard)
        self.register_buffer("pi", torch.full((latent,), min(0.5, AT_FIRST / latent)))
        self.register_buffer("mu", torch.zeros(latent))
        self.register_buffer("psi", torch.ones(latent))
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("rows", torch.tensor(0))
        start = LIMIT[0] if self.cycles else config.limit
        self.register_buffer("limit", torch.tensor(min(start, config.limit)))
        self.register_buffer("price", torch.zeros(()))
        self.register_buffer("waited", torch.tensor(0))
        self.register_buffer("cycle", torch.tensor(0))
        self.register_buffer("best", torch.tensor(-math.inf, dtype=torch.float64))
        for name in KEPT if self.cycles else ():
            self.register_buffer(f"best_{name}", getattr(self, name).detach().clone())
        self._gram: Tensor | None = None

    @property
    def cycles(self) -> int:
        """The number of cycles, 0 for a dictionary that is not learned."""
        return self.config.cycles if self.config.dictionary == "learned" else 0

    @property
    def is_forming(self) -> bool:
        """True in the cycles that form the dictionary."""
        return int(self.cycle) < self.cycles

    def ranks(self, may_be_missing: bool) -> bool:
        """Return whether a larger objective means a better epoch: not in a cycle, nor if the price
        of an active latent changes.
        """
        return not self.is_forming and self.config.active is None

    @property
    def rows_of_update(self) -> int:
        """The number of rows after which an update is due, 0 for those of an epoch."""
        return self.config.update_rows * self.code_size if self.is_forming else 0

    @property
    def since_update(self) -> tuple[str, ...]:
        """The names of the sums that begin anew after an update."""
        return SUMS

    @property
    def code_size(self) -> int:
        """The number of latents."""
        return self.config.latent

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Begin with random rows as atoms, equal latents, and half of the variance as noise."""
        rows = 0
        total, square, seen = torch.zeros(3, self.dims, dtype=torch.float64)
        keys, kept = torch.empty(0, dtype=torch.int64), torch.empty(0, self.dims)
        for block in map(self.scaled, blocks):
            known = ~block.isnan()
            filled = block.where(known, 0.0).double()
            total += filled.sum(0)
            seen += known.sum(0)
            square += filled.square().sum(0)
            keys = torch.cat([keys, mix(torch.arange(rows, rows + len(block)) + seed)])
            kept = torch.cat([kept, block])
            chosen = keys.argsort()[: self.code_size]
            keys, kept = keys[chosen], kept[chosen]
            rows += len(block)
        self.rows.fill_(rows)
        if self.config.standard:
            count = seen.clamp_min(1)
            spread = square / count - (total / count).square()
            unit = spread.clamp_min(0).sqrt().where(spread > CONSTANT * square / count, 1.0)
            self.unit.copy_(unit)
            total, square, kept = total / unit, square / unit.square(), kept / unit.to(kept)
        mean = total / seen.clamp_min(1)
        if self.config.bias:
            self.bias.copy_(mean)
            square = square - mean * total
        variance = float(square.sum()) / max(float(seen.sum()), 1)
        variance = max(variance, torch.finfo(torch.float32).tiny)
        self.scale.fill_(variance)
        self.variance.fill_(0.5 * variance)
        energy = variance * self.dims / AT_FIRST
        self.psi.fill_(0.5 * energy)
        if self.config.latents == "positive":
            self.mu.fill_(0.7 * math.sqrt(energy))
        if self.config.dictionary == "learned":
            generator = torch.Generator().manual_seed(seed)
            atoms = torch.randn(self.code_size, self.dims, generator=generator) * variance**0.5
            atoms[: len(kept)] *= 1e-3
            atoms[: len(kept)] += (kept - self.bias).nan_to_num(0.0)
            self._set_dictionary(functional.normalize(atoms, dim=1))

    def _set_dictionary(self, atoms: Tensor) -> None:
        self.dictionary.copy_(atoms)
        self._gram = None

    def gram(self) -> Tensor:
        """Return the products of all pairs of atoms, (H, H)."""
        if self._gram is None or self._gram.device != self.dictionary.device:
            self._gram = self.dictionary @ self.dictionary.T
        return self._gram

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> object:
        """Set parameters and buffers, and forget the products of earlier atoms."""
        self._gram = None
        return super().load_state_dict(state_dict, strict, assign)

    def odds(self) -> Tensor:
        """Return log pi / (1 - pi), (H,)."""
        return self.pi.log() - torch.log1p(-self.pi)

    def worth(self) -> Tensor:
        """Return what a latent adds to log p(x, A) apart from precision and drive, (H,)."""
        return self.odds() - 0.5 * self.psi.log() - 0.5 * self.mu.square() / self.psi

    @property
    def is_of_logarithms(self) -> bool:
        """True if x stands for the logarithm of a row."""
        return self.config.likelihood == "log_normal"

    def scaled(self, x: Tensor) -> Tensor:
        """Return rows, or their logarithms, in units of the columns."""
        return ((x + self.config.floor).log() if self.is_of_logarithms else x) / self.unit

    def centred(self, batch: Batch) -> Tensor:
        """Return the rows without the bias, (B, D), and zero for missing values."""
        x = self.scaled(batch.x) - self.bias
        return x if batch.mask is None else x.where(batch.mask, 0.0)

    def stretch(self, batch: Batch) -> Tensor | float:
        """Return the log of the volume by which logarithms and units shrink a row, (B,), or 0."""
        if not (self.is_of_logarithms or self.config.standard):
            return 0.0
        logarithms = self.unit.log().expand_as(batch.x)
        if self.is_of_logarithms:
            logarithms = logarithms + (batch.x + self.config.floor).log()
        return (logarithms if batch.mask is None else logarithms.where(batch.mask, 0.0)).sum(1)

    def on_supports(self, batch: Batch, index: Tensor) -> Found:
        """Return the posteriors on given supports, (B, S, K) or (1, S, K)."""
        used, atoms = index >= 0, index.clamp_min(0)
        pairs = (used[..., None] & used[..., None, :]).to(self.dictionary.dtype)
        chosen = self.dictionary[atoms]
        seen = chosen if batch.mask is None else chosen * batch.mask[:, None, None]
        inverse = self.psi[atoms].reciprocal().where(used, 1.0)
        precision = (seen @ chosen.mT) * pairs / self.variance + torch.diag_embed(inverse)
        factor = torch.linalg.cholesky_ex(precision).L  # without a check, for which a GPU waits
        drive = (chosen @ self.centred(batch)[:, None, :, None])[..., 0] / self.variance
        drive = (drive + self.mu[atoms] * inverse).where(used, 0.0)
        identity = torch.eye(index.shape[2], dtype=drive.dtype, device=drive.device)
        root = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
        white = (root @ drive[..., None])[..., 0]
        mean = (root.mT @ white[..., None])[..., 0]
        logs = factor.diagonal(dim1=2, dim2=3).log()
        gain = (self.worth()[atoms] - logs).where(used, 0.0) + 0.5 * white.square()
        shape = (len(batch.x), *index.shape[1:])
        root = (root * pairs).expand(*shape, -1)
        return Found(index.expand(shape), mean.expand(shape), root, gain.sum(2).expand(shape[:2]))

    def posterior(self, batch: Batch, found: Found) -> Supports:
        """Return the posteriors on the supports that were found."""
        count = self.dims if batch.mask is None else batch.mask.sum(1)
        none = self.centred(batch).square().sum(1) / self.variance
        none = none + count * (self.variance.log() + LOG_TWO_PI)
        absent = torch.log1p(-self.pi).sum()
        joint = found.gain.to(none.dtype) + (absent - 0.5 * none - self.stretch(batch))[:, None]
        return Supports(found, joint, self.mu, self.psi, self.odds())

    def prior(self, noise: Noise, estep: AnyEStep) -> Tensor:
        """Return codes (B, 1, H) drawn from the prior."""
        is_active = noise.uniform("spike", 1, self.code_size) < self.pi
        slab = torch.addcmul(self.mu, noise.normal("slab", 1, self.code_size), self.psi.sqrt())
        return slab * is_active

    def decode(self, z: Tensor) -> Tensor:
        """Return E[x | z]; of logarithms, the median, whose values between tones are not lifted."""
        output = (z @ self.dictionary + self.bias) * self.unit
        return (output.exp() - self.config.floor).clamp_min(0) if self.is_of_logarithms else output

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Return log p(x | z), (B, S), over the observed values."""
        error = (self.centred(batch)[:, None] - z @ self.dictionary).square()
        density = -0.5 * (error / self.variance + self.variance.log() + LOG_TWO_PI)
        if batch.mask is not None:
            density = density * batch.mask[:, None]
        stretch = self.stretch(batch)
        return density.sum(2) - (stretch[:, None] if isinstance(stretch, Tensor) else stretch)

    def bound(self, batch: Batch, q: Supports, noise: Noise) -> Tensor:
        """Return log sum p(x, A) over the supports that were found, (B,)."""
        return q.log_joint.logsumexp(1)

    def objective(self, batch: Batch, q: Supports, noise: Noise) -> Tensor:
        """Return the bound, (B,)."""
        return self.bound(batch, q, noise)

    @torch.no_grad()
    def statistics(self, batch: Batch, q: Supports, noise: Noise) -> Sums:
        """Return the sums that the updates need, and residuals of some rows."""
        sums = moments(self, batch, q)
        if self.is_forming:
            sums["evidence"] = self.bound(batch, q, noise).sum()
            sums["residuals"] = self._residuals(batch, q, noise)
        elif self.config.active is not None:
            sums["near"] = self._near(q)
        return sums

    def _residuals(self, batch: Batch, q: Supports, noise: Noise) -> Tensor:
        """Return (2 H, D + 1) residuals of random rows in random places, and their number."""
        places = 2 * self.code_size
        rows = min(self.rows_of_update, int(self.rows))
        drawn = noise.uniform("state", 2)
        sampled = torch.nonzero(drawn[:, 0] * rows < places)[:, 0]
        place = (drawn[sampled, 1] * places).long()
        residual = self.centred(batch)[sampled] - q.code[sampled] @ self.dictionary
        if batch.mask is not None:
            residual = residual * batch.mask[sampled]
        counted = functional.pad(residual, (0, 1), value=1.0)
        return counted.new_zeros(places, self.dims + 1).index_add_(0, place, counted)

    def _near(self, q: Supports) -> Tensor:
        """Return how many active latents add less to log p(x, A) than the price and each edge."""
        index, mean, root, _ = q.found
        spread = root.square().sum(2).where(index >= 0, 1.0)
        adds = self.worth()[index.clamp_min(0)] + 0.5 * (spread.log() + mean.square() / spread)
        above = adds - self.price
        edges = EDGES.to(above)
        return (above[index >= 0] < edges[:, None]).sum(1)

    @torch.no_grad()
    def maximise(self, total: Sums) -> None:
        """Set the parameters to their best values, given the posteriors of some rows."""
        is_forming = self.is_forming
        self._update(total)
        rows, active = total["rows"], total["active"]
        if not is_forming:
            pi = active / rows
            if self.config.active is not None:
                pi = pi * (self.config.active / pi.sum().clamp_min(0.3 / rows))
                self._set_price(active.sum(), self.config.active * rows, total["near"])
            self.pi.copy_(pi.clamp(min(0.3 / float(rows), 0.5), 0.5))
            return
        residuals = total["residuals"][:, :-1] * (total["residuals"][:, -1:] == 1)
        dead = active < (0.1 * active.mean()).clamp_min(2)
        residuals = self._replace(dead, residuals)
        self.waited += 1
        grows = active.sum() > MOSTLY * self.limit * rows and self.limit < self.config.limit
        if grows:
            if self.waited >= GROWTH[min(int(self.cycle), 1)]:
                self.limit += 1
                self.waited.zero_()
        elif self.waited >= HOLD:
            self._end_cycle(total, residuals)
        self.pi.fill_(min(0.5, int(self.limit) / self.code_size))

    def _set_price(self, active: Tensor, wanted: Tensor, near: Tensor) -> None:
        """Set the price to the surplus of active latents, which add least, or lower it as far as
        latents are likely to be missing below it.
        """
        edges, surplus = [0.0, *EDGES.tolist()], float(active - wanted)
        below = [0.0, *near.cpu().tolist()]
        aim = surplus if surplus > 0 else max(NEAR * float(active), 1.0)
        last = next((i for i, count in enumerate(below) if count >= aim and i), len(EDGES))
        share = (aim - below[last - 1]) / max(below[last] - below[last - 1], 1.0)
        distance = edges[last - 1] + min(share, 1.0) * (edges[last] - edges[last - 1])
        missing = math.log(float(wanted) / max(float(active), 1.0)) / NEAR
        self.price += DAMPED * (distance if surplus > 0 else -distance * min(missing, FARTHEST))

    def _update(self, total: Sums) -> None:
        """Set the atoms, the latents and the noise to their best values.

        The atoms move towards the solution of least squares, as far as the ridge lets them, so that
        atoms without rows stay.
        """
        rows, products, second = total["rows"], total["products"], total["second"]
        atoms, square = self.dictionary.double(), second.diagonal().clone()
        used = total["active"] > 0.5
        if self.config.dictionary == "learned" and bool(used.any()):
            ridge = RIDGE * square[used].mean()
            system = second.clone()
            system.diagonal().add_(ridge)
            root = torch.linalg.cholesky(system)
            atoms = atoms + torch.cholesky_solve(products - second @ atoms, root)
        fit = (atoms * products).sum() * 2 - ((second @ atoms) * atoms).sum()
        noise = (total["energy"] - fit) / (rows * self.dims)
        self.variance.copy_(noise.clamp_min(LEAST_NOISE * float(self.scale)))
        norm = atoms.norm(dim=1).where(used, 1.0)
        self._set_dictionary((atoms / norm[:, None]).where(used[:, None], self.dictionary))
        count = total["active"].clamp_min(0.5)
        mu = total["first"] / count * norm
        if self.config.latents == "signed":
            mu = torch.zeros_like(mu)
        psi = (square / count * norm.square() - mu.square()).clamp_min(
            LEAST_SLAB * float(self.scale)
        )
        self.mu.copy_(mu.where(used, self.mu))
        self.psi.copy_(psi.where(used, self.psi))

    def _replace(self, chosen: Tensor, residuals: Tensor) -> Tensor:
        """Replace atoms by the residuals of badly explained rows. Return the residuals left."""
        place = torch.nonzero(chosen)[:, 0]
        worst = residuals.square().sum(1).argsort(descending=True)[: 3 * len(place) : 3]
        worst = worst[residuals[worst].square().sum(1) > 0]
        place = place[: len(worst)]
        atoms = self.dictionary.clone()
        atoms[place] = functional.normalize(residuals[worst], dim=1).to(atoms.dtype)
        self._set_dictionary(atoms)
        self.mu[place], self.psi[place] = self.mu.median(), self.psi.median()
        return residuals.index_fill(0, worst, 0.0)

    def _end_cycle(self, total: Sums, residuals: Tensor) -> None:
        """Go on from the best atoms so far, without those that are not well formed."""
        objective = total["evidence"] / total["rows"]
        better = bool(objective > self.best)
        for name in KEPT:
            kept, now = getattr(self, f"best_{name}"), getattr(self, name)
            source, target = (now, kept) if better else (kept, now)
            target.copy_(source)
        self.best.copy_(torch.maximum(objective, self.best))
        self._gram = None
        self.cycle += 1
        self.waited.zero_()
        if int(self.cycle) == self.cycles:
            self.limit.fill_(self.config.limit)
            return
        self.limit.fill_(min(LIMIT[1], self.config.limit))
        self._replace(self._unformed() | self._twins(total["active"]), residuals)

    def _unformed(self) -> Tensor:
        """Return which atoms are not well formed, (H,)."""
        ratio = self.mu / self.psi.sqrt()
        order = ratio.argsort()
        good = ratio[order[len(order) // 2 :]].median()
        unformed = torch.zeros_like(ratio, dtype=torch.bool)
        unformed[order[: int(UNFORMED * len(order))]] = True
        return unformed & (ratio < FORMED * good)

    def _twins(self, active: Tensor) -> Tensor:
        """Return which atoms have a more frequent twin, (H,)."""
        place = torch.arange(len(active), device=active.device)
        first = (active[:, None] < active) | (
            (active[:, None] == active) & (place[:, None] > place)
        )
        return ((self.gram().abs() > TWINS) & first).any(1)

    def telemetry(self, total: Sums, rows: int) -> dict[str, float]:
        """Return the mean number of active latents, the number of dead latents, and sigma; in a
        cycle, also the number of cycles that have not ended.
        """
        left = {"cycles_left": float(self.cycles - int(self.cycle))} if self.is_forming else {}
        return left | {
            "active": float(total["active"].sum() / total["rows"]),
            "dead": float((total["active"] < 1).sum()),
            "sigma": float(self.variance.sqrt()),
        }


SUMS = "products", "second", "active", "first", "energy", "rows", "evidence", "residuals"
"""The sums that begin anew after an update."""
KEPT = "dictionary", "mu", "psi", "variance"
"""The parameters that a cycle may restore."""


def first_atoms(config: SpikeSlabModel, dims: int) -> Tensor:
    """Return the atoms (H, D) before the data are read."""
    if config.dictionary == "identity":
        return torch.eye(config.latent, dims)
    if config.dictionary == "dct":
        return dct(dims, config.latent).T.contiguous()
    return torch.zeros(config.latent, dims)


def moments(model: SpikeSlab, batch: Batch, q: Supports) -> Sums:
    """Return the sums over rows of E[s z] x^T, E[(s z)(s z)^T], E[s], E[s z] and x^2.

    x has the expectations of missing values.
    """
    x, latent = model.centred(batch).double(), model.code_size
    sums = {
        "products": x.new_zeros(latent, x.shape[1]),
        "second": x.new_zeros(latent, latent),
        "active": x.new_zeros(latent),
        "first": x.new_zeros(latent),
        "energy": x.square().sum(),
        "rows": x.new_full((), len(x)),
    }
    if x.device.type == "cpu":
        from distvae.models import support_loops

        found = [q.found.active, q.found.mean, q.found.root, q.weight, x]
        added = [sums[name] for name in ("products", "second", "active", "first")]
        support_loops.add_moments(*(tensor.numpy() for tensor in found + added))
    else:
        _add_moments(sums, q, x)
    if batch.mask is not None:
        _add_missing(sums, model, batch, q)
    return sums


def _add_moments(sums: Sums, q: Supports, x: Tensor) -> None:
    """Add the moments of rows, as `support_loops.add_moments` does on the CPU."""
    latent, codes = len(q.mu), q.code.double()
    used, atoms = q.found.active >= 0, q.found.active.clamp_min(0)
    pair = atoms[..., None] * latent + atoms[..., None, :]
    sums["products"] += codes.T @ x
    sums["second"].view(-1).scatter_add_(0, pair.flatten(), _second(q).flatten())
    weight = (q.weight.double()[..., None] * used).flatten()
    sums["active"].scatter_add_(0, atoms.flatten(), weight)
    sums["first"] += codes.sum(0)


def _second(q: Supports) -> Tensor:
    """Return E[z z^T] of each support, times its weight: (B, S, K, K)."""
    mean, root = q.found.mean.double(), q.found.root.double()
    second = root.mT @ root + mean[..., None] * mean[..., None, :]
    return second * q.weight.double()[..., None, None]


def _add_missing(sums: Sums, model: SpikeSlab, batch: Batch, q: Supports) -> None:
    """Add the expectations of missing values to the sums."""
    assert batch.mask is not None
    missing, atoms = ~batch.mask, q.found.active.clamp_min(0)
    chosen = model.dictionary.double()[atoms] * missing[:, None, None]
    values = _second(q) @ chosen
    sums["products"].index_add_(0, atoms.flatten(), values.flatten(0, 2))
    sums["energy"] += (values * chosen).sum() + missing.sum() * model.variance.double()
