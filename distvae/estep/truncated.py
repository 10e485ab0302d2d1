"""E-steps with truncated posteriors on binary states: evolution, random search, and all states.

A search keeps a population of states for each row. It improves the populations of a block of rows
at a time, under the parameters at the start of the block. The minibatches of the block then train
on the improved states, reweighted under the current parameters. Any set of distinct states gives a
valid bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distvae import config
from distvae.engines.device import free_memory
from distvae.engines.tvae_gpu import Scores, can_score
from distvae.estep.search import (
    FIRST,
    Improved,
    Scored,
    bernoulli,
    best_states,
    breed,
    common_states,
    first_states,
    in_parts,
    parts_in_training,
    select,
)
from distvae.estep.store import (
    Draw,
    HeldPopulations,
    LocalStore,
    PopulationFile,
    as_words,
    new_store,
    parts_of,
    refuse_strange_bits,
)
from distvae.files.refusal import Refusal
from distvae.interface import Batch, Sums
from distvae.models.population import pack, repeated, words_of
from distvae.models.truncated import KeptStates, Truncated, with_numbers
from distvae.models.tvae import TVAE
from distvae.numerics.noise import Noise, Stream, draw_ahead
from distvae.numerics.rows import HeldRows, find_in_order

COMPILED = ("fitness_batch", "flip", "none")  # selection, mutation, crossover of compiled loops
POOL_ROWS = 64
"""The training rows whose states are kept with the weights. New rows start from them."""
SCORED = 2**20
"""The most states of a pool that are scored at once, over all rows."""
COUNTED = 256
"""The rows of each block in which distinct states are counted, for a metric."""


class Block(NamedTuple):
    """The last block of rows that was searched. Its states stay on the model's device while its
    minibatches are trained; row numbers are on the host.
    """

    rows: Tensor
    states: KeptStates
    order: Tensor
    """The permutation that sorts the rows."""

    def find(self, rows: Tensor) -> KeptStates | None:
        """Return the states of rows, or None unless all rows are in the block.

        If the rows are a slice of the block, the states are a view; otherwise they are copied.
        """
        if (part := find_in_order(self.rows.numpy(), rows.numpy())) is not None:
            return self.states.of_rows(part)
        if not len(self.rows):
            return None
        place = torch.searchsorted(self.rows, rows, sorter=self.order).clamp(max=len(self.rows) - 1)
        index = self.order[place]
        if not torch.equal(self.rows[index], rows):
            return None
        return self.states.of_rows(index.to(self.states.words.device, non_blocking=True))


class Search(nn.Module):
    """A search that keeps a population of states for each row."""

    store: HeldPopulations
    pool: Tensor
    """(P, W) distinct states of some training rows."""

    def __init__(self, config: config.Truncation, model: TVAE) -> None:
        super().__init__()
        self.config, self.latent = config, model.code_size
        self.register_buffer("pool", torch.empty(0, words_of(self.latent), dtype=torch.int64))
        self.register_state_dict_pre_hook(_fill_pool)  # type: ignore[no-untyped-call]
        self.last_block: Block | None = None
        self.shown: KeptStates | None = None
        self.scores: Scores | None = None

    @property
    def ranked(self) -> bool:
        """True if the states of a row are kept sorted by their log-joint."""
        return False

    @property
    def block_size(self) -> int:
        """The number of rows in a block."""
        return self.config.block

    def populations(self) -> HeldPopulations:
        """Return the store of the populations that this worker holds."""
        return self.store

    def allocate(self, held: HeldRows) -> None:
        """Allocate memory for the states of these rows."""
        self.store = new_store(self.latent, self.config.states, held, self.config.mapped)
        self.store.latent = self.latent

    def prepare(self, blocks: Iterable[Tensor], held: HeldRows, seed: int) -> None:
        """Draw the initial states of every row that this worker holds."""
        self.allocate(held)
        self.last_block = None
        self.store.initialise(self._first_states(seed))

    def _first_states(self, seed: int) -> Draw:
        """Return the function that draws the initial states of rows."""
        draw = common_states if self.config.first == "common" else first_states
        return partial(draw, self.config.states, self.latent, seed)

    def candidates(
        self, model: TVAE, batch: Batch, words: Tensor, value: Tensor, noise: Noise
    ) -> Scored:
        """Return new states (B, C, W) and their log-joints, given the kept states and their
        log-joints `value`.
        """
        raise NotImplementedError

    def draws(self) -> dict[Stream, int]:
        """Return the number of random words that a search needs for each row, by stream.

        A GPU draws them at once.
        """
        return {}

    def score(self, model: TVAE, batch: Batch, words: Tensor) -> Tensor:
        """Return log p(x, z), (B, C), of the states of words (B, C, W)."""
        has_own_score = type(model).score is not TVAE.score
        if words.device.type == "cpu" or has_own_score or not can_score(model.likelihood):
            return model.score(batch, words)
        return self._scores_of(model).score(batch, words)

    def _scores_of(self, model: TVAE) -> Scores:
        if self.scores is None or self.scores.model is not model:
            self.scores = Scores(model)
        return self.scores

    def improve(self, model: TVAE, batch: Batch, words: Tensor, noise: Noise) -> Improved:
        """Return the best distinct states among the kept states `words` and new states.

        The kept states may be overwritten.
        """
        if words.device.type != "cpu":
            return self._improve(model, batch, words, noise)

        def improve_part(rows: slice) -> Improved:
            return self._improve(model, batch.part(rows), words[rows], noise.part(rows))

        parts = in_parts(len(words), improve_part)
        if len(parts) == 1:
            return parts[0]
        better, gap, replaced = zip(*parts, strict=True)
        return Improved(torch.cat(better), torch.cat(gap), torch.stack(replaced).sum())

    @torch.no_grad()
    def _improve(self, model: TVAE, batch: Batch, words: Tensor, noise: Noise) -> Improved:
        value = self.score(model, batch, words)
        new = self.candidates(model, batch, words, value, noise)
        return best_states((words, value), new, self.ranked)

    def search_block(self, model: TVAE, batch: Batch, noise: Noise) -> Sums:
        """Improve the states of a block of rows.

        Return the number of replaced states, the number of distinct states in a sample of rows, and
        the number of rows that are sampled to measure the weight that training leaves out.
        """
        device, rows = batch.x.device, batch.row
        is_on_gpu = device.type != "cpu"
        if is_on_gpu:
            self.store = as_words(self.store, device, free_memory(device))
            sample: dict[Stream, int] = {"sample": 1}
            noise = draw_ahead(noise, sample | self.draws())
            if isinstance(self.store, LocalStore) and self.store.words.device == device:
                rows = noise.row
        words = self.store.get(rows).to(device, non_blocking=True)
        better, gap, replaced = self.improve(model, batch, words, noise)
        self.store.put(rows, better)
        again = repeated(better[:COUNTED].reshape(1, -1, better.shape[2]))
        sums = {
            "substitutions": replaced,
            "distinct": (~again).sum(),
            "looked_at": replaced.new_full((), again.numel()),
        }
        kept = KeptStates(better)
        if model.config.horizon is not None:
            part, sums["sampled_rows"] = parts_in_training(gap, model.horizon, noise)
            kept = KeptStates(better, part)
            if is_on_gpu:
                kept = with_numbers(better, part, self._scores_of(model).present().none)
        self.last_block = Block(batch.row, kept, batch.row.argsort())
        return sums

    def telemetry(self, total: Sums, rows: int) -> dict[str, float]:
        """Return the replaced states per row, and the share of distinct states."""
        if "looked_at" not in total:
            return {}
        return {
            "substitutions": float(total["substitutions"]) / rows,
            "distinct_states": float(total["distinct"] / total["looked_at"]),
        }

    def __call__(self, model: TVAE, batch: Batch) -> Truncated:
        """Return the posteriors of training rows on their kept states."""
        kept = self.kept_states(batch)
        return model.posterior(batch, kept.words, kept.part)

    def kept_states(self, batch: Batch) -> KeptStates:
        """Return the kept states of a batch, and their parts in training."""
        return self._find_states(batch) if self.shown is None else self.shown

    def show(self, states: KeptStates | None) -> None:
        """Make `kept_states` return these states for any batch, until it is called with None."""
        self.shown = states

    def _find_states(self, batch: Batch) -> KeptStates:
        """Return the kept states of a batch, from the last block or from the store."""
        if self.last_block and (found := self.last_block.find(batch.row)):
            return found
        return KeptStates(self.store.get(batch.row).to(batch.x.device, non_blocking=True))

    def fill_pool(self) -> None:
        """Fill the pool with the states of evenly spaced rows, which worker 0 always holds."""
        if not hasattr(self, "store") or self.store.held.rank > 0:
            return
        lane = self.store.held.lanes.first
        count = min(POOL_ROWS, len(lane))
        rows = torch.tensor([lane[number * len(lane) // count] for number in range(count)])
        states = self.store.get(rows).to(self.pool.device)
        self.pool = states.reshape(-1, states.shape[2]).unique(dim=0)

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> object:
        """Set the pool; runs of version 0.2.0 have none."""
        pool = state_dict.get("pool", self.pool)
        if pool.dtype != torch.int64 or pool.shape[1:] != self.pool.shape[1:]:
            raise Refusal(
                f"estep.pool: {pool.dtype} {list(pool.shape)}; states of"
                f" {self.pool.shape[1]} words expected"
            )
        refuse_strange_bits("estep.pool", pool, self.latent)
        self.pool = torch.empty_like(pool, device=self.pool.device)
        return super().load_state_dict({"pool": pool, **state_dict}, strict, assign)

    @torch.no_grad()
    def _starts(self, model: TVAE, batch: Batch, row: Tensor) -> Tensor:
        """Return the states (B, S, W) from which a search for new rows starts: the most probable
        states among random draws and the pool.
        """
        self.fill_pool()
        drawn = self._first_states(0)(row).contiguous()
        if not len(self.pool):
            return drawn
        starts = []
        for part in parts_of(len(drawn), max(SCORED // len(self.pool), 1)):
            rows = batch.part(part)
            pool = self.pool.expand(len(rows.x), -1, -1)
            value, place = self.score(model, rows, pool).topk(min(pool.shape[1], drawn.shape[1]))
            kept = (drawn[part], self.score(model, rows, drawn[part]))
            starts.append(best_states(kept, (self.pool[place], value), self.ranked).words)
        return torch.cat(starts)

    def infer(self, model: TVAE, batch: Batch, sweeps: int | None = None) -> Truncated:
        """Return the posteriors of new data, or of training rows if `sweeps` is 0."""
        if sweeps == 0:
            return model.posterior(batch, self._find_states(batch).words)
        row = batch.row.to(batch.x.device)
        words = self._starts(model, batch, row)
        for sweep in range(self.config.sweeps if sweeps is None else sweeps):
            words = self.improve(model, batch, words, Noise(0, FIRST - 1 - sweep, row)).words
        return model.posterior(batch, words)

    def save(self, folder: Path | str, generation: str) -> list[PopulationFile]:
        """Write the populations that this worker holds into a run folder."""
        return self.store.save(folder, generation)

    def load(self, folder: Path | str, files: Sequence[PopulationFile]) -> None:
        """Read the populations of this worker's rows from the files of all workers."""
        self.last_block = None
        self.store.load(folder, files)


