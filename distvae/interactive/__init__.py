"""Train and tune from Python, with results that a notebook displays."""

from distvae.interactive.sweeping import Sweep, tune
from distvae.interactive.training import Training, train

__all__ = ["Sweep", "Training", "train", "tune"]
