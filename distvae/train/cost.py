"""Estimate the memory that a training needs, before it is allocated.

The estimate is a lower bound, so that a training that might fit is never refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from distvae.config import Config, Truncation, flatten
from distvae.data.dataset import Dataset
from distvae.estep import assemble
from distvae.estep.store import check_populations_fit
from distvae.files.paths import gigabytes
from distvae.files.refusal import Refusal, cause, shown
from distvae.models.population import words_of
from distvae.system import available_memory

NUMBER = 4
"""Bytes of a float32."""
COPIES_OF_A_WORKER = 3
"""Copies of the populations of a worker under Ray: the worker's own, and two snapshots."""
SIZES = ("model.latent", "model.hidden", "model.atoms", "model.pseudo_inputs", "estep.hidden")
"""Settings that decide the size of a model."""
LOWERED = ("train.batch", "estep.block", "estep.states", *SIZES[:2], "estep.hidden")
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


def check_fits_in_memory(
    config: Config, data: DataSize, workers: int = 1, copies: int = 1, free: int | None = None
) -> None:
    """Raise `Refusal` if a training needs more memory than this machine has free.

    The machine holds `copies` copies of the populations of each of its workers.
    """
    free = available_memory() if free is None else free
    costs = estimate_costs(config, data, workers)
    if sum(costs.values()) > free:
        name = max(costs, key=lambda each: costs[each])
        raise Refusal(
            f"{name}: {shown(flatten(config)[name])}: needs {gigabytes(costs[name])} of memory, all"
            f" that is needed is {gigabytes(sum(costs.values()))}, and {gigabytes(free)} are free;"
            " less expected"
        )
    estep = config.estep
    if isinstance(estep, Truncation) and estep.mapped is None:
        words = words_of(config.model.latent)
        check_populations_fit(free, copies * data.rows // workers, estep.states, words)


def estimate_costs(config: Config, data: DataSize, workers: int = 1) -> dict[str, int]:
    """Return the bytes that one of `workers` workers needs, by the setting that decides most.

    A parameter has a gradient and two moments. For training on a GPU, only the parameters count,
    which are created on the CPU.
    """
    values = flatten(config)
    sizes = {name: _largest(values[name]) for name in SIZES if values.get(name)}
    widest = max(sizes, key=lambda name: sizes[name])
    parameters = NUMBER * count_parameters(config, data)
    if config.train.device != "cpu" and torch.cuda.is_available():
        return {widest: parameters}
    model, estep = config.model, config.estep
    batch, draws = min(config.train.batch, data.rows) // workers, getattr(model, "draws", 1)
    encoder, decoder = (sum(getattr(part, "hidden", ())) for part in (estep, model))
    outputs = data.dims + encoder + draws * (model.latent + decoder + data.dims)
    costs = {widest: 4 * parameters, "train.batch": NUMBER * batch * outputs}
    if isinstance(estep, Truncation):
        block, states = min(estep.block, data.rows) // workers, estep.states + estep.new_states
        costs["estep.block"] = block * states * (8 * words_of(model.latent) + NUMBER)
    return costs


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


def _largest(value: object) -> int:
    return max(value) if isinstance(value, tuple | list) else int(str(value))
