"""Restore a picture from groups of its own similar windows.

Each window of a picture has a latent component, which is the reference window that it resembles,
and continuous latents. The posterior over components is truncated: the population of a reference
holds the most similar windows near it, which a search finds. Given its population, the posterior is
Gaussian and has a closed form. With D values of a window and n windows, a population is the matrix

    Y = mu 1' + U Z V' + noise,    U and V orthonormal

whose noise is white with variance 1 once windows are whitened. The passes differ in the prior of Z:

    low rank   Z = diag(s), flat prior of s: the singular values of Y, shrunk by the rule for a
               low-rank matrix in noise (Gavish and Donoho, 2017)
    moments    Z_ij ~ N(0, v_ij), v_ij = l_i l_j / sum l, with l the squared singular values of the
               same windows of the picture so far: E[Z | Y] = v / (v + 1) U'Y V
    sparse     Z = diag(s), p(s) ~ s^-k, so few are large: s = (t + sqrt(t^2 - 4 c)) / 2, or 0
               (Gu et al., CVPR 2014)

A restored pixel is the mean of the posterior means of the windows over it, weighted by their
precisions. A sparse pass returns a part of the removed noise to its input. Missing pixels (`fill`)
need more work: each window is the conditional Gaussian given its observed pixels. Its mean is the
mean of its population, and its covariance lies between the covariance of its population and the
mean covariance of the picture.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from distvae.data.noise import NoiseGrowth, PictureNoise, blur
from distvae.files.refusal import Refusal
from distvae.models.kernels import compiled
from distvae.numerics.arrays import Doubles, Floats

Picture = NDArray[np.float32]
"""(C, height, width). The frames of a stack are stacked along its height."""
Places = NDArray[np.int32]
"""The places of windows: the numbers of their upper left pixels."""
SHARES = (1.0, 0.6)
"""The share of the picture in the input of each round, if the noise grows with brightness."""
STRIDE, WIDE_STRIDE = 4, 5
"""Pixels from one reference window to the next, in a picture and in a large picture. The wide
stride takes two thirds of the time and costs 0.03 dB.
"""
LARGE = 2**20
"""Pixels of a large picture."""
CHUNK = 512
"""Approximate number of references in a thread's task. Threads do not change the result."""
TOGETHER = 2**24
"""Values of the frames that are of a stack that are restored together, approximately."""
BLOCK = 128
"""References of a chunk whose populations are in memory at once."""
SHRINKAGE = 0.85
"""The first pass expects this share of the noise: it leaves noise rather than remove structure."""
SPARSITY = 2.83
"""k of the sparse prior."""
LEAST = 1e-5
"""The smallest squared singular value, relative to the noise."""
NEAR = 12
"""Search radius in pixels if other frames are searched too."""
LOST = 1.35
"""Squared errors relative to the noise in them. The excess is structure removed as noise."""
STEP = 0.05
"""Noise added to measure how much noise passes, relative to the noise of the picture."""
STRONG = 1.35
"""The standard deviation of a picture, relative to its noise, below which windows are larger."""
SMALLEST = 8
"""The smallest side of a picture in pixels."""
COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
"""Brightness and two differences of colours. It is orthonormal, so white noise stays white."""
SOLVED_ONE_IN = 6
"""`fill` restores every SOLVED_ONE_IN-th window of a population. All windows give the moments."""
FLOORS = (30.0, 15.0, 7.5, 3.75, 1.9, 0.9, 0.5, 0.3, 0.2, 0.1)
"""The residual variance of populations in each pass, for values that span 255."""
SHARED = 6.0
"""Weight of the mean covariance of populations, in windows, at a floor of 1. The weight grows with
the root of the floor, because the first populations come from a blurred picture.
"""
APART = 16
"""Pixels between the populations that give the mean covariance."""
SPREAD = 1.2
"""Pixels over which observed pixels are blurred into holes at first. Larger holes start from the
picture filled in at half its size.
"""
Part = TypeVar("Part")
Done = TypeVar("Done")
Report = Callable[[float], None]
"""A function that is called with the completed share of the work."""


