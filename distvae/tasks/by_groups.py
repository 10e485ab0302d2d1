"""Restore a picture, a sound or a stack by groups of similar windows, without training a model."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from distvae.data.windows import distinct_channels
from distvae.numerics.array_types import Doubles, Floats
from distvae.system import available_cores
from distvae.tasks import groups, sound_groups
from distvae.tasks.groups import Frames, Noise, Report, Restored, part_of, silent
from distvae.tasks.sound_groups import RATE, RestoredSound

VALUES = 2**24
"""Values of the frames that are restored together, approximately."""


def restore_array(
    array: Floats,
    sigma: float | None,
    *,
    counts: bool = False,
    deviation: bool = False,
    rate: int | None = None,
    report: Report = silent,
) -> Restored | RestoredSound:
    """Restore a picture (height, width, channels) or a sound (samples, channels).

    `sigma` is the standard deviation of the noise if it is known. `counts` says that the values are
    counts of events. With `deviation`, the deviations of the errors of a picture are estimated too.
    Equal channels are restored once, so the result may have a single channel.
    """
    channels, threads = distinct_channels(array), available_cores()
    if array.ndim < 3:
        return sound_groups.restore(channels, sigma, threads, report, rate or RATE)
    noise = groups.noise_of(lambda: [channels], counts=True) if counts else sigma
    return groups.restore(channels, noise, threads, report, deviation=deviation)


def restore_stack(
    read: Callable[[int], Doubles],
    numbers: Sequence[int],
    noise: float | Noise | None,
    across: int,
    threads: int,
    report: Report = silent,
    deviation: bool = False,
) -> Iterator[Restored]:
    """Yield the frames of a stack without noise. Without a noise, yield the frames with their NaN
    filled in.

    `read` returns a frame (height, width, channels) by its number. Similar windows are searched in
    `across` frames before and `across` frames behind each frame. A run of some frames is in memory
    at a time, so a long stack needs little more memory than a short stack.
    """
    count = len(numbers)
    core = max(4 * across, VALUES // read(numbers[0]).size - 2 * across) if across else 1
    for start in range(0, count, core):
        first, last = max(0, start - across), min(count, start + core + across)
        run = Restored(np.concatenate([read(number) for number in numbers[first:last]]))
        if noise is not None or np.isnan(run.values).any():
            part = part_of(report, start / count, min(core, count - start) / count)
            frames = Frames(last - first, across)
            run = groups.restore(run.values, noise, threads, part, frames, deviation)
        errors: Sequence[Doubles | None] = [None] * (last - first)
        if run.deviation is not None:
            errors = np.split(run.deviation, last - first)
        for place, values in enumerate(np.split(run.values, last - first)):
            if start <= first + place < start + core:
                yield Restored(values, run.noise, errors[place])
