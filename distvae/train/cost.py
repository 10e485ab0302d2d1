"""Estimate the memory that a training needs, before any of it is allocated.

The estimate is a lower bound, so that nothing is refused that might work.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

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
    flatten,
)
from distvae.data.dataset import Dataset
from distvae.estep.store import check_populations_fit
from distvae.files.memory import gigabytes
from distvae.files.refusal import Refusal, cause, shown
from distvae.models.nets import Pyramid
from distvae.models.population import words_of
from distvae.system.memory import available_memory

NUMBER, WORD = 4, 8
"""Bytes of a float32, and of 64 bits of a state."""
NUMBERS_A_PARAMETER = 4
"""Numbers for each parameter: itself, its gradient, and two moments."""
DATA_VALUES = "data (values of a data point)"
"""The name in messages for the width of the data."""
COPIES_OF_A_WORKER = 3
"""Copies of the populations of a worker under Ray: its own, and two snapshots."""
DRAWS_A_STATE = 3
"""First states drawn for each that is kept."""

LOWERED = (
    "train.batch",
    "estep.block",
    "estep.states",
    "model.latent",
    "model.hidden",
    "estep.hidden",
)
"""Settings that decide how much memory a training takes, those of its steps first."""

Settings = Mapping[str, int | Sequence[int]]
"""Values by dotted keys."""


@dataclass(frozen=True)
class DataSize:
    """The size of the data to train on."""

    rows: int
    dims: int
    shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset) -> "DataSize":
        """Return the size of a dataset's training split."""
        return cls(len(dataset.splits["train"]), dataset.dims, dataset.shape)


@dataclass(frozen=True)
class MemoryCost:
    """Bytes of memory for one purpose, and the settings that decide how many."""

    what: str
    count: int
    settings: Settings

    @property
    def largest_setting(self) -> str:
        """Return the setting with the largest number, which should be lowered first."""
        name = max(self.settings, key=lambda key: _largest(self.settings[key]))
        return f"{name}: {shown(self.settings[name])}"


def check_fits_in_memory(
    config: Config, data: DataSize, workers: int = 1, copies: int = 1, free: int | None = None
) -> None:
    """Raise `Refusal` if a training needs more memory than this machine has free.

    The machine has so many copies of the populations of each of its workers.
    """
    if free is None:
        free = available_memory()
    costs = list(estimate_cost(config, data, workers))
    needed = sum(cost.count for cost in costs)
    if needed > free:
        largest = max(costs, key=lambda cost: cost.count)
        raise Refusal(
            f"{largest.largest_setting}: {largest.what} need {gigabytes(largest.count)} of memory,"
            f" all that is needed is {gigabytes(needed)}, and {gigabytes(free)} are free; less"
            " expected"
        )
    estep = config.estep
    if isinstance(estep, Truncation) and estep.mapped is None:
        rows, words = copies * data.rows // workers, words_of(config.model.latent)
        check_populations_fit(free, rows, estep.states, words)