class Pass(NamedTuple):
    """One pass over all populations."""

    prior: Literal["low rank", "moments", "sparse"]
    size: int
    """Side of a window in pixels."""
    members: int
    """Number of windows in a population."""
    radius: int
    """Search radius in pixels, in each direction."""
    feedback: float = 0.0
    """The share of the removed noise that the pass adds back to its input."""
    left: float = 1.0
    """The noise in the input, relative to independent noise."""


WEAK_NOISE = (
    Pass("low rank", 6, 48, 20),
    Pass("moments", 7, 64, 24),
    Pass("sparse", 6, 48, 20, 0.3, 0.5),
    Pass("sparse", 5, 40, 20, 0.2, 0.5),
)
STRONG_NOISE = (
    Pass("low rank", 7, 64, 20),
    Pass("moments", 7, 64, 24),
    Pass("sparse", 7, 64, 20, 0.2, 0.6),
)
CORRELATED_NOISE = (
    Pass("low rank", 7, 64, 20),
    Pass("sparse", 7, 64, 20, 0.2, 0.6),
)
"""Without `moments`: the first pass leaves noise here that resembles the data too much."""
HOLES = Pass("moments", 6, 48, 16)
"""The pass over populations in `fill`."""


class Frames(NamedTuple):
    """The layout of the frames of a stack in one picture: stacked along its height."""

    number: int = 1
    across: int = 0
    """Number of frames before and behind the reference frame in which similar windows are searched
    for.
    """


ALONE = Frames()


def silent(done: float) -> None:
    """Report nothing."""


class Noise(NamedTuple):
    """The noise of pictures."""

    shared: PictureNoise
    """The noise of the channels, or of their square roots if the noise grows with brightness."""
    growth: NoiseGrowth | None = None

    @classmethod
    def white(cls, sigma: float, channels: int) -> "Noise":
        """Return white noise of this standard deviation."""
        return cls(PictureNoise.white(np.full(channels, sigma)))

    def __str__(self) -> str:
        """Describe the noise in a few words."""
        if self.growth is None:
            return str(self.shared)
        kind = self.shared.doubt if self.shared.is_white else f", {self.shared.kind}"
        return f"{self.growth}{kind}"


class Restored(NamedTuple):
    """A picture without its noise, or with its missing pixels filled in."""

    values: Doubles
    """(height, width, channels)"""
    noise: Noise | None = None
    """The removed noise; None if pixels were filled in."""
    deviation: Doubles | None = None
    """The standard deviation of the remaining error of each value, if requested."""


def refuse_small(height: int, width: int) -> None:
    """Refuse a picture that is smaller than a window."""
    if min(height, width) < SMALLEST:
        raise Refusal(
            f"a picture of {height} x {width} pixels; at least {SMALLEST} x {SMALLEST} expected, or"
            " the model tvae"
        )


def noise_of(pictures: Callable[[], Iterable[Floats]], counts: bool = False) -> Noise:
    """Return the noise that pictures (height, width, channels) share.

    `counts` says that values are counts of events, or proportional to them.
    """
    refuse_small(*next(iter(pictures())).shape[:2])
    growth = NoiseGrowth.counts(pictures()) if counts else NoiseGrowth.estimate(pictures())
    if growth is None:
        return Noise(PictureNoise.estimate(map(_planes, pictures())))
    unit = Noise.white(1.0, next(iter(pictures())).shape[-1]).shared
    found = unit
    if not counts:
        roots = (_planes(growth.stabilised(picture)) for picture in pictures())
        found = PictureNoise.estimate(roots)
    if found.is_white:
        return Noise(replace(unit, is_doubtful=found.is_doubtful), growth)
    # growth is measured on the finest detail, which contains a part of shared noise
    strength = float(found.levels[0])
    return Noise(found.scaled(1 / strength), growth.scaled(strength**2))


