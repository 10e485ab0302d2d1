"""Compiled loops over the windows of a picture.

A picture is (C, height, width). The frames of a stack are stacked along its height. The place of a
window is the number of its upper left pixel.
"""

import numpy as np
from numpy.typing import NDArray

from distvae.models.kernels import compiled

Picture = NDArray[np.float32]
Places = NDArray[np.int32]


@compiled
def nearest_windows(
    guide: Picture,
    rows: Places,
    columns: Places,
    size: int,
    count: int,
    radius: int,
    height: int,
    first: int,
    last: int,
) -> Places:
    """Return each reference and the windows nearest to it, (M, count).

    References have their upper left pixels at the crossings of `rows` and `columns`. Windows come
    from frames of this height, from frame `first` up to but without frame `last`.
    """
    channels, _, width = guide.shape
    found = np.empty((len(rows) * len(columns), count), np.int32)
    distances = np.empty((last - first) * (2 * radius + 1) ** 2, np.float32)
    m = 0
    for y in rows:
        for x in columns:
            frame, within = y // height, y % height
            top, bottom = max(0, within - radius), min(height - size, within + radius) + 1
            left, right = max(0, x - radius), min(width - size, x + radius) + 1
            across, down = right - left, bottom - top
            near = distances[: (last - first) * down * across]
            near[:] = 0
            for r in range((last - first) * down):
                v = (first + r // down) * height + top + r % down
                row = near[r * across : (r + 1) * across]
                for c in range(channels):
                    for a in range(size):
                        for b in range(size):
                            value = guide[c, y + a, x + b]
                            line = guide[c, v + a, left + b : right + b]
                            for u in range(across):
                                difference = line[u] - value
                                row[u] += difference * difference
            own = ((frame - first) * down + within - top) * across + x - left
            near[own] = -1
            found[m, 0] = y * width + x
            bound, k = np.partition(near, count - 1)[count - 1], 1
            for is_below in (True, False):
                for q in range(near.size):
                    is_in = near[q] < bound if is_below else near[q] == bound
                    if k < count and is_in and q != own:
                        r = q // across
                        v = (first + r // down) * height + top + r % down
                        found[m, k] = v * width + q % across + left
                        k += 1
            m += 1
    return found


@compiled
def cut_windows(picture: Picture, places: Places, size: int) -> tuple[Picture, Picture]:
    """Return populations (M, D, n) without their means, and the means (M, D)."""
    channels, _, width = picture.shape
    groups, count = places.shape
    values = np.empty((groups, channels * size * size, count), np.float32)
    means = np.empty((groups, channels * size * size), np.float32)
    for m in range(groups):
        k = 0
        for c in range(channels):
            for a in range(size):
                for b in range(size):
                    total = np.float32(0)
                    for j in range(count):
                        y, x = places[m, j] // width, places[m, j] % width
                        values[m, k, j] = picture[c, y + a, x + b]
                        total += values[m, k, j]
                    means[m, k] = total / count
                    for j in range(count):
                        values[m, k, j] -= means[m, k]
                    k += 1
    return values, means


@compiled
def add_windows(
    windows: Picture,
    means: Picture,
    weights: Picture,
    places: Places,
    total: Picture,
    weight: Picture,
    number: Picture,
) -> None:
    """Add windows (M, D, n) and their means to a picture, and their weights and number.

    Each group has a weight for each channel, (M, C).
    """
    channels, _, width = total.shape
    groups, values, count = windows.shape
    size = int(np.sqrt(values // channels))
    for m in range(groups):
        for j in range(count):
            y, x = places[m, j] // width, places[m, j] % width
            k = 0
            for c in range(channels):
                w = weights[m, c]
                for a in range(size):
                    for b in range(size):
                        total[c, y + a, x + b] += w * (windows[m, k, j] + means[m, k])
                        weight[c, y + a, x + b] += w
                        number[c, y + a, x + b] += 1
                        k += 1