def _fill_pool(search: Search, *_: object) -> None:
    search.fill_pool()


class Evolution(Search):
    """An evolutionary search: mutated children of fit states compete with the kept states."""

    config: config.Evolution

    @property
    def ranked(self) -> bool:
        """True if parents are selected by their rank in the last search."""
        return self.config.selection == "released"

    def candidates(
        self, model: TVAE, batch: Batch, words: Tensor, value: Tensor, noise: Noise
    ) -> Scored:
        """Return the children of all generations. Parents come from the previous generation."""
        found = [(words, value)]
        for stage in range(self.config.generations):
            children = self._next_generation(model, *found[-1], noise, stage)
            found.append((children, self.score(model, batch, children)))
        if len(found) == 2:
            return found[1]
        states, values = zip(*found[1:], strict=True)
        return torch.cat(states, 1), torch.cat(values, 1)

    def _next_generation(
        self, model: TVAE, words: Tensor, value: Tensor, noise: Noise, stage: int
    ) -> Tensor:
        """Return the children (B, C, W) of fit states among words (B, S, W)."""
        config = self.config
        is_compiled = (config.selection, config.mutation, config.crossover) == COMPILED
        if words.device.type != "cpu" or not is_compiled:
            parents = select(words, value, config.parents, config.selection, noise, stage)
            return breed(parents, config, model.pi, noise, stage)
        from distvae.estep import kernels

        places = torch.empty(len(words), config.parents, dtype=torch.int64)
        siblings = config.parents * config.children
        children = words.new_empty(len(words), siblings, words.shape[2])
        kernels.nearly_best(value.numpy(), noise.seeds("parent").numpy(), stage, places.numpy())
        operands = (words.numpy(), places.numpy(), noise.seeds("child").numpy(), stage)
        kernels.flip_children(*operands, self.latent, children.numpy())
        return children

    def draws(self) -> dict[Stream, int]:
        """Return the number of random words that all generations need, by stream."""
        config = self.config
        among = max(config.states, config.new_states)
        parent = {
            "fitness": among,
            "uniform": among,
            "fitness_batch": 2 * config.parents * config.generations,
            "released": 2 * config.parents * config.generations,
            "best": 0,
        }
        counts: dict[Stream, int] = {"parent": parent[config.selection]}
        if config.crossover == "none" and config.mutation == "flip":
            counts["child"] = config.new_states
        return counts