def restore(
    picture: Floats,
    noise: float | Noise | None = None,
    threads: int = 1,
    report: Report = silent,
    frames: Frames = ALONE,
    deviation: bool = False,
) -> Restored:
    """Return a picture (height, width, channels) without noise, or with its NaN filled in.

    A number is the standard deviation of white noise. By default the noise of a picture is
    estimated, and a picture with missing pixels is assumed to have no noise. If it has noise, its
    missing pixels are filled in first.
    """
    refuse_small(picture.shape[0] // frames.number, picture.shape[1])
    if np.isnan(picture).any():
        part = report if noise is None else part_of(report, 0, 0.5)
        filled = np.moveaxis(fill(np.moveaxis(picture, -1, 0), threads, part, frames), 0, -1)
        if noise is None:
            return Restored(filled)
        picture, report = filled, part_of(report, 0.5, 0.5)
    if noise is None:
        noise = noise_of(lambda: [picture])
    elif not isinstance(noise, Noise):
        noise = Noise.white(noise, picture.shape[-1])
    if noise.growth is not None:
        return _restore_growing(picture, noise, noise.growth, threads, report, frames, deviation)
    work = (noise.shared, threads, report, frames)
    if deviation:
        planes, errors = _with_deviation(_planes(picture), *work)
        return Restored(_picture(planes), noise, _summed(errors))
    return Restored(_picture(_passes(_planes(picture), *work)[0]), noise)


def _restore_growing(
    picture: Floats,
    noise: Noise,
    growth: NoiseGrowth,
    threads: int,
    report: Report,
    frames: Frames,
    deviation: bool,
) -> Restored:
    """Return a picture without noise whose variance grows with brightness.

    The mean of picture and result has less noise, and its square root has noise that is more even
    (Azzari and Foi, 2016).
    """
    restored, errors = np.asarray(picture, np.float64), None
    for number, share in enumerate(SHARES):
        planes = _planes(growth.stabilised(share * picture + (1 - share) * restored, share))
        part = part_of(report, number / len(SHARES), 1 / len(SHARES))
        if deviation and number == 0:
            planes, apart = _with_deviation(planes, noise.shared, threads, part, frames)
            mean, error = _picture(planes), _summed(apart)
            errors = (growth.back(mean + error) - growth.back(mean - error)) / 2
        else:
            planes, _ = _passes(planes, noise.shared, threads, part, frames)
        restored = growth.back(_picture(planes), share)
    return Restored(restored, noise, errors)


def restore_stack(
    read: Callable[[int], Floats],
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
    core = max(4 * across, TOGETHER // read(numbers[0]).size - 2 * across) if across else 1
    for start in range(0, count, core):
        first, last = max(0, start - across), min(count, start + core + across)
        pictures = [read(number) for number in numbers[first:last]]
        whole = np.concatenate(pictures) if len(pictures) > 1 else pictures[0]
        run = Restored(np.asarray(whole, np.float64))
        if noise is not None or np.isnan(run.values).any():
            part = part_of(report, start / count, min(core, count - start) / count)
            frames = Frames(last - first, across)
            run = restore(run.values, noise, threads, part, frames, deviation)
        errors: Sequence[Doubles | None] = [None] * (last - first)
        if run.deviation is not None:
            errors = np.split(run.deviation, last - first)
        for place, values in enumerate(np.split(run.values, last - first)):
            if start <= first + place < start + core:
                yield Restored(values, run.noise, errors[place])


def _planes(picture: Floats) -> Doubles:
    """Return the channels of a picture (height, width, C), decorrelated if they are colours."""
    planes: Doubles = np.einsum("ij,hwj->ihw", _colours(picture.shape[-1]), picture)
    return planes


def _picture(planes: Floats) -> Doubles:
    """Undo `_planes`."""
    picture: Doubles = np.einsum("ij,ihw->hwj", _colours(len(planes)), planes)
    return picture


def _summed(deviations: Floats) -> Doubles:
    """Return the standard deviations of a picture, given the deviations of its decorrelated
    channels.
    """
    squares = np.square(_colours(len(deviations)))
    summed: Doubles = np.sqrt(np.einsum("ij,ihw->hwj", squares, np.square(deviations)))
    return summed


def _colours(channels: int) -> Doubles:
    return COLOURS if channels == len(COLOURS) else np.eye(channels)


class Found(NamedTuple):
    """The posterior windows of the populations of some references."""

    windows: Picture
    """(M, D, n), without the means."""
    means: Picture
    """(M, D)"""
    precisions: Picture
    """(M, C)"""
    places: Places
    """(M, n)"""


def _with_deviation(
    planes: Floats, noise: PictureNoise, threads: int, report: Report, frames: Frames
) -> tuple[Doubles, Doubles]:
    """Return the channels of a picture without their noise, and the standard deviation of errors.

    The errors of a posterior mean have the variance of the noise that passes into it. A second
    restoration, of a slightly noisier picture, measures this variance. Some errors are lost
    structure (`LOST`). The variances of populations tell where the errors are. Stein's estimate
    would also need the difference between the true noise and the removed noise, which is lost in
    the error of the noise level.
    """
    restored, shares = _passes(planes, noise, threads, part_of(report, 0, 0.5), frames)
    probe = STEP * noise.drawn(planes.shape)
    again, _ = _passes(planes + probe, noise, threads, part_of(report, 0.5, 0.5), frames)
    passed = ((again - restored) * probe).mean((1, 2)) / STEP**2
    errors = (LOST if noise.is_white else 1.0) * np.maximum(passed, 0.0)
    return restored, np.sqrt(errors[:, None, None] * shares)


def _passes(
    planes: Floats, noise: PictureNoise, threads: int, report: Report, frames: Frames
) -> tuple[Doubles, Picture]:
    """Return channels (C, height, width) without their noise, and the posterior variance of pixels
    relative to its mean. The result is bit-identical for any number of threads.
    """
    unit, middle = float(noise.levels.max()), planes.mean((1, 2), keepdims=True)
    if unit == 0:
        return np.asarray(planes, np.float64), np.ones(planes.shape, np.float32)
    noise = noise.scaled(1 / unit)
    scaled = [
        ((plane - mean) / unit).astype(np.float32)
        for plane, mean in zip(planes, middle, strict=True)
    ]
    observed = np.stack(scaled)
    del planes, scaled  # of large pictures, memory for the passes
    plan: tuple[Pass, ...] = CORRELATED_NOISE
    if noise.is_white:
        plan = STRONG_NOISE if float(observed[0].var()) < 1 + STRONG**2 else WEAK_NOISE
    found = observed
    for number, each in enumerate(plan):
        data, levels = observed, np.ones(len(observed))
        if each.prior == "sparse":
            data = found + np.float32(each.feedback) * (observed - found)
            removed = [
                np.square(a - b).mean(dtype=np.float64) for a, b in zip(observed, data, strict=True)
            ]
            levels = each.left * np.sqrt(np.abs(1 - removed / np.maximum(noise.levels**2, LEAST)))
        posterior = partial(_denoised, each, data, found, *_whiteners(noise, each.size, levels))
        part = part_of(report, number / len(plan), 1 / len(plan))
        found, variances = _look(each, found, posterior, threads, part, frames)
        if each.prior != "sparse":  # a sparse pass gives all populations one precision
            shares = np.sqrt(variances)  # variances themselves differ more than errors do
    return found * unit + middle, shares / shares.mean((1, 2), keepdims=True)


def _whiteners(noise: PictureNoise, size: int, levels: Doubles) -> tuple[Tensor, Tensor]:
    """Return the matrices that whiten the windows of each channel, at levels relative to the noise,
    and their inverses.

    White noise has one number for each channel, other noise a matrix.
    """
    if noise.is_white:
        back = torch.from_numpy(np.maximum(noise.levels * levels, LEAST).astype(np.float32))
        return 1 / back[:, None, None], back[:, None, None]
    factor = torch.from_numpy(levels.astype(np.float32))[:, None, None]
    white, back = noise.whiteners(size)
    return white / factor, back * factor


def _denoised(
    each: Pass, data: Picture, found: Picture, white: Tensor, back: Tensor, places: Places
) -> Found:
    """Return the posterior means of populations, computed channel by channel."""
    windows, means = cut_windows(data, places, each.size)
    pilots = cut_windows(found, places, each.size)[0] if each.prior == "moments" else windows
    parts, precisions = [], []
    channels = (torch.from_numpy(each).chunk(len(data), 1) for each in (windows, pilots))
    for c, (y, x) in enumerate(zip(*channels, strict=True)):
        y, x = _times(white[c], y), _times(white[c], x)
        z, precision = PRIORS[each.prior](y, x)
        parts.append(_times(back[c], z))
        precisions.append(precision)
    restored, weights = torch.cat(parts, 1), torch.stack(precisions, 1)
    return Found(restored.numpy(), means, weights.numpy(), places)


def _times(matrix: Tensor, windows: Tensor) -> Tensor:
    return matrix * windows if matrix.numel() == 1 else matrix @ windows


def _low_rank(y: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
    """Return white populations (M, D, n) with shrunk singular values, and their precisions."""
    size, count = y.shape[1:]
    squares, vectors = _eigen(y)
    above = squares - SHRINKAGE * (size + count - 1)
    inside = above.square() - 4 * SHRINKAGE**2 * size * (count - 1)
    factors = inside.clamp_min(0).sqrt() / squares * (above > 0)
    kept = factors.square().sum(1) / min(size, count)
    return _scaled(y, vectors, factors), 1 / (kept + 1 / count)


def _sparse(y: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
    """Return the posterior modes under the sparse prior. All populations have one precision."""
    squares, vectors = _eigen(y)
    inside, values = squares - 8 * SPARSITY * y.shape[2] ** 0.5, squares.sqrt()
    factors = (values + inside.clamp_min(0).sqrt()) / (2 * values) * (inside > 0)
    return _scaled(y, vectors, factors), torch.full((len(y),), 1 / (1 + 1 / y.shape[2]))


def _moments(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the posterior means with the moments of the same windows of an earlier picture."""
    squares, vectors = _eigen(x)
    inverse = (squares.rsqrt() * (squares > 1e-3))[:, None]
    if x.shape[2] <= x.shape[1]:
        left, right = (x @ vectors) * inverse, vectors
    else:
        left, right = vectors, (x.mT @ vectors) * inverse
    variances = squares[:, :, None] * squares[:, None, :] / squares.sum(1)[:, None, None]
    factors = variances / (variances + 1)
    kept = factors.square().sum((1, 2)) / y.shape[1]
    return left @ (left.mT @ y @ right * factors) @ right.mT, 1 / (kept + 1 / y.shape[2])


PRIORS = {"low rank": _low_rank, "moments": _moments, "sparse": _sparse}


def _eigen(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared singular values, and the singular vectors of the smaller side."""
    values, vectors = torch.linalg.eigh(y.mT @ y if y.shape[2] <= y.shape[1] else y @ y.mT)
    return values.clamp_min(LEAST), vectors


def _scaled(y: Tensor, vectors: Tensor, factors: Tensor) -> Tensor:
    """Return populations with each singular value multiplied by a factor."""
    if y.shape[2] <= y.shape[1]:
        return ((y @ vectors) * factors[:, None]) @ vectors.mT
    return (vectors * factors[:, None]) @ (vectors.mT @ y)


def _look(
    each: Pass,
    guide: Picture,
    posterior: Callable[[Places], Found],
    threads: int,
    report: Report,
    frames: Frames,
) -> tuple[Picture, Picture]:
    """Return the picture that the populations of all references make together, and its variance.

    The variance of a pixel is the mean of the variances of the windows over it.
    """
    channels, whole, width = guide.shape
    height = whole // frames.number
    stride = STRIDE if height * width < LARGE else WIDE_STRIDE
    rows, columns = (_references(side - each.size, stride) for side in (height, width))
    radius = min(each.radius, NEAR) if frames.across else each.radius
    count = _count(each, radius, height, width)
    step = max(1, CHUNK // len(columns))

    def strip(place: tuple[int, Places]) -> tuple[slice, slice, Picture]:
        frame, part = place
        first, last = max(0, frame - frames.across), min(frames.number, frame + frames.across + 1)
        near = (each.size, count, radius, height, first, last)
        places = nearest_windows(guide, frame * height + part, columns, *near)
        top, bottom = max(0, part[0] - radius), min(height, part[-1] + radius + each.size)
        sums = np.zeros((3, channels, (last - first) * (bottom - top), width), np.float32)
        for start in range(0, len(places), BLOCK):
            found = posterior(places[start : start + BLOCK])
            others, within = np.divmod(found.places, height * width)
            local = ((others - first) * (bottom - top) - top) * width + within
            add_windows(found.windows, found.means, found.precisions, local, *sums)
        sums = sums.reshape(3, channels, last - first, bottom - top, width)
        return slice(first, last), slice(top, bottom), sums

    parts = [
        (frame, rows[start : start + step])
        for frame in range(frames.number)
        for start in range(0, len(rows), step)
    ]
    total = np.zeros((3, channels, frames.number, height, width), np.float32)
    for searched, band, sums in in_order(strip, parts, threads, report):
        total[:, :, searched, band] += sums
    total[::2] /= total[1]
    merged, _, variances = total.reshape(3, *guide.shape)
    return merged, variances


def _count(each: Pass, radius: int, height: int, width: int) -> int:
    """Return the number of windows in a population. Small pictures have fewer windows."""
    down, across = (min(radius, side - each.size) + 1 for side in (height, width))
    return min(each.members, down * across)


def in_order(
    work: Callable[[Part], Done], parts: Sequence[Part], threads: int, report: Report
) -> Iterator[Done]:
    """Yield the results of `work` on each part, computed by threads, in the order of the parts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # each thread has its own parts; the BLAS count holds for all threads
    pool = ThreadPoolExecutor(threads, "groups", torch.set_num_threads, (1,))
    try:
        for number, done in enumerate(pool.map(work, parts), 1):
            yield done
            report(number / len(parts))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _references(last: int, stride: int) -> Places:
    """Return where reference windows begin along a side, including the first and last positions."""
    return np.append(np.arange(0, last, stride), last).astype(np.int32)


def part_of(report: Report, start: float, share: float) -> Report:
    """Return a report for the part of the work that begins at `start` and takes `share` of it."""
    return lambda done: report(start + share * done)


def fill(
    planes: Floats, threads: int = 1, report: Report = silent, frames: Frames = ALONE
) -> Doubles:
    """Return the channels of a picture (C, height, width) with its missing pixels, NaN, filled in.

    Observed pixels stay as they are.
    """
    seen = ~np.isnan(planes)
    apart = (len(planes), frames.number, -1, planes.shape[2])
    if not seen.reshape(apart).any((2, 3)).all():
        raise Refusal("a channel without an observed pixel; some in each channel expected")
    low, high = np.nanmin(planes), np.nanmax(planes)
    scale = 255 / (high - low) if high > low else 1.0
    mask = seen.astype(np.float32)
    observed = np.where(seen, (planes - low) * scale, 0).astype(np.float32)
    pair = (observed.reshape(apart), mask.reshape(apart))
    found = _spread(*pair, threads, frames.across).reshape(observed.shape)
    for number, floor in enumerate(FLOORS):
        found = np.where(seen, observed, found)
        shared = _mean_covariance(found, threads, frames)
        posterior = partial(_filled, found, observed, mask, shared, floor)
        part = part_of(report, number / len(FLOORS), 1 / len(FLOORS))
        found, _ = _look(HOLES, found, posterior, threads, part, frames)
    return np.where(seen, planes, found.astype(np.float64) / scale + low)


def _spread(observed: Picture, mask: Picture, threads: int, across: int) -> Picture:
    """Return frames (C, F, height, width) with the blurred observed pixels in their holes."""
    weights, values = (
        np.stack([[blur(frame, SPREAD) for frame in channel] for channel in each])
        for each in (mask, observed)
    )
    reached = weights > 1e-2
    smooth = values / np.maximum(weights, 1e-2)
    if not reached.all():
        smooth = np.where(reached, smooth, _filled_at_half_size(observed, mask, threads, across))
    differences = np.where(mask > 0, observed - smooth, 0).sum(0) / np.maximum(mask.sum(0), 1)
    return np.where(mask > 0, observed, smooth + differences).astype(np.float32)


def _filled_at_half_size(observed: Picture, mask: Picture, threads: int, across: int) -> Doubles:
    """Return frames filled in at half their size. Small frames are filled with their means."""
    _, number, height, width = observed.shape
    pair = [torch.from_numpy(each).double() for each in (observed, mask)]
    if min(height, width) < 2 * SMALLEST:
        sums, weights = (each.mean((2, 3), keepdim=True) for each in pair)
        return (sums / weights).numpy()
    sums, weights = (avg_pool2d(each, 2, ceil_mode=True) for each in pair)
    halves = (sums / weights).numpy()  # NaN without an observed pixel
    planes = halves.reshape(len(halves), -1, halves.shape[3])
    filled = fill(planes, threads, silent, Frames(number, across)).reshape(halves.shape)
    whole = interpolate(torch.from_numpy(filled), scale_factor=2, mode="bilinear")
    return whole[:, :, :height, :width].numpy()


def _mean_covariance(found: Picture, threads: int, frames: Frames) -> Tensor:
    """Return the mean covariance of populations all over a picture, scaled to mean variance 1."""
    height, width = found.shape[1] // frames.number, found.shape[2]
    rows, columns = (_references(side - HOLES.size, APART) for side in (height, width))
    near = (HOLES.size, _count(HOLES, HOLES.radius, height, width), HOLES.radius, height)

    def row_of(place: tuple[int, Places]) -> Tensor:
        frame, row = place
        places = nearest_windows(found, frame * height + row, columns, *near, frame, frame + 1)
        return _covariances(cut_windows(found, places, HOLES.size)[0]).sum(0)

    parts = [(frame, row) for frame in range(frames.number) for row in np.split(rows, len(rows))]
    total = torch.stack(list(in_order(row_of, parts, threads, silent))).sum(0)
    return total / total.diagonal().mean().clamp_min(LEAST)


def _covariances(windows: Picture) -> Tensor:
    """Return the covariances of populations without their means, (M, D, D)."""
    b = torch.from_numpy(windows)
    covariances: Tensor = b @ b.mT / windows.shape[2]
    return covariances


def _filled(
    found: Picture,
    observed: Picture,
    mask: Picture,
    shared: Tensor,
    floor: float,
    places: Places,
) -> Found:
    """Return windows given their observed pixels, for some windows of each population.

    The covariance of a population is shrunk towards the shared one, times its mean variance.
    """
    windows, means = cut_windows(found, places, HOLES.size)
    solved = np.ascontiguousarray(places[:, ::SOLVED_ONE_IN])
    cut = (cut_windows(each, solved, HOLES.size) for each in (observed, mask))
    y, o = (part + middle[:, :, None] for part, middle in cut)
    own, count, few = _covariances(windows), windows.shape[2], SHARED * floor**0.5
    variances = own.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    covariance = (count * own + few * variances * shared) / (count + few)
    seen = torch.from_numpy(o).round().mT
    differences = seen * torch.from_numpy(y - means[:, :, None]).mT
    joint = covariance[:, None] * seen[..., None] * seen[..., None, :]
    joint.diagonal(dim1=-2, dim2=-1).add_(floor)
    a = torch.cholesky_solve(differences[..., None], torch.linalg.cholesky(joint))[..., 0]
    ones = np.ones((len(places), len(found)), np.float32)
    return Found((a @ covariance).mT.contiguous().numpy(), means, ones, solved)


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
