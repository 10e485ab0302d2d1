"""Estimate the memory that a training needs, before it is allocated.

The estimate is a lower bound, so that a training that might fit is never refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch

from distvae.config import Config, Truncation, flatten
from distvae.data.dataset import Dataset
from distvae.estep import assemble
from distvae.estep.store import check_populations_fit
from distvae.files.paths import gigabytes
from distvae.files.refusal import Refusal, cause, shown
from distvae.models.population import words_of
from distvae.system import available_memory

NUMBER, WORD = 4, 8
"""Bytes of a float32, and of a 64-bit word of a state."""
NUMBERS_A_PARAMETER = 4
"""Numbers in memory per parameter: the parameter, its gradient, and two moments."""
COPIES_OF_A_WORKER = 3
"""Copies of the populations of a worker under Ray: the worker's own, and two snapshots."""
DRAWS_A_STATE = 3
"""First states that are drawn for each first state that is kept."""
MODEL_SETTINGS = (
    *("model.latent", "model.hidden", "model.channels", "model.atoms", "model.pseudo_inputs"),
    *("estep.hidden", "estep.channels"),
)
"""Settings that decide the size of a model."""
SEARCH_SETTINGS = tuple(f"estep.{name}" for name in ("draws", "parents", "children", "generations"))
"""Settings that decide the number of new states of a search."""
LOWERED = (
    *("train.batch", "estep.block", "estep.states"),
    *("model.latent", "model.hidden", "estep.hidden"),
)
"""Settings to lower if a training runs out of memory, settings of its steps first."""


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


class MemoryCost(NamedTuple):
    """Bytes of memory for one purpose, and the settings that decide the size."""

    what: str
    size: int
    settings: Mapping[str, object]


def check_fits_in_memory(
    config: Config, data: DataSize, workers: int = 1, copies: int = 1, free: int | None = None
) -> None:
    """Raise `Refusal` if a training needs more memory than this machine has free.

    The machine holds `copies` copies of the populations of each of its workers.
    """
    if free is None:
        free = available_memory()
    costs = list(estimate_cost(config, data, workers))
    needed = sum(cost.size for cost in costs)
    if needed > free:
        largest = max(costs, key=lambda cost: cost.size)
        name = max(largest.settings, key=lambda key: _largest(largest.settings[key]))
        raise Refusal(
            f"{name}: {shown(largest.settings[name])}: {largest.what} need"
            f" {gigabytes(largest.size)} of memory, all that is needed is {gigabytes(needed)}, and"
            f" {gigabytes(free)} are free; less expected"
        )
    estep = config.estep
    if isinstance(estep, Truncation) and estep.mapped is None:
        rows, words = copies * data.rows // workers, words_of(config.model.latent)
        check_populations_fit(free, rows, estep.states, words)


@contextmanager
def memory_refused(config: Config, name: str) -> Iterator[None]:
    """Turn an out-of-memory error into a `Refusal` that names the settings to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, torch.AcceleratorError) as error:
        if isinstance(error, torch.AcceleratorError) and "out of memory" not in str(error):
            raise
        values = flatten(config)
        lower = ", ".join(f"{key}={shown(values[key])}" for key in LOWERED if values.get(key))
        reason = ". ".join(cause(error).split(". ")[:2])  # keep the size of the failed request
        raise Refusal(
            f"{name}: training a {config.model.kind} ran out of memory ({reason}); less of"
            f" {lower} expected"
        ) from error


def estimate_cost(config: Config, data: DataSize, workers: int = 1) -> Iterator[MemoryCost]:
    """Yield the memory that one of `workers` workers needs, by purpose.

    For training on a GPU, only tensors that are created on the CPU first are counted.
    """
    values = flatten(config)

    def chosen(*keys: str) -> dict[str, object]:
        return {key: values[key] for key in keys if values.get(key)}

    on_cpu = config.train.device == "cpu" or not torch.cuda.is_available()
    parameters = count_parameters(config, data)
    numbers = parameters * (NUMBERS_A_PARAMETER if on_cpu else 1)
    sizes = chosen(*MODEL_SETTINGS) | {"data (values of a data point)": data.dims}
    yield MemoryCost(f"{parameters:,} parameters", numbers * NUMBER, sizes)
    if not on_cpu:
        return
    model, estep = config.model, config.estep
    batch, draws = min(config.train.batch, data.rows) // workers, getattr(model, "draws", 1)
    encoder, decoder = (sum(getattr(part, "hidden", ())) for part in (estep, model))
    outputs = data.dims + encoder + draws * (model.latent + decoder + data.dims)
    settings = {"train.batch": batch, "model.draws": draws, **sizes}
    yield MemoryCost(f"batches of {batch:,} rows", batch * outputs * NUMBER, settings)
    if not isinstance(estep, Truncation):
        return
    block, new = min(estep.block, data.rows) // workers, estep.new_states
    population = chosen("estep.states", "model.latent")
    yield MemoryCost(
        f"{block:,} rows with {estep.states:,} states kept and {new:,} new ones each",
        block * (estep.states + new) * (words_of(model.latent) * WORD + NUMBER),
        {"estep.block": block, **population, **chosen(*SEARCH_SETTINGS)},
    )
    first = DRAWS_A_STATE * estep.states * model.latent * WORD
    yield MemoryCost("the first states", first, population)


def count_parameters(config: Config, data: DataSize) -> int:
    """Return the number of parameters of the model and its E-step, without allocating them.

    Return 0 for a model of an extension that cannot be built on torch's meta device.
    """
    try:
        with torch.device("meta"):
            parts = assemble(config, data.dims, data.shape)
    except RuntimeError:
        return 0
    return sum(values.numel() for part in parts for values in part.parameters())


def _largest(value: object) -> int:
    numbers = value if isinstance(value, Sequence) else [value]
    return max(number for number in numbers if isinstance(number, int))
