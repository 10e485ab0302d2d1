"""Windows drawn at random from pictures and whitened, as in studies of receptive fields
(Bell and Sejnowski 1997).

The grey levels of each picture are brought to one standard deviation first (data.contrast), so that
dim pictures count as much as bright ones. The mean of a window is subtracted (unless
data.level=keep), then the mean of each value over the training windows. Whitening (ZCA) projects
onto the first principal components of these windows, which explain a share of the variance
(data.kept), divides each by its standard deviation, and rotates back. Along the components that are
left out, every window is zero.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from distvae.config import CropData
from distvae.data import folders
from distvae.data.dataset import Array, Dataset
from distvae.data.family import DataFamily, register
from distvae.data.folders import hinting_at_broken
from distvae.data.pictures import head
from distvae.data.signals import read_picture
from distvae.files.paths import PICTURES, require_memory, resolve_path
from distvae.files.refusal import Refusal
from distvae.numerics.arrays import Doubles

FORMAT = 1
"""Version of the preparation. Another version has another digest."""


@register(CropData)
class CropFamily(DataFamily[CropData]):
    """Whitened windows drawn at random from pictures."""

    def open(self, quiet: bool = False) -> Dataset:
        """Return whitened windows by split, a function of the pictures' content and the settings
        alone.
        """
        config = self.config
        root, paths = find_pictures(config.path)
        rows, dims = sum(config.sizes), config.dims
        require_memory(
            f"data.sizes: {list(config.sizes)}",
            2 * 8 * dims * (rows + dims),  # two copies in float64 while windows are whitened
            f"{rows:,} windows of {dims:,} values",
            "a smaller number",
        )
        paths, note = _skip_broken(root, paths, config, quiet)
        train, val, _ = config.sizes
        white = whiten(draw_windows(paths, config), train, config.kept)
        ends = [train, train + val]
        splits = dict(zip(folders.SPLITS, np.split(white, ends), strict=True))
        name = f"{root.stem}: {note}" if note else root.stem
        return Dataset(name, "window", _digest(config, paths), splits, root, shape=config.shape)


def _skip_broken(
    root: Path, paths: list[Path], config: CropData, quiet: bool
) -> tuple[list[Path], str]:
    """Return the pictures without broken ones, if data.skip_broken asks for it, and a note on the
    pictures that are left out.
    """
    if root.is_file():
        return paths, ""
    names = dict.fromkeys((path.relative_to(root).as_posix() for path in paths), "")
    skip = config.skip_broken
    broken, note = folders.leave_out_broken(root, names, read_picture, skip, quiet)
    return [root / name for name in names if name not in broken], note


def _digest(config: CropData, paths: list[Path]) -> str:
    """Return the digest of the windows. Settings that are newer than the first digests count only
    where they differ from the former behaviour.
    """
    settings = asdict(config) | {"path": ""}
    del settings["skip_broken"]
    for name, former in (("contrast", "common"), ("level", "remove")):
        if settings[name] == former:
            del settings[name]
    return folders.key_of([FORMAT, settings, folders.digests(paths)])


def find_pictures(path: str) -> tuple[Path, list[Path]]:
    """Return the place that a configuration names, and the pictures in it, in order."""
    root = resolve_path(path, "data.path")
    if not path or not root.exists():
        problem = f"{path} is not there" if path else "empty"
        raise Refusal(f"data.path: {problem}; a picture, or a folder of pictures, expected")
    if root.is_file():
        return root, [root]
    paths = [root / name for name in folders.list_files(root, PICTURES)]
    if not paths:
        raise Refusal(f"{root}: holds no pictures; {', '.join(PICTURES)} expected")
    return root, paths


def draw_windows(paths: list[Path], config: CropData) -> Doubles:
    """Return (N, D): the windows of all splits, each without its mean unless that is kept.
    Pictures are read one after another.
    """
    height, width = config.window
    hinting = hinting_at_broken(Path(config.path), config.skip_broken)
    spans = [
        (form.height - height + 1, form.width - width + 1)
        for form in folders.map_in_order(hinting(head), paths)
    ]
    for path, span in zip(paths, spans, strict=True):
        if min(span) < 1:
            raise Refusal(
                f"data.window: {height} x {width}, larger than {path}; a smaller window expected"
            )
    ends = np.cumsum([down * across for down, across in spans])
    wanted = sum(config.sizes)
    if wanted > ends[-1]:
        raise Refusal(
            f"data.sizes: {wanted:,} windows, and the pictures have {ends[-1]:,}; no more expected"
        )
    places = np.random.default_rng(config.seed).choice(ends[-1], wanted, replace=False)
    rows, owner = np.empty((wanted, config.dims)), np.searchsorted(ends, places, "right")
    chosen = np.unique(owner)
    for number, picture in zip(chosen, _pictures([paths[n] for n in chosen], config), strict=True):
        mine = owner == number
        down, across = np.divmod(
            places[mine] - (ends[number] - np.prod(spans[number])), spans[number][1]
        )
        windows = np.lib.stride_tricks.sliding_window_view(picture, config.window)
        rows[mine] = windows[down, across].reshape(-1, config.dims)
    if config.level == "remove":
        rows -= rows.mean(1, keepdims=True)
    return rows


def _pictures(paths: Iterable[Path], config: CropData) -> Iterator[Doubles]:
    """Yield the grey levels of each picture, brought to the contrast of the first picture with
    data.contrast=own.
    """
    first = None
    hinting = hinting_at_broken(Path(config.path), config.skip_broken)
    for path in paths:
        grey = hinting(_grey)(path, config.clamped)
        if config.contrast == "own":
            own = _contrast(path, grey)
            first = first or own
            grey *= first / own  # exactly 1 for the first picture
        yield grey


def _contrast(path: Path, grey: Doubles) -> float:
    """Return the standard deviation of a picture's grey levels; refuse a blank picture."""
    if np.ptp(grey) == 0:
        blank = "one grey level alone, once its brightest pixels are clamped (data.clamped)"
        raise Refusal(
            f"{path}: {blank}; a picture with something in it expected, or data.contrast=common"
        )
    return float(grey.std())


def _grey(path: Path, clamped: float) -> Doubles:
    values: Doubles = read_picture(path).values.mean(-1)
    if np.isnan(values).any():
        raise Refusal(f"{path}: holds missing values (NaN); a picture without any expected")
    return np.minimum(values, np.quantile(values, 1 - clamped, method="lower"))


def whiten(rows: Doubles, train: int, kept: float) -> Array:
    """Return whitened rows. On the directions that are kept, the covariance of the first `train`
    rows is the identity.
    """
    from sklearn.decomposition import PCA

    if np.ptp(rows[:train], axis=0).max() == 0:
        raise Refusal(
            "data.path: all windows are alike, so that nothing can be whitened; other pictures"
            " expected"
        )
    directions = PCA(kept, whiten=True, svd_solver="covariance_eigh").fit(rows[:train])
    white: Doubles = directions.transform(rows) @ directions.components_
    return white.astype(np.float32)
