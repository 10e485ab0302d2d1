"""Which trials train as one stack, and how many have room in memory."""

from distvae.config import Config, flatten
from distvae.system.memory import available_memory

Shape = tuple[tuple[str, str], ...]
FREE = (
    "train.seed",
    "train.epochs",
    "train.rate",
    "train.rate_low",
    "train.scale_rate",
    "train.base_batch",
    "train.schedule",
    "train.warmup",
    "train.cycle",
    "train.clip",
    "train.patience",
    "model.alpha",
    "model.beta",
    "model.beta_warmup",
    "model.coherence",
    "model.sharpness",
    "model.slab_warmup",
)
"""Settings in which trials of one stack may differ: none of them is a shape."""


def stack_shape(config: Config) -> Shape:
    """Return what must be equal between trials that train as one stack.

    These are all settings but those in `FREE` and those of evaluation: the data, the size of a
    batch, the kind of model and its layers. A setting that is not known here must be equal too.
    """
    settings = []
    for key, value in sorted(flatten(config).items()):
        if key not in FREE and not key.startswith("eval."):
            settings.append((key, repr(value)))
    return tuple(settings)


def count_fitting(config: Config) -> int:
    """Return how many trainings of such a configuration have room in the memory that is free."""
    from distvae.data import open_dataset
    from distvae.train.cost import DataSize, estimate_cost

    data = DataSize.of(open_dataset(config.data, quiet=True))
    needed = sum(cost.count for cost in estimate_cost(config, data))
    return available_memory() // max(needed, 1)
