"""What a training asks of this machine's memory, reckoned before any of it is taken.

What is reckoned is the least that it takes, so that nothing is refused that might do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from distvae.config import (
    Amortised,
    Config,
    Decoder,
    GumbelModel,
    Net,
    SDMModel,
    Truncation,
    TVAEModel,
    VSCModel,
)
from distvae.data.dataset import Dataset
from distvae.estep.store import check_populations_fit
from distvae.files.memory import available_memory, gigabytes
from distvae.files.refusal import Refusal, shown
from distvae.models.nets import Pyramid
from distvae.models.population import words_of

NUMBER, WORD = 4, 8
"""Bytes of a number that is computed with, and of 64 bits of a state."""
LEARNT = 4
"""Numbers for each parameter: itself, its gradient, and two moments."""
VALUES = "data (values of a data point)"
"""What is blamed where these are many."""
DRAWN = 3
"""First states drawn for each that is kept."""
Settings = dict[str, Any]
"""Dotted keys and values."""


@dataclass(frozen=True)
class DataSize:
    """How much a training is to learn from."""

    rows: int
    dims: int
    shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset) -> "DataSize":
        """Return how much there is of a dataset to train on."""
        return cls(len(dataset.splits["train"]), dataset.dims, dataset.shape)


@dataclass(frozen=True)
class MemoryCost:
    """Bytes, and the settings that decide how many."""

    what: str
    count: int
    settings: Settings

    @property
    def blamed(self) -> str:
        """Return the setting with the largest number, which is the first to lower."""
        name = max(self.settings, key=lambda key: _largest(self.settings[key]))
        return f"{name}: {shown(self.settings[name])}"


def check_fits_in_memory(
    config: Config, data: DataSize, workers: int = 1, holds: bool = True, free: int | None = None
) -> None:
    """Refuse a training that takes more memory than this machine has free; whether it holds
    populations is told.
    """
    demands, left = (
        list(estimate_cost(config, data, workers)),
        available_memory() if free is None else free,
    )
    needed = sum(demand.count for demand in demands)
    if needed > left:
        largest = max(demands, key=lambda demand: demand.count)
        raise Refusal(
            f"{largest.blamed}: {largest.what} need {gigabytes(largest.count)} of memory, all that"
            f" is needed is {gigabytes(needed)}, and {gigabytes(left)} are free; less expected"
        )
    if holds and isinstance(config.estep, Truncation) and config.estep.mapped is None:
        check_populations_fit(
            left, data.rows // workers, config.estep.states, words_of(config.model.latent)
        )


def estimate_cost(config: Config, data: DataSize, workers: int = 1) -> Iterator[MemoryCost]:
    """Yield what one of several workers takes. What a GPU holds is not reckoned, but what is made
    here for it.
    """
    here = config.train.device == "cpu" or not torch.cuda.is_available()
    count = count_parameters(config, data)
    yield MemoryCost(
        f"{count:,} parameters", count * NUMBER * (LEARNT if here else 1), _sizes(config, data)
    )
    if here:
        yield _of_a_batch(config, data, workers)
        yield from _of_a_visit(config, data, workers)


def count_parameters(config: Config, data: DataSize) -> int:
    """Return how many numbers the model and its E-step learn, or 0 of families that are not known
    here.
    """
    model, estep = config.model, config.estep
    if isinstance(model, TVAEModel):
        return _linear((model.latent, *model.hidden, data.dims))
    if not (isinstance(model, Decoder) and isinstance(estep, Amortised)):
        return 0
    states = model.columns if isinstance(model, SDMModel) else model.latent
    heads = {VSCModel: 3, GumbelModel: 1}.get(type(model), 2)
    inwards, features = _net(estep, (data.dims,), data, "estep")
    outwards, _ = _net(model, (model.latent,), data, "model")
    return inwards + outwards + _linear((features, heads * states)) + _beside(model, data.dims)


def _beside(model: Decoder, dims: int) -> int:
    """Return how many numbers a model learns beside its nets."""
    if isinstance(model, SDMModel):
        return model.latent * model.columns
    if isinstance(model, VSCModel) and model.prior == "pseudo":
        return 2 * model.pseudo_inputs * dims + model.pseudo_inputs
    return 0


def _net(net: Net, start: tuple[int, ...], data: DataSize, section: str) -> tuple[int, int]:
    """Return how many numbers an encoder (whose section is `estep`) or a decoder learns, and its
    last width inwards.
    """
    outwards = section == "model"
    if net.net == "flat":
        widths = (*start, *net.hidden, data.dims) if outwards else (*start, *net.hidden)
        return _linear(widths), widths[-1]
    pyramid = Pyramid(net, data.shape, section)
    channels = pyramid.channels[::-1] if outwards else pyramid.channels
    filters = sum(net.kernel**2 * a * b + b for a, b in pairwise(channels))
    widths = (*start, *net.hidden, pyramid.dims) if outwards else (pyramid.dims, *net.hidden)
    return filters + _linear(widths), widths[-1]


def _linear(widths: Sequence[int]) -> int:
    return sum(a * b + b for a, b in pairwise(widths))


def _of_a_batch(config: Config, data: DataSize, workers: int) -> MemoryCost:
    """Return what is kept of a batch for its gradient: the output of each layer."""
    batch = min(config.train.batch, data.rows) // workers
    hidden = [getattr(part, "hidden", ()) for part in (config.model, config.estep)]
    widths = 2 * data.dims + sum(map(sum, hidden)) + config.model.latent
    return MemoryCost(
        f"batches of {batch:,} rows",
        batch * widths * NUMBER,
        {"train.batch": batch, **_sizes(config, data)},
    )


def _of_a_visit(config: Config, data: DataSize, workers: int) -> Iterator[MemoryCost]:
    """Yield what populations take while a block is visited, and when their first states are
    drawn.
    """
    estep, width = config.estep, words_of(config.model.latent)
    if not isinstance(estep, Truncation):
        return
    block, new = min(estep.block, data.rows) // workers, estep.new_states
    kept: Settings = {"estep.states": estep.states, "model.latent": config.model.latent}
    told = f"{block:,} rows with {estep.states:,} states kept and {new:,} new ones each"
    visited = block * (estep.states + new) * (width * WORD + NUMBER)
    yield MemoryCost(told, visited, {"estep.block": block} | kept | _searched(estep))
    yield MemoryCost("the first states", DRAWN * estep.states * config.model.latent * WORD, kept)


def _searched(estep: Truncation) -> Settings:
    """Return the settings that decide how many new states a search makes."""
    names = ("draws", "parents", "children", "generations")
    return {f"estep.{name}": getattr(estep, name) for name in names if hasattr(estep, name)}


def _sizes(config: Config, data: DataSize) -> Settings:
    """Return the settings that decide how large a model is."""
    names = {
        "model": ("latent", "hidden", "channels", "atoms", "pseudo_inputs"),
        "estep": ("hidden", "channels"),
    }
    parts = {"model": config.model, "estep": config.estep}
    found = {
        f"{s}.{name}": getattr(parts[s], name, None)
        for s, fields in names.items()
        for name in fields
    }
    return {name: value for name, value in found.items() if value} | {VALUES: data.dims}


def _largest(value: Any) -> int:
    return max(value) if isinstance(value, Sequence) else int(value)
