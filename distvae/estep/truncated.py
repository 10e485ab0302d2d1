"""E-steps whose posteriors are truncated to binary states: evolution, random draws, and all states.

The searches keep a population of states for each row. They improve the populations of a block of
rows at a time, under the parameters of that moment. The minibatches of the block then train on the
improved states, weighed under their own parameters. Any set of distinct states gives a valid bound.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from distvae import config
from distvae.estep.block import Block
from distvae.estep.operators import (
    SparseFlips,
    bernoulli,
    crossed,
    flipped,
    select,
    sparsely_flipped,
)
from distvae.estep.registry import register
from distvae.estep.store import (
    Draw,
    LocalStore,
    PopulationFile,
    PopulationStore,
    empty_populations,
)
from distvae.interface import Asynchronous, Batch, Sums
from distvae.models.population import keep_best, pack, repeated, tabulate, take, words_of
from distvae.models.truncated import Truncated
from distvae.models.tvae import TVAE
from distvae.numerics.lanes import HeldRows
from distvae.numerics.noise import Noise

SAMPLED = 256  # rows of a block whose distinct states are counted
FIRST = -3  # the epoch whose draws make the first states


class Search(nn.Module):
    """A search that keeps a population of states for each row."""

    store: PopulationStore

    def __init__(self, config: config.Truncation, model: TVAE) -> None:
        super().__init__()
        self.config, self.latent = config, model.code_size
        self.uses_given_store = False
        self.last_block: Block | None = None

    @property
    def ranked(self) -> bool:
        """True if the states of a row are kept in order of their probability."""
        return False

    @property
    def block_size(self) -> int:
        """The number of rows that are searched together."""
        return self.config.block

    def use_store(self, store: PopulationStore) -> None:
        """Keep the populations in a store that other workers see, not in this process."""
        self.store, self.uses_given_store = store, True

    def allocate(self, held: HeldRows) -> None:
        """Reserve memory for the states of these rows, unless a store was given."""
        if self.uses_given_store:
            return
        width = words_of(self.latent)
        words = empty_populations(len(held.rows()), self.config.states, width, self.config.mapped)
        self.store = LocalStore(words, held, stays=self.config.mapped is not None)

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Draw the first states of every row that this worker holds."""
        self.allocate(held)
        self.last_block = None
        self.store.initialise(self._first_states(seed))

    def _first_states(self, seed: int) -> Draw:
        """Return the function that draws the first states of rows."""
        draw = common_states if self.config.first == "common" else first_states
        return partial(draw, self.config.states, self.latent, seed)

    def prefetch(self, rows: Tensor) -> None:
        """Start to read the states of these rows: the next block."""
        if isinstance(self.store, Asynchronous):
            self.store.prefetch(rows)

    def drain(self) -> None:
        """Wait until all improved states are in the store."""
        if isinstance(self.store, Asynchronous):
            self.store.drain()

    def timings(self) -> dict[str, float]:
        """Return the seconds that this worker waited for the store."""
        return self.store.timings() if isinstance(self.store, Asynchronous) else {}

    def candidates(
        self, model: TVAE, batch: Batch, words: Tensor, value: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Return new states (B, C, W) and their log-joints, given the kept ones and theirs."""
        raise NotImplementedError

    @torch.no_grad()
    def improve(
        self, model: TVAE, batch: Batch, words: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Return the best distinct states of the kept and the new, and how many are new."""
        value = model.score(batch, words)
        new, new_value = self.candidates(model, batch, words, value, noise)
        states, values = torch.cat([words, new], 1), torch.cat([value, new_value], 1)
        better, place = keep_best(states, values, words.shape[1], self.ranked)
        return better, (place >= words.shape[1]).sum()

    def search_block(self, model: TVAE, batch: Batch, noise: Noise) -> Sums:
        """Improve the states of a block of rows.

        Return how many states were replaced, and how many of a sample are distinct.
        """
        better, replaced = self.improve(model, batch, self._kept_states(batch), noise)
        self.store.put(batch.row, better)
        self.last_block = Block.of(batch.row, better)
        distinct, place = tabulate(better[:SAMPLED])
        return {
            "substitutions": replaced,
            "distinct": replaced.new_full((), len(distinct)),
            "looked_at": replaced.new_full((), place.numel()),
        }

    def telemetry(self, total: Sums, rows: int) -> dict[str, float]:
        """Return the states replaced in each row, and the share of distinct states."""
        if "looked_at" not in total:
            return {}
        return {
            "substitutions": float(total["substitutions"]) / rows,
            "distinct_states": float(total["distinct"] / total["looked_at"]),
        }

    def __call__(self, model: TVAE, batch: Batch) -> Truncated:
        """Return the posteriors of rows in training, on their kept states."""
        return model.posterior(batch, self._kept_states(batch))

    def _kept_states(self, batch: Batch) -> Tensor:
        """Return the states of these rows, on their device: from the last block or the store."""
        found = self.last_block.find(batch.row) if self.last_block else None
        if found is None:
            found = self.store.get(batch.row).to(batch.x.device, non_blocking=True)
        return found

    def infer(self, model: TVAE, batch: Batch, sweeps: int | None = None) -> Truncated:
        """Return the posteriors of new data; with no sweeps, of rows in training."""
        if sweeps == 0:
            return self(model, batch)
        row = batch.row.to(batch.x.device)
        words = self._first_states(0)(row)
        for sweep in range(self.config.sweeps if sweeps is None else sweeps):
            words, _ = self.improve(model, batch, words, Noise(0, FIRST - 1 - sweep, row))
        return model.posterior(batch, words)

    def save(self, folder: Path | str, generation: str) -> list[PopulationFile]:
        """Write the populations that this worker holds into a run folder."""
        return self.store.save(folder, generation)

    def load(self, folder: Path | str, files: Sequence[PopulationFile]) -> None:
        """Read the populations that this worker holds from the files of all workers."""
        self.last_block = None
        self.store.load(folder, files)


@register(config.Evolution)
class Evolution(Search):
    """A search in which fit states become parents and their mutated children compete with them."""

    config: config.Evolution

    @property
    def ranked(self) -> bool:
        """True if parents are chosen by their rank in the last search."""
        return self.config.selection == "released"

    def candidates(
        self, model: TVAE, batch: Batch, words: Tensor, value: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Return the children of all generations; each generation's parents are from the last."""
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
        sparse = SparseFlips(float(model.pi.sum()), self.config.rate)
        return sparsely_flipped(parents, siblings, self.latent, sparse, noise, stage)


@register(config.RandomSearch)
class RandomSearch(Search):
    """A search by independent draws from Bernoulli(1 / H)."""

    config: config.RandomSearch

    def candidates(
        self, model: TVAE, batch: Batch, words: Tensor, value: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Return states with one active bit on average."""
        new = bernoulli(self.config.draws, self.latent, noise, "child")
        return new, model.score(batch, new)


@register(config.Exact)
class Exact(nn.Module):
    """The exact posterior, on all 2^H states."""

    def __init__(self, config: config.Exact, model: TVAE) -> None:
        super().__init__()
        place = torch.arange(model.code_size)
        self.words = pack((torch.arange(2**model.code_size).unsqueeze(-1) >> place) & 1)

    def __call__(self, model: TVAE, batch: Batch) -> Truncated:
        """Return the posterior of every row."""
        return model.posterior(batch, self.words.to(batch.x.device).expand(len(batch.x), -1, -1))

    def infer(self, model: TVAE, batch: Batch, sweeps: int | None = None) -> Truncated:
        """Return the posterior of new data, which is as exact."""
        return self(model, batch)


def common_states(count: int, latent: int, seed: int, rows: Tensor) -> Tensor:
    """Return distinct states (B, S, W), common to all rows, drawn from Bernoulli(1 / H)."""
    return first_states(count, latent, seed, torch.zeros_like(rows[:1])).expand(len(rows), -1, -1)


def first_states(count: int, latent: int, seed: int, rows: Tensor) -> Tensor:
    """Return distinct states (B, S, W) for each row, drawn from Bernoulli(1 / H).

    If these are too few, changed copies of the states drawn before are added until all rows have
    enough.
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
    """Return the first distinct states of each row, (B, count, W), in the order of the pool.

    Later draws therefore change no row that had enough.
    """
    age = torch.arange(pool.shape[1], dtype=torch.float32, device=pool.device).expand(len(pool), -1)
    return take(pool, keep_best(pool, -age, count)[1].sort(1).values)
