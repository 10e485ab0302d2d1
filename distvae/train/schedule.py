"""The learning rate as a function of the step, and the unit of steps for warm-ups."""

import math

import torch
from torch import Tensor

from distvae.config import Train

PRECISION = torch.float32
"""The precision of learning rates that torch's fused Adam requires on a GPU."""


class Rates:
    """The learning rates of a training, on the device of its parameters."""

    def __init__(self, config: Train, batches: int, device: torch.device) -> None:
        self.config, self.batches, self.device = config, batches, device
        self.last = 0.0
        """The rate of the last step, as a number."""
        self.epoch: Tensor | None = None
        """The rates of an epoch on the device, or None on the host."""

    def begin_epoch(self, epoch: int) -> None:
        """Copy the rates of an epoch to the device."""
        if self.device.type == "cpu":
            return
        steps = range(epoch * self.batches, (epoch + 1) * self.batches)
        rates = [rate(self.config, step, self.batches) for step in steps]
        self.epoch = torch.tensor(rates, dtype=PRECISION).to(self.device, non_blocking=True)

    def at(self, step: int, steps: int = 1) -> float | Tensor:
        """Return the rate of a step: a number on the host, or a scalar on the device.

        On the device, several steps of an epoch get a tensor of rates, (steps,).
        """
        self.last = rate(self.config, step + steps - 1, self.batches)
        if self.epoch is None:
            return self.last
        first = step % self.batches
        return self.epoch[first] if steps == 1 else self.epoch[first : first + steps]


EXPONENTS = {"none": 0.0, "root": 0.5, "linear": 1.0}
"""The exponent of batch / base_batch in the factor of the learning rate, by `scale_rate`."""


def rate(config: Train, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from zero."""
    warm = min(1.0, base_steps(config, step + 1) / config.warmup) if config.warmup else 1.0
    grown = min(1.0, (step + 1) / steps_per_epoch)
    scale = 1.0 + grown * (largest_factor(config) - 1.0)
    return scale * warm * _scheduled(config, step, steps_per_epoch)


def largest_factor(config: Train) -> float:
    """Return the factor of the learning rate after the first epoch, for the batch size."""
    if config.base_batch is None:
        return 1.0
    return float((config.batch / config.base_batch) ** EXPONENTS[config.scale_rate])


def base_steps(config: Train, steps: int) -> float:
    """Convert a number of steps to steps of `base_batch` rows."""
    if config.base_batch is None:
        return steps
    return steps * config.batch / config.base_batch


def _scheduled(config: Train, step: int, steps_per_epoch: int) -> float:
    span = config.rate - config.rate_low
    if config.schedule == "cosine":
        progress = step / (config.epochs * steps_per_epoch)
        return config.rate_low + span * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "cyclical":
        phase = (step / (config.cycle * steps_per_epoch)) % 1.0
        return config.rate_low + span * (1 - abs(2 * phase - 1))
    return config.rate
