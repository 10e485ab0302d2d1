"""Restore the frames of a stack in runs, so that a long one needs little more memory than a short
one.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from distvae.numerics.array_types import Doubles
from distvae.tasks.groups import Frames, Noise, Report, Restored, part_of, restore, silent

VALUES = 2**24
"""Values of a run of frames, about."""


def restore_stack(
    read: Callable[[int], Doubles],
    numbers: Sequence[int],
    noise: float | Noise | None,
    across: int,
    threads: int,
    report: Report = silent,
    deviation: bool = False,
) -> Iterator[Restored]:
    """Yield frames without noise, or with their NaN filled in if there is none.

    `read` returns a frame (height, width, channels) by its number. Similar windows are searched for
    in so many frames before and behind.
    """
    count = len(numbers)
    core = max(4 * across, VALUES // read(numbers[0]).size - 2 * across) if across else 1
    for start in range(0, count, core):
        first, last = max(0, start - across), min(count, start + core + across)
        found = Restored(np.concatenate([read(number) for number in numbers[first:last]]))
        if noise is not None or np.isnan(found.values).any():
            part = part_of(report, start / count, min(core, count - start) / count)
            frames = Frames(last - first, across)
            found = restore(found.values, noise, threads, part, frames, deviation)
        yield from _apart(found, last - first)[start - first : start - first + core]


def _apart(run: Restored, count: int) -> list[Restored]:
    """Return the frames of a run one by one."""
    errors: Sequence[Doubles | None] = [None] * count
    if run.deviation is not None:
        errors = np.split(run.deviation, count)
    frames = np.split(run.values, count)
    return [Restored(each, run.noise, error) for each, error in zip(frames, errors, strict=True)]