@contextmanager
def memory_refused(config: Config, name: str) -> Iterator[None]:
    """Raise `Refusal` where a training of this name runs out of memory, with the settings that may
    be lowered.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, torch.AcceleratorError) as error:
        if isinstance(error, torch.AcceleratorError) and "out of memory" not in str(error):
            raise
        values = flatten(config)
        lower = ", ".join(f"{key}={shown(values[key])}" for key in LOWERED if values.get(key))
        reason = ". ".join(cause(error).split(". ")[:2])  # how much was asked for and not given
        raise Refusal(
            f"{name}: training a {config.model.kind} ran out of memory ({reason}); less of"
            f" {lower} expected"
        ) from error


def estimate_cost(config: Config, data: DataSize, workers: int = 1) -> Iterator[MemoryCost]:
    """Yield the memory that each of several workers needs.

    Memory of a GPU is not counted, only what is created on the CPU before it is moved there.
    """
    on_cpu = config.train.device == "cpu" or not torch.cuda.is_available()
    parameters = count_parameters(config, data)
    numbers = parameters * (NUMBERS_A_PARAMETER if on_cpu else 1)
    yield MemoryCost(f"{parameters:,} parameters", numbers * NUMBER, _model_settings(config, data))
    if on_cpu:
        yield _batch_cost(config, data, workers)
        yield from _search_costs(config, data, workers)


def count_parameters(config: Config, data: DataSize) -> int:
    """Return how many numbers the model and its E-step learn, or 0 for an unknown family."""
    model, estep = config.model, config.estep
    if isinstance(model, TVAEModel):
        return _linear((model.latent, *model.hidden, data.dims))
    if not (isinstance(model, Decoder) and isinstance(estep, Amortised)):
        return 0
    heads = {VSCModel: 3, GumbelModel: 1}.get(type(model), 2)
    encoder, features = _encoder(estep, data)
    head = _linear((features, heads * model.code_size))
    return encoder + head + _decoder(model, data) + _other_parameters(model, data.dims)


def _other_parameters(model: Decoder, dims: int) -> int:
    """Return how many numbers a model learns beside its networks."""
    if isinstance(model, SDMModel):
        return model.latent * model.code_size
    if isinstance(model, VSCModel) and model.prior == "pseudo":
        return 2 * model.pseudo_inputs * dims + model.pseudo_inputs
    return 0


def _encoder(net: Net, data: DataSize) -> tuple[int, int]:
    """Return how many numbers an encoder learns, and its last width."""
    if net.net == "flat":
        widths = (data.dims, *net.hidden)
        return _linear(widths), widths[-1]
    pyramid = Pyramid(net, data.shape, "estep")
    widths = (pyramid.dims, *net.hidden)
    return _convolutions(net, pyramid.channels) + _linear(widths), widths[-1]


def _decoder(model: Decoder, data: DataSize) -> int:
    """Return how many numbers a decoder learns."""
    if model.net == "flat":
        return _linear((model.inputs, *model.hidden, data.dims))
    pyramid = Pyramid(model, data.shape, "model")
    dense = _linear((model.inputs, *model.hidden, pyramid.dims))
    return _convolutions(model, pyramid.channels[::-1]) + dense


def _convolutions(net: Net, channels: Sequence[int]) -> int:
    return sum(net.kernel**2 * a * b + b for a, b in pairwise(channels))


def _linear(widths: Sequence[int]) -> int:
    return sum(a * b + b for a, b in pairwise(widths))


def _batch_cost(config: Config, data: DataSize, workers: int) -> MemoryCost:
    """Return the memory of a batch for its gradient: the output of each layer."""
    batch = min(config.train.batch, data.rows) // workers
    draws = getattr(config.model, "draws", 1)
    encoder, decoder = (sum(getattr(part, "hidden", ())) for part in (config.estep, config.model))
    widths = data.dims + encoder + draws * (config.model.latent + decoder + data.dims)
    settings = {"train.batch": batch, "model.draws": draws, **_model_settings(config, data)}
    return MemoryCost(f"batches of {batch:,} rows", batch * widths * NUMBER, settings)


def _search_costs(config: Config, data: DataSize, workers: int) -> Iterator[MemoryCost]:
    """Yield the memory for searching a block, and for drawing the first states."""
    estep, latent = config.estep, config.model.latent
    if not isinstance(estep, Truncation):
        return
    block, new = min(estep.block, data.rows) // workers, estep.new_states
    population = {"estep.states": estep.states, "model.latent": latent}
    state_bytes = words_of(latent) * WORD + NUMBER
    yield MemoryCost(
        f"{block:,} rows with {estep.states:,} states kept and {new:,} new ones each",
        block * (estep.states + new) * state_bytes,
        {"estep.block": block, **population, **_search_settings(estep)},
    )
    first = DRAWS_A_STATE * estep.states * latent * WORD
    yield MemoryCost("the first states", first, population)


def _search_settings(estep: Truncation) -> Settings:
    """Return the settings that decide how many new states a search makes."""
    names = ("draws", "parents", "children", "generations")
    return {f"estep.{name}": getattr(estep, name) for name in names if hasattr(estep, name)}


def _model_settings(config: Config, data: DataSize) -> Settings:
    """Return the settings that decide how large a model is."""
    found: dict[str, int | Sequence[int]] = {}
    for name in ("latent", "hidden", "channels", "atoms", "pseudo_inputs"):
        found[f"model.{name}"] = getattr(config.model, name, 0)
    for name in ("hidden", "channels"):
        found[f"estep.{name}"] = getattr(config.estep, name, 0)
    nonzero = {name: value for name, value in found.items() if value}
    return {**nonzero, DATA_VALUES: data.dims}


def _largest(value: int | Sequence[int]) -> int:
    return max(value) if isinstance(value, Sequence) else value
