"""The learning rate, a function of the step alone."""

import math

from distvae.config import Train


def rate(config: Train, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from zero."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    return warm * _scheduled(config, step, steps_per_epoch)


def _scheduled(config: Train, step: int, steps_per_epoch: int) -> float:
    span = config.rate - config.rate_low
    if config.schedule == "cosine":
        progress = step / (config.epochs * steps_per_epoch)
        return config.rate_low + span * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "cyclical":
        phase = (step / (config.cycle * steps_per_epoch)) % 1.0
        return config.rate_low + span * (1 - abs(2 * phase - 1))
    return config.rate
