"""The lines that a restoration prints."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from distvae.data.signals import Signal
from distvae.numerics.numbers import counted
from distvae.train.progress import format_duration

if TYPE_CHECKING:
    from distvae.tasks.restoration import Restoration, Stage


def describe_data(restoration: "Restoration", observed: Signal) -> Iterator[str]:
    """Yield what is to be known about the data before training begins."""
    if noise := restoration.noise:
        about = "" if restoration.config.train.sigma else "about "
        yield f"white noise of {about}{noise:.4g}; training ends early if sigma falls below it"
    if unreached := restoration.patches.unreached:
        yield describe_unreached(unreached, observed)


def describe_unreached(count: int, observed: Signal) -> str:
    """Say what is to be expected of values that share no window with an observed one."""
    guessed = counted(count, "pixel" if observed.rate is None else "sample")
    return (
        f"the model can only guess {guessed}, too far from any observed one for a window"
        " (data.window) to hold both"
    )


def describe_stage(stage: "Stage", seconds_left: float) -> str:
    """Return one line about the progress of a restoration."""
    return (
        f"epoch {stage.epoch}/{stage.epochs}  nats/window {stage.bound:.2f}{format_found(stage)}"
        f"{format_scores(stage.close)}  {format_duration(seconds_left)} left"
    )


def format_found(stage: "Stage") -> str:
    """Return the noise level and the number of active latents that a TVAE has found."""
    if math.isnan(stage.sigma):
        return ""
    return f"  sigma {stage.sigma:.4g}  active {stage.active:.2f}"


def format_scores(scores: Mapping[str, float]) -> str:
    """Return scores as they follow in a line of text."""
    return "".join(f"  {name.upper()} {value:.3f}" for name, value in scores.items())
