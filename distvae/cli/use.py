"""Commands that use a trained model: `evaluate`, `resynthesize`, `encode`, `sample`, `show`,
`check` and `push`.
"""

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distvae.cli.options import (
    Force,
    Quiet,
    RunFolder,
    WhichSplit,
    command,
    complete_setting,
    print_next,
)
from distvae.config import Config, changed_settings, from_dict, to_dict
from distvae.config.recipes import override, parse_assignments, refuse_place, with_options
from distvae.config.schema import check_value
from distvae.files.refusal import Refusal
from distvae.files.untrusted import finite, one_line, printable, read_figures
from distvae.numerics.metrics import counted
from distvae.train.progress import Style

if TYPE_CHECKING:
    from distvae.tasks.evaluate import Evaluation

app = typer.Typer(rich_help_panel="Use a trained model")

COMPARED = 1000
"""Training rows whose bound is compared with the exact likelihood."""
SEARCHED = ("sigma", "active", "dead", "distinct_states")
"""The figures shown for the best epoch of a model without an encoder."""


@command(app, "evaluate runs/mnist-vae 'eval.metrics=[probe_linear]' --force")
def evaluate(
    run: RunFolder,
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings to change, of sections eval and data, such as eval.importance=500.",
            autocompletion=complete_setting,
        ),
    ] = None,
    *,
    data: Annotated[
        str | None, typer.Option(help="Evaluate on this data; default: the data of the run.")
    ] = None,
    split: WhichSplit = "test",
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
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a run: scores per file and speaker, sparsity of its codes, pictures, and a sound
    before and after.
    """
    from distvae.tasks.evaluate import evaluate as evaluate_run
    from distvae.train.run import Run
    from distvae.train.run_folder import read_config, read_info

    options = {"--data": ("data.path", data)}
    overrides = with_options(parse_assignments(assignments or []), options)
    for key in overrides:
        if not key.startswith(("eval.", "data.")):
            raise Refusal(f"{key}: the run is trained; only eval. and data. keys can be set here")
    info = read_info(run)
    trained_on = read_config(run, info)
    place = overrides.pop("data.path", None)
    config = from_dict(override(to_dict(trained_on), overrides))
    if place is not None:
        assigned = [key.removeprefix("data.") for key in overrides]
        config = with_data(config, check_value("data.path", str, place), info, assigned)
    folder: str = split
    if config.data != trained_on.data:
        other = foreign_dataset_name(trained_on, config, info)
        folder = f"{split}-of-{other}" if other else split
    trained = Run.open(run)
    trained.config = config
    target = out or run / "evaluation" / folder
    evaluation = evaluate_run(trained, target, split, force, progress=not quiet)
    print_evaluation(evaluation, "quiet" if quiet else "line")
    if not quiet:
        print(f"{target}: tables and pictures")
        print_next("distvae", "report", run)


def with_data(
    config: Config, path: str, info: Mapping[str, object], assigned: Collection[str] = ()
) -> Config:
    """Return the configuration of a run with the data at another path. `assigned` names the
    settings of the data that the user has set.
    """
    from distvae.data import data_at

    refuse_place(config, path)
    return replace(config, data=data_at(path, config.data, str(info["data_digest"]), assigned))


def foreign_dataset_name(trained_on: Config, config: Config, info: Mapping[str, object]) -> str:
    """Return a name for data that the run was not trained on, or '' for the run's own data.

    Raise `Refusal` if the rows have another width.
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


def print_evaluation(evaluation: "Evaluation", style: Style) -> None:
    """Print the scores of an evaluation, and the files that could not be scored."""
    print_scores(evaluation.summary, style)
    if style != "line":
        return
    for refused in evaluation.refused:
        print(printable(f"{refused.file}: no {refused.metric}: {refused.reason}"))
    for note in evaluation.notes:
        print(note)


def print_scores(summary: Mapping[str, float], style: Style) -> None:
    """Print scores, as JSON for programs or one per line."""
    from distvae.numerics.metrics import shown, without_spreads

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


@command(app, "resynthesize runs/speech in.wav out.wav")
def resynthesize(
    run: RunFolder,
    source: Annotated[Path, typer.Argument(metavar="IN", help="A recording.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The sound file to write.")],
    force: Force = False,
) -> None:
    """Encode and decode one recording with a trained model."""
    from distvae.tasks.resynthesis import resynthesize_file
    from distvae.train.run import Run

    resynthesize_file(Run.open(run), source, target, force)
    print(f"{target}: {printable(source.name)}, encoded and decoded, with the phase of the input")


