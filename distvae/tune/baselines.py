"""Principal components beside the trials of a sweep, scored on the same validation recordings."""

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
NAME = re.compile(r"pca-([1-9]\d*)")


def missing_baselines(space: Space, sweep: Path) -> Iterator[str]:
    """Yield the names of the baselines that are defined for a space and not scored yet.

    The numbers of components are the numbers of latents in the space. Baselines are defined for
    recordings that are the same in all trials.
    """
    data = space.base.data
    same_data = not any(key.startswith("data.") for key in space.varied)
    if space.rows or not same_data or recordings_of(data) is None:
        return
    key = "model.latent"
    varied = [value for axis in space.axes if axis.key == key for value in axis.span.corners]
    sizes = varied or [flatten(space.base)[key]]
    fitting = {size for size in sizes if isinstance(size, int) and size <= data.dims}
    for size in sorted(fitting)[:MAX_SIZES]:
        if not _file(sweep, f"pca-{size}").exists():
            yield f"pca-{size}"


def add_baseline(name: str, space: Space, sweep: Path) -> None:
    """Score a baseline as the trials are scored, and write its figures."""
    from distvae.tasks.baselines import score_baseline

    figures = score_baseline(name, space.base, space.split)
    make_folder(sweep / FOLDER)
    with atomic_file(_file(sweep, name)) as path:
        path.write_text(json.dumps(finite(figures), indent=1) + "\n")


def read_baselines(sweep: Path) -> list[Result]:
    """Return the baselines in the folder of a sweep as results, the smallest first."""
    names = [NAME.fullmatch(path.stem) for path in (sweep / FOLDER).glob("*.json")]
    results = []
    for size in sorted(int(name[1]) for name in names if name):
        figures = read_figures(_file(sweep, f"pca-{size}"))
        known = {name: value for name, value in figures.items() if value is not None}
        values: dict[str, Plain] = {"model.kind": "pca", "model.latent": size}
        results.append(Result(0, values, BASELINE, figures=known))
    return results


def _file(sweep: Path, name: str) -> Path:
    return sweep / FOLDER / f"{name}.json"
