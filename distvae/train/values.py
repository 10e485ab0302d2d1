"""Check the values of the training data: refuse values that have no density under the model."""

import math

import numpy as np

from distvae.config import Amortised, Config
from distvae.data.dataset import Dataset, Rows, recorded_facts
from distvae.files.refusal import Refusal
from distvae.models.likelihoods import support_of
from distvae.train.batches import BLOCK


def refuse_unfit(config: Config, dataset: Dataset) -> dict[str, tuple[float, float]]:
    """Refuse values without a density under the likelihood, or without a logarithm if needed.

    Return the smallest and the largest value of each split. Missing values (NaN) are left out.
    """
    dataset.split_names("train")  # refuses data without rows to train on
    ranges = {}
    for split in dataset.split_names("all"):
        ranges[split] = _range(dataset.splits[split])
        for value in ranges[split]:
            _refuse_value(config, dataset.name, split, value)
    return ranges


def _refuse_value(config: Config, name: str, split: str, value: float) -> None:
    low, high = support_of(config.model)
    if math.isnan(value):
        raise Refusal(
            f"{name}: every value of split '{split}' is missing; some observed ones expected"
        )
    if value < low or value > high or math.isinf(value):
        likelihood = getattr(config.model, "likelihood", "")
        field = f"model.likelihood: '{likelihood}'" if likelihood else f"data.kind: '{name}'"
        wanted = f"finite values from {low:g} to {high:g}"
        if math.isinf(value):
            wanted = "finite values that 32 bits can hold, below 3.4e38,"
    elif value < 0 and isinstance(config.estep, Amortised) and config.estep.takes_logarithm:
        field = f"estep.input: '{config.estep.input}'"
        wanted = "values of 0 or more, or standard or raw,"
    else:
        return
    raise Refusal(
        f"{field} with a value of {value:g} in split '{split}' of {name}; {wanted} expected"
    )


def _range(rows: Rows) -> tuple[float, float]:
    """Return the smallest and the largest observed value, or NaN if no value was observed."""
    if facts := recorded_facts(rows):
        return facts.range
    low = high = math.nan
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        low = float(np.fmin.reduce(block, axis=None, initial=low))
        high = float(np.fmax.reduce(block, axis=None, initial=high))
    return low, high
