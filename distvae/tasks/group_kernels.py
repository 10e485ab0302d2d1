"""Loops over the windows of a picture, compiled for the processor.

A picture is (C, height, width). The place of a window is the number of its upper left pixel.
"""

import numpy as np
from numpy.typing import NDArray

from distvae.models.compiling import compiled

Picture = NDArray[np.float32]
Places = NDArray[np.int32]


@compiled
def nearest_windows(
    guide: Picture, rows: Places, columns: Places, size: int, count: int, radius: int
) -> Places:
    """Return each reference and the windows nearest to it, (M, count).

    References have their upper left pixels at the crossings of some rows and columns.
    """
    channels, height, width = guide.shape
    found = np.empty((len(rows) * len(columns), count), np.int32)
    distances = np.empty((2 * radius + 1) ** 2, np.float32)
    m = 0
    for y in rows:
        for x in columns:
            top, bottom = max(0, y - radius), min(height - size, y + radius) + 1
            left, right = max(0, x - radius), min(width - size, x + radius) + 1
            across = right - left
            near = distances[: (bottom - top) * across]
            near[:] = 0
            for v in range(top, bottom):
                row = near[(v - top) * across : (v - top + 1) * across]
                for c in range(channels):
                    for a in range(size):
                        for b in range(size):
                            value = guide[c, y + a, x + b]
                            line = guide[c, v + a, left + b : right + b]
                            for u in range(across):
                                difference = line[u] - value
                                row[u] += difference * difference
            own = (y - top) * across + x - left
            near[own] = -1
            found[m, 0] = y * width + x
            bound, k = np.partition(near, count - 1)[count - 1], 1
            for is_below in (True, False):
                for q in range(near.size):
                    is_in = near[q] < bound if is_below else near[q] == bound
                    if k < count and is_in and q != own:
                        found[m, k] = (q // across + top) * width + q % across + left
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
    first: int,
    total: Picture,
    weight: Picture,
) -> None:
    """Add windows (M, D, n) and their means to a strip of a picture that begins in some row.

    Each group has a weight for each channel, (M, C).
    """
    channels, _, width = total.shape
    groups, values, count = windows.shape
    size = int(np.sqrt(values // channels))
    for m in range(groups):
        for j in range(count):
            y, x = places[m, j] // width - first, places[m, j] % width
            k = 0
            for c in range(channels):
                w = weights[m, c]
                for a in range(size):
                    for b in range(size):
                        total[c, y + a, x + b] += w * (windows[m, k, j] + means[m, k])
                        weight[c, y + a, x + b] += w
                        k += 1
