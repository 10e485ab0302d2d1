"""E-steps that keep binary states for each data point: evolution, random draws, and all states
there are.

A block of rows is visited at once, under the parameters of that moment; its minibatches then take
the improved states from the store, and weigh them under the parameters of theirs. Any set of
distinct states gives a valid bound.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from distvae import config
from distvae.estep.block import Block
from distvae.estep.operators import bernoulli, crossed, flipped, select, sparsely_flipped
from distvae.estep.registry import register
from distvae.estep.stateless import Stateless
from distvae.estep.store import Draw, LocalStore, PopulationFile, PopulationStore, empty_populations
from distvae.interface import Batch
from distvae.models.population import keep_best, pack, repeated, tabulate, take, words_of
from distvae.models.tvae import TVAE, Truncated
from distvae.numerics.lanes import HeldRows
from distvae.numerics.noise import Noise

SAMPLED = 256  # rows of a block whose states are counted
FIRST = -3  # the epoch whose draws make the first states


class Search(nn.Module):
    """Populations, and how a visit improves them."""

    store: PopulationStore
    shared = False

    def __init__(self, config: config.Truncation, model: TVAE) -> None:
        super().__init__()
        self.config, self.latent = config, model.code_size
        self.visited: Block | None = None

    @property
    def ranked(self) -> bool:
        """Whether kept states stand by rank."""
        return False

    @property
    def block(self) -> int:
        """Rows of a visit."""
        return self.config.block

    def use_store(self, store: PopulationStore) -> None:
        """Keep the populations there, where other workers may see them, not in this process."""
        self.store, self.shared = store, True

    def allocate(self, held: HeldRows) -> None:
        """Make room for the states of these rows, unless there is."""
        if not self.shared:
            words = empty_populations(
                len(held.rows()), self.config.states, words_of(self.latent), self.config.mapped
            )
            self.store = LocalStore(words, held, stays=self.config.mapped is not None)

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Draw the first states of every row that is held here."""
        self.allocate(held)
        self.visited = None
        self.store.initialise(self._first(seed))

    def _first(self, seed: int) -> Draw:
        """How rows come to their first states."""
        states = common_states if self.config.first == "common" else first_states
        return partial(states, self.config.states, self.latent, seed)

    def prefetch(self, rows: Tensor) -> None:
        """These are the rows of the next visit."""
        self.store.prefetch(rows)

    def drain(self) -> None:
        """Wait until what was found is where it belongs."""
        self.store.drain()

    def telemetry(self) -> dict[str, float]:
        """What the store has to tell of an epoch."""
        return self.store.telemetry()

    def candidates(
        self, model: TVAE, batch: Batch, words: Tensor, value: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """New states (B, C, W) and their log-joints."""
        raise NotImplementedError

    @torch.no_grad()
    def improve(
        self, model: TVAE, batch: Batch, words: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """The best distinct states of the kept and the new, and how many are new."""
        value = model.score(batch, words)
        new, new_value = self.candidates(model, batch, words, value, noise)
        states, values = torch.cat([words, new], 1), torch.cat([value, new_value], 1)
        better, place = keep_best(states, values, words.shape[1], self.ranked)
        return better, (place >= words.shape[1]).sum()

    def search_block(self, model: TVAE, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Visit the rows of a block; how many states were replaced, and how many of a sample are
        distinct.
        """
        better, replaced = self.improve(model, batch, self._kept(batch), noise)
        self.store.put(batch.row, better)
        self.visited = Block.of(batch.row, better)
        distinct, place = tabulate(better[:SAMPLED])
        counts = {"distinct": len(distinct), "looked_at": place.numel()}
        return {"substitutions": replaced} | {
            name: replaced.new_full((), count) for name, count in counts.items()
        }

    def forward(self, model: TVAE, batch: Batch) -> Truncated:
        """Posteriors on the kept states of rows in training."""
        return model.posterior(batch, self._kept(batch))

    def _kept(self, batch: Batch) -> Tensor:
        """Return the states kept for these rows, beside their values: of the last block, or from
        the store.
        """
        found = self.visited.find(batch.row) if self.visited else None
        return (
            self.store.get(batch.row).to(batch.x.device, non_blocking=True)
            if found is None
            else found
        )

    def infer(self, model: TVAE, batch: Batch, sweeps: int | None = None) -> Truncated:
        """Posteriors of new data; with no sweeps, of rows in training, whose states are kept
        already.
        """
        if sweeps == 0:
            return self.forward(model, batch)
        row = batch.row.to(batch.x.device)
        words = self._first(0)(row)
        for sweep in range(self.config.sweeps if sweeps is None else sweeps):
            words, _ = self.improve(model, batch, words, Noise(0, FIRST - 1 - sweep, row))
        return model.posterior(batch, words)

    def save(self, folder: Path, name: str) -> list[PopulationFile]:
        """Write the populations held here into a run folder; what a checkpoint has to remember of
        them.
        """
        return self.store.save(folder, name)

    def load(self, folder: Path, kept: Sequence[PopulationFile]) -> None:
        """Take from what all holders saved the populations held here."""
        self.visited = None
        self.store.load(folder, kept)


@register(config.Evolution)
class Evolution(Search):
    """Parents selected by fitness, children mutated, generations long."""

    config: config.Evolution

    @property
    def ranked(self) -> bool:
        """Whether parents are looked for by the rank of the last visit."""
        return self.config.selection == "released"

    def candidates(
        self, model: TVAE, batch: Batch, words: Tensor, value: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """All children of all generations; those of one are the parents' pool of the next."""
        found: list[tuple[Tensor, Tensor]] = [(words, value)]
        for stage in range(self.config.generations):
            parents = select(*found[-1], self.config.parents, self.config.selection, noise, stage)
            children = self._children(model, parents, noise, stage)
            found.append((children, model.score(batch, children)))
        states, values = zip(*found[1:], strict=True)
        return torch.cat(states, 1), torch.cat(values, 1)

    def _children(self, model: TVAE, parents: Tensor, noise: Noise, stage: int) -> Tensor:
        siblings = self.config.children
        if self.config.crossover == "one_point":
            parents, siblings = crossed(parents, self.latent, noise, stage), 1
        if self.config.mutation == "flip":
            return flipped(parents, siblings, self.latent, noise, stage)
        active = float(model.pi.sum())
        return sparsely_flipped(
            parents, siblings, self.latent, active, self.config.rate, noise, stage
        )


@register(config.RandomSearch)
class RandomSearch(Search):
    """Independent draws from Bernoulli(1 / H)."""

    config: config.RandomSearch

    def candidates(
        self, model: TVAE, batch: Batch, words: Tensor, value: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """States with one active bit on average."""
        new = bernoulli(self.config.draws, self.latent, noise, "child")
        return new, model.score(batch, new)


@register(config.Exact)
class Exact(Stateless):
    """The exact posterior, on all 2^H states."""

    def __init__(self, config: config.Exact, model: TVAE) -> None:
        super().__init__()
        place = torch.arange(model.code_size)
        self.words = pack((torch.arange(2**model.code_size).unsqueeze(-1) >> place) & 1)

    def forward(self, model: TVAE, batch: Batch) -> Truncated:
        """The posterior of every row."""
        return model.posterior(batch, self.words.to(batch.x.device).expand(len(batch.x), -1, -1))

    def infer(self, model: TVAE, batch: Batch, sweeps: int = 0) -> Truncated:
        """The same, for new data."""
        return self.forward(model, batch)


def common_states(count: int, latent: int, seed: int, rows: Tensor) -> Tensor:
    """(B, S, W) the same distinct states for all rows, drawn from Bernoulli(1 / H)."""
    return first_states(count, latent, seed, torch.zeros_like(rows[:1])).expand(len(rows), -1, -1)


def first_states(count: int, latent: int, seed: int, rows: Tensor) -> Tensor:
    """(B, S, W) distinct states for each row, drawn from Bernoulli(1 / H).

    Where these run out, the next are drawn as changes of those before, until all rows have enough.
    """
    pool = bernoulli(3 * count, latent, Noise(seed, FIRST, rows), "state")
    for draw in range(1, 1000):
        if int((~repeated(pool)).sum(1).min()) >= count:
            break
        noise = Noise(seed, FIRST - 1_000_000 * draw, rows)
        parent = noise.uniform("parent", count).mul(pool.shape[1]).long()
        pool = torch.cat([pool, take(pool, parent) ^ bernoulli(count, latent, noise, "state")], 1)
        pool = _earliest(pool, min(pool.shape[1], 2 * count))
    return _earliest(pool, count)


def _earliest(pool: Tensor, count: int) -> Tensor:
    """(B, count, W) the first distinct states of each row, in their order, so that later draws
    change no row.
    """
    age = torch.arange(pool.shape[1], dtype=torch.float32, device=pool.device).expand(len(pool), -1)
    return take(pool, keep_best(pool, -age, count)[1].sort(1).values)
