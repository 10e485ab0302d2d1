"""Read a list of the gaps of a sound, such as the labels that Audacity exports."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, one_line, require_regular_file

COMMENTS = ("#", "\\")
"""How lines without a gap begin; Audacity writes the frequencies of a label after a backslash."""
LONGEST = 1e9
"""Seconds that no sound has: 30 years."""
EXPECTED = "the start and the end of a gap in seconds, such as '0.5 0.52', in each line"


def read_gaps(path: Path, rate: int, samples: int) -> NDArray[np.bool_]:
    """Return which samples of a sound are missing by a list of its gaps.

    A line has the start and the end of a gap in seconds; words behind them are a label. A sample is
    missing if any of its time is.
    """
    missing = np.zeros(samples, bool)
    for number, line in enumerate(_read_lines(path), 1):
        if line.strip() and not line.startswith(COMMENTS):
            start, end = _read_gap(f"{path}, line {number}", line)
            if _place(start, rate) >= samples:
                raise Refusal(
                    f"{path}, line {number}: a gap from {start:g} s on in a sound of"
                    f" {samples / rate:g} s; gaps within the sound expected"
                )
            missing[math.floor(_place(start, rate)) : math.ceil(_place(end, rate))] = True
    return missing


def _place(seconds: float, rate: int) -> float:
    """Return a time in samples, without the error of the product."""
    return round(seconds * rate, 6)


def _read_lines(path: Path) -> list[str]:
    require_regular_file(path, EXPECTED)
    with decoding(path, EXPECTED):
        return path.read_text(encoding="utf-8-sig").splitlines()


def _read_gap(place: str, line: str) -> tuple[float, float]:
    """Return the start and the end of a gap."""
    try:
        start, end = map(float, line.split()[:2])
    except ValueError as error:
        raise Refusal(f"{place}: {one_line(line)!r}; {EXPECTED} expected") from error
    if not 0 <= start < end < LONGEST:
        raise Refusal(f"{place}: from {start:g} to {end:g}; {EXPECTED} expected")
    return start, end
