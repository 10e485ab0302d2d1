"""The report of `distvae data check` on one picture or sound."""

from pathlib import Path

import numpy as np

from distvae.data.examples import example
from distvae.data.signals import read_signal
from distvae.data.survey import Survey


def survey_signal(path: str) -> Survey | None:
    """Return what a picture or sound file holds, or a built-in one; refuse a file of any other
    kind.
    """
    signal = example(path)
    if signal is None:
        if Path(path).is_dir():
            return None
        signal = read_signal(Path(path))
    *sides, channels = signal.values.shape
    if signal.rate is not None:
        facts = {"seconds": sides[0] / signal.rate, "rate": signal.rate}
        return Survey(path, "a sound", "patches", {}, facts)
    height, width = sides
    size = {"height": height, "width": width, "channels": channels, "bits": signal.bits}
    if missing := int(np.isnan(signal.values).sum()):
        size["missing"] = missing
    return Survey(path, "a picture", "patches", {}, size)
