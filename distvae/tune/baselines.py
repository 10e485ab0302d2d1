"""Baselines beside the trials of a sweep, scored on the same validation recordings."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from distvae.config import flatten
from distvae.data.speech import recordings_of
from distvae.files.paths import atomic_file, make_folder
from distvae.files.untrusted import Plain, finite, read_figures
from distvae.tune.results import BASELINE, Result
from distvae.tune.space import Space

FOLDER = "baselines"
"""The subfolder of a sweep with the figures of each baseline."""
MAX_SIZES = 4
"""The most numbers of components that are scored, the smallest."""
NAME = re.compile(r"[a-z]+(-[1-9]\d*)?(-of-[1-9]\d*)?")


def missing_baselines(space: Space, sweep: Path) -> Iterator[str]:
    """Yield the names of the baselines of a space that are not scored yet."""
    for name in _components(space) if space.baselines is None else space.baselines:
        if not _file(sweep, name).exists():
            yield name


def _components(space: Space) -> Iterator[str]:
    """Yield the default baselines: as many components as the models of the space have latents."""
    if space.rows or not shares_recordings(space):
        return
    key = "model.latent"
    varied = [value for axis in space.axes if axis.key == key for value in axis.span.corners]
    sizes = varied or [flatten(space.base)[key]]
    fitting = {size for size in sizes if isinstance(size, int) and size <= space.base.data.dims}
    yield from (f"pca-{size}" for size in sorted(fitting)[:MAX_SIZES])


def shares_recordings(space: Space) -> bool:
    """Return whether the data is recordings that are the same in all trials, as baselines need."""
    same_data = not any(key.startswith("data.") for key in space.varied)
    return same_data and recordings_of(space.base.data) is not None


def add_baseline(name: str, space: Space, sweep: Path) -> None:
    """Score a baseline as the trials are scored, and write its figures."""
    from distvae.tasks.baselines import score_baseline

    figures = score_baseline(name, space.base, space.split)
    make_folder(sweep / FOLDER)
    with atomic_file(_file(sweep, name)) as path:
        path.write_text(json.dumps(finite(figures), indent=1) + "\n")


def read_baselines(sweep: Path) -> list[Result]:
    """Return the baselines in the folder of a sweep as results, the smallest first. The last number
    in a name is the size of its code.
    """
    found = []
    for path in (sweep / FOLDER).glob("*.json"):
        if NAME.fullmatch(path.stem):
            figures = read_figures(path)
            known = {name: value for name, value in figures.items() if value is not None}
            *_, size = 0, *map(int, re.findall(r"\d+", path.stem))
            values: dict[str, Plain] = {"model.kind": path.stem}
            values |= {"model.latent": size} if size else {}
            found.append((size, path.stem, Result(0, values, BASELINE, figures=known)))
    return [result for *_, result in sorted(found, key=lambda item: item[:2])]


def _file(sweep: Path, name: str) -> Path:
    return sweep / FOLDER / f"{name}.json"