class RandomSearch(Search):
    """A search by independent draws from Bernoulli(1 / H)."""

    config: config.RandomSearch

    def candidates(
        self, model: TVAE, batch: Batch, words: Tensor, value: Tensor, noise: Noise
    ) -> Scored:
        """Return random states with one active bit on average, and their log-joints."""
        new = bernoulli(self.config.draws, self.latent, noise, "child")
        return new, self.score(model, batch, new)


class Exact(nn.Module):
    """The exact posterior, on all 2^H states."""

    words: Tensor

    def __init__(self, config: config.Exact, model: TVAE) -> None:
        super().__init__()
        place = torch.arange(model.code_size)
        words = pack((torch.arange(2**model.code_size).unsqueeze(-1) >> place) & 1)
        self.register_buffer("words", words, persistent=False)

    def __call__(self, model: TVAE, batch: Batch) -> Truncated:
        """Return the posterior of every row."""
        return model.posterior(batch, self.kept_states(batch).words)

    def kept_states(self, batch: Batch) -> KeptStates:
        """Return all 2^H states for every row."""
        if batch.x.device.type == "cpu":
            return KeptStates(self.words.repeat(len(batch.x), 1, 1))
        return KeptStates(self.words.expand(len(batch.x), -1, -1))

    def infer(self, model: TVAE, batch: Batch, sweeps: int | None = None) -> Truncated:
        """Return the exact posterior of new data."""
        return self(model, batch)
