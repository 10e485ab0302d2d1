"""`distvae evaluate`: score a trained run on its own data or on other data."""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distvae.commands.options import Force, Quiet, WhichSplit
from distvae.config import Config, from_dict, to_dict
from distvae.config.recipes import override, parse_assignments, refuse_place
from distvae.files.plain import finite
from distvae.files.refusal import Refusal
from distvae.files.untrusted import printable
from distvae.train.progress import Style

if TYPE_CHECKING:
    from distvae.tasks.evaluation import Evaluation


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of `distvae evaluate`."""

    data: Annotated[
        str | None, typer.Option(help="Evaluate on this data; default: the data of the run.")
    ] = None
    split: WhichSplit = "test"
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help=(
                "Folder for tables and pictures; default RUN/evaluation/SPLIT, or SPLIT-of-DATA for"
                " other data."
            ),
        ),
    ] = None
    force: Force = False
    quiet: Quiet = False


def evaluate_run(run: Path, assignments: list[str], options: EvaluateOptions) -> None:
    """Evaluate a run on its own data or on other data, and print the scores."""
    from distvae.train.run import read_config, read_info

    overrides = parse_assignments(assignments)
    for key in overrides:
        if not key.startswith(("eval.", "data.")):
            raise Refusal(f"{key}: the run is trained; only eval. and data. keys can be set here")
    info = read_info(run)
    trained_on = read_config(run, info)
    names_place, place = "data.path" in overrides, overrides.pop("data.path", None)
    config = from_dict(override(to_dict(trained_on), overrides))
    if options.data is not None:
        assigned = [key.removeprefix("data.") for key in overrides]
        config = with_data(config, options.data, info, assigned)
    elif names_place:
        refuse_place(config, place)
        config = from_dict(override(to_dict(config), {"data.path": place}))
    folder: str = options.split
    if config.data != trained_on.data:
        other = foreign_dataset_name(trained_on, config, info)
        folder = f"{folder}-of-{other}" if other else folder
    target = options.out or run / "evaluation" / folder
    judgement = evaluate_into(run, options.split, target, options.force, options.quiet, config)
    print_judgement(judgement, "quiet" if options.quiet else "line")


def evaluate_into(
    run: Path, split: str, target: Path, force: bool, quiet: bool, config: Config | None = None
) -> "Evaluation":
    """Evaluate a run, write tables and pictures into a folder, and return the scores."""
    from distvae.tasks.evaluate import evaluate
    from distvae.train.run import Run

    trained = Run.open(run)
    trained.config = config or trained.config
    return evaluate(trained, target, split, force, progress=not quiet)


def print_judgement(judgement: "Evaluation", style: Style) -> None:
    """Print the scores of an evaluation, and which files could not be scored."""
    print_scores(judgement.summary, style)
    if style != "line":
        return
    for refused in judgement.refused:
        print(printable(f"{refused.file}: no {refused.metric}: {refused.reason}"))
    for note in judgement.notes:
        print(note)


def print_scores(summary: Mapping[str, float], style: Style) -> None:
    """Print scores, as JSON for programs or one per line."""
    from distvae.numerics.figures import without_spreads
    from distvae.numerics.numbers import shown

    if style == "json":
        print(json.dumps({"summary": finite(summary)}))
    if style != "line":
        return
    for name in without_spreads(summary):
        if name.endswith("_refused"):
            continue
        spread = summary.get(f"{name}_std", math.nan)
        over_speakers = f"   +- {shown(spread)} over speakers" if spread > 0 else ""
        print(f"{name:20}{shown(summary[name]):>10}{over_speakers}")


def with_data(
    config: Config, path: str, info: Mapping[str, object], assigned: Collection[str] = ()
) -> Config:
    """Return a configuration of a run for the data at a path; `assigned` are settings of the data
    that the user names.
    """
    from distvae.data.media import data_at

    refuse_place(config, path)
    return replace(config, data=data_at(path, config.data, str(info["data_digest"]), assigned))


def foreign_dataset_name(trained_on: Config, config: Config, info: Mapping[str, object]) -> str:
    """Return a name for data that the run was not trained on, or '' for its own data.

    Raise `Refusal` if its rows have another width.
    """
    from distvae.data import family_of

    family = family_of(config.data)
    is_same, width = family.is_same_data(trained_on.data, str(info["data_digest"]))
    name = Path(config.data.path.partition("?")[0]).name or config.data.kind
    if width != info["dims"]:
        raise Refusal(
            f"{name}: data points of {width} values; {info['dims']} expected, as the run was"
            " trained on"
        )
    return "" if is_same else re.sub(r"[^\w.-]+", "-", name)