@command(app, "encode runs/speech ~/recordings -o codes.parquet")
def encode(
    run: RunFolder,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help=(
                "A folder, an .npz, one recording or picture, or a URI of data of the kind that the"
                " run was trained on."
            ),
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The Parquet file to write.")],
    active: Annotated[
        bool,
        typer.Option(
            "--active",
            help="Set values to zero that tell little: less than half a nat about the data, of VSC "
            "those whose gate is probably closed.",
        ),
    ] = False,
    split: WhichSplit = "all",
    force: Force = False,
) -> None:
    """Write the codes of data into a Parquet file. Columns say where each code comes from: the
    file, speaker, split and frame of recordings, the split and row of other data, the file of
    pictures, and labels where there are any. A code is a list in the column `code`; of a model
    with sparse codes, `code_indices` and `code_values` list the values that are not zero.
    """
    from distvae.data import is_single_file
    from distvae.tasks.codes import encode as encode_data
    from distvae.tasks.codes import encode_file
    from distvae.train.run import Run

    trained = Run.open(run)
    if is_single_file(trained.config.data, data):
        if split != "all":
            raise Refusal(f"--split: '{split}', but {data} is one file, in no split; all expected")
        count = encode_file(trained, Path(data), out, active, force)
    else:
        source = with_data(trained.config, data, trained.info).data
        count = encode_data(trained, source, out, split, active, force)
    print(f"{out}: {counted(count, 'code')} of {trained.model.code_size} values")


@command(app, "sample runs/mnist-vae samples.png")
def sample(
    run: RunFolder,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="PICTURE",
            help="The .png, .pdf or .svg to write; the values go beside it as .npy.",
        ),
    ],
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Number of samples.")] = 64,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of the samples.")] = 0,
    force: Force = False,
) -> None:
    """Draw samples from a model's prior."""
    from distvae.tasks.codes import sample as draw_samples
    from distvae.train.run import Run

    draw_samples(Run.open(run), target, count, seed, force)
    print(f"{target}: {counted(count, 'draw')} from the prior")
    print(f"{target.with_suffix('.npy')}: their values")


@command(app, "show runs/speech")
def show(
    run: RunFolder,
    check: Annotated[
        Literal["files", "exact"] | None,
        typer.Option(
            help="Check that the run's files are complete; exact: also compare its bound with the"
            " exact likelihood of binary latents."
        ),
    ] = None,
) -> None:
    """Print the settings of a run, how its training went, and its scores."""
    import yaml

    if check is not None:
        check_run(run, exact=check == "exact")
        return

    from distvae.numerics.metrics import shown, without_spreads
    from distvae.train.run_folder import best_epoch, read_config, read_epochs, read_info

    info, epochs = read_info(run), read_epochs(run)
    counts = ", ".join(f"{count:,} {split}" for split, count in info["rows"].items())
    commit = f"commit {info['commit']}" if info["commit"] else "not from a checkout"
    print(f"{run}: {info['recipe'] or 'a run'}, {commit}, started {info['begun']}")
    print(f"data: {info['data']}, {counts} {info['unit']}s")
    changed = changed_settings(read_config(run, info))
    print(yaml.safe_dump(changed, sort_keys=False).rstrip())
    if epochs:
        best = best_epoch(run, epochs)
        seconds = info.get("seconds") or epochs[-1]["seconds"]
        length = f"{len(epochs)} epoch{'s' * (len(epochs) != 1)}, {seconds:.0f} s"
        print(f"trained for {length}; best at epoch {best['epoch']:.0f}:")
        # Figures of the search over states, or else how sparse the codes are.
        found = [f"{name.replace('_', ' ')} {best[name]:.3g}" for name in SEARCHED if name in best]
        codes = ", ".join(found) or f"Hoyer {best.get('val_hoyer', math.nan):.3f}"
        print(f"validation bound {best['val_bound']:.2f} nats per {info['unit']}, {codes}")
        if noise := info.get("noise"):
            print(f"white noise in the rows: {noise:.3g}; training ends early if sigma is below it")
    for line in _describe_workers(run):
        print(line)
    for file in sorted(run.glob("evaluation/*/summary.json")):
        figures = read_figures(file)
        known = [(name, figures[name]) for name in without_spreads(figures)]
        scores = [f"{name} {shown(value)}" for name, value in known if value is not None]
        print(f"evaluated on {one_line(file.parent.name)}: {', '.join(scores)}")


def check_run(run: Path, exact: bool) -> None:
    """Print that a run's files are complete, and how its bound compares with log p(x)."""
    from distvae.tasks.truth import compare_with_exact
    from distvae.train.run import Run

    Run.open(run)
    last = Run.left(run)
    print(f"{run}: complete")
    if exact:
        for name, value in compare_with_exact(last, COMPARED).items():
            print(f"{name:20}{value:12.4f}")


def _describe_workers(run: Path) -> Iterator[str]:
    """Yield the number of workers that trained together, and the size of their populations."""
    from distvae.train.run_folder import read_events, starts_of

    starts = starts_of(read_events(run))
    if not starts:
        return
    workers = ", ".join(f"{event['workers']} from epoch {event['epoch']}" for event in starts)
    yield f"workers: {workers}; restarted {len(starts) - 1} times"
    last = starts[-1]
    if sum(sizes := last["bytes"]):
        rows = f"{min(last['rows']):,} to {max(last['rows']):,} rows"
        yield f"populations: {rows} a worker, {sum(sizes) / 1e6:,.1f} MB in all"


@command(app, "push best:pesq_wb@speech-sweep pushed")
def push(
    run: RunFolder,
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="A new folder, or hf://OWNER/NAME for the hub.")
    ],
) -> None:
    """Write a trained model with a card to a folder or the Hugging Face hub."""
    from distvae.share import push as push_run

    push_run(run, destination)
    print(destination)
