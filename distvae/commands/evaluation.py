"""Judging what was trained: on its own data or on other data, by its codes, against enumeration."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distvae.config import Config, from_dict, to_dict
from distvae.config.recipes import override, parse_assignments, refuse_place
from distvae.files.refusal import Refusal
from distvae.train.progress import Style

if TYPE_CHECKING:
    from distvae.tasks.judgement import Judgement


def judged(
    run: Path, split: str, target: Path, force: bool, quiet: bool, config: Config | None = None
) -> "Judgement":
    """The judgement of a run, written into a folder."""
    from distvae.tasks.evaluate import evaluate
    from distvae.train.run import Run

    opened = Run.open(run)
    opened.config = config or opened.config
    return evaluate(opened, target, split, force, progress=not quiet)


def report(judgement: "Judgement", style: Style) -> None:
    """Print the figures, and what was refused."""
    tell(judgement.summary, style)
    if style != "line":
        return
    for refused in judgement.refused:
        print(f"{refused.file}: no {refused.metric}: {refused.reason}")
    for note in judgement.notes:
        print(note)


def tell(summary: dict[str, float], style: Style) -> None:
    """Print figures."""
    if style == "json":
        print(json.dumps({"summary": summary}))
    if style != "line":
        return
    for name, value in summary.items():
        if not name.endswith(("_std", "_refused")):
            spread = summary.get(f"{name}_std", math.nan)
            print(
                f"{name:20}{value:10.3f}"
                + (f"   +- {spread:.3f} over speakers" if spread > 0 else "")
            )


def evaluate(
    run: Path,
    assignments: list[str],
    data: str | None,
    split: str,
    out: Path | None,
    force: bool,
    quiet: bool,
) -> None:
    """Judge a run on its own data or on other data."""
    from distvae.train.run import read_config, read_info

    given = parse_assignments(assignments)
    for key in given:
        if not key.startswith(("eval.", "data.")):
            raise Refusal(f"{key}: the run is trained; only eval. and data. keys can be set here")
    info = read_info(run)
    own = read_config(run, info)
    config = from_dict(override(to_dict(own), given))
    refuse_place(config, given.get("data.path"))
    config = config if data is None else elsewhere(config, data)
    other = "" if config.data == own.data else stranger(own, config, info)
    folder = out or run / "evaluation" / (f"{split}-of-{other}" if other else split)
    judgement = judged(run, split, folder, force, quiet, config)
    report(judgement, "quiet" if quiet else "line")


def elsewhere(config: Config, path: str) -> Config:
    """The same configuration for other data, which needs no split if it comes without one."""
    refuse_place(config, path)
    from distvae.data import family_of

    return config.with_("data", **family_of(config.data).settings_for(path))


def stranger(own: Config, config: Config, info: Mapping[str, Any]) -> str:
    """The name of data that a run was not trained on, '' of its own; of another width than its own
    it is refused.
    """
    from distvae.data import family_of

    known, width = family_of(config.data).is_same_data(own.data, info["data_digest"])
    name = Path(config.data.path.partition("?")[0]).name or config.data.kind
    if width != info["dims"]:
        raise Refusal(
            f"{name}: data points of {width} values; {info['dims']} expected, as the run was"
            " trained on"
        )
    return "" if known else re.sub(r"[^\w.-]+", "-", name)


def encode(run: Path, data: str, out: Path, split: str, force: bool) -> None:
    """Write codes."""
    from distvae.tasks import codes
    from distvae.train.run import Run

    opened = Run.open(run)
    count = codes.encode(opened, elsewhere(opened.config, data).data, out, split, force)
    print(f"{out}: {count:,} codes of {opened.model.code_size} values")


def check(run: Path, exact: bool, rows: int) -> None:
    """Read every file of a run, and compare its bound with the enumeration of all states."""
    from distvae.tasks.exactness import compare
    from distvae.train.run import Run

    Run.open(run)
    last = Run.left(run)
    print(f"{run}: whole")
    if exact:
        for name, value in compare(last, rows).items():
            print(f"{name:20}{value:12.4f}")
