"""The page of a run."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from distvae.config import changed_settings, flatten
from distvae.config.recipes import load, recipe_names
from distvae.files.untrusted import Plain
from distvae.numerics.metrics import counted, setting, shown, with_spread, without_spreads
from distvae.report.page import (
    Cell,
    Exhibit,
    Medium,
    Page,
    Row,
    Section,
    Table,
    drawing,
    picture,
    sound,
)
from distvae.report.reading import RunResults
from distvae.tasks import pictures
from distvae.tasks.pictures import PALETTE, new_figure, panels
from distvae.train.progress import format_duration
from distvae.train.run_folder import best_epoch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = {
    "spectrogram": "The first recording: original, reconstruction, and their difference.",
    "images": "Originals above their reconstructions.",
    "codes": "How the values of the code are used.",
    "atoms": "What each value of the code adds to the output.",
    "alone": "The output for one latent alone, each in turn.",
    "dictionary": "The dictionary.",
}
"""The pictures of an evaluation that a page shows."""
SOUNDS = {"original": "Original", "reconstruction": "Reconstruction"}
MACHINE_SETTINGS = ("train.threads", "train.products", "eval.processes")
"""Settings that depend on the machine and not on the experiment."""
RESTORATION = "restoration"
"""The recipe name that the run of a restoration records."""
NOT_DRAWN = ("epoch", "seconds")


def run_page(run: RunResults) -> Page:
    """Build the page of a run."""
    recipe = str(run.info["recipe"]) or "a run"
    subtitle = f"{recipe} on {run.info['data']}"
    return Page(f"Run {run.folder.absolute().name}", subtitle, list(_sections(run)))


def _sections(run: RunResults) -> Iterator[Section]:
    facts = [(name, setting(value)) for name, value in changed_settings(run.config).items()]
    yield Section("Summary", [_outcome(run)], facts=facts)
    if run.epochs:
        figure = pictures.learning(run.epochs, run.info["unit"], "")
        curves = Medium(drawing(figure), "Every epoch.")
        yield Section("Learning", drawings=[curves])
    if run.stages:
        caption = "After each epoch, in the units of the data."
        yield Section("Restoration", drawings=[Medium(drawing(_draw_stages(run.stages)), caption)])
    if splits := sorted(run.figures, key=lambda split: (split != "test", split)):
        yield Section("Evaluation", tables=[_figures(run, splits)])
        found = exhibit(run, splits[0], f"Evaluation on {splits[0]}", "evaluated", tuple(CAPTIONS))
        if found.pictures or found.sounds:
            yield Section("Pictures and sounds", exhibits=[found])
    elif not run.stages:
        yield Section("Evaluation", [f"Not yet evaluated; run 'distvae evaluate {run.folder}'."])
    started = [("started", str(run.info["begun"])), ("seed", str(run.config.train.seed))]
    if seconds := run.info.get("seconds") or (run.epochs and run.epochs[-1]["seconds"]):
        started.append(("training time", format_duration(seconds)))
    where = f", where IN is {run.info['data']}" if run.info["recipe"] == RESTORATION else ""
    codes = [(f"To repeat the run{where}:", command(run))]
    yield Section("Provenance", facts=[*started, *origin([run])], codes=codes)


def _outcome(run: RunResults) -> str:
    """Return a sentence with the length and the result of the training."""
    if not run.epochs:
        return "No epoch was finished."
    trained = f"Trained for {len(run.epochs)} of {counted(run.config.train.epochs, 'epoch')}"
    if run.stages:
        figures = [f"{name} {shown(run.stages[-1][name])}" for name in _drawn(run.stages)]
        return f"{trained}; after the last, {', '.join(figures)}."
    best = best_epoch(run.folder, run.epochs)
    return (
        f"{trained}; the best weights are those of epoch {best['epoch']:.0f}, with a validation "
        f"bound of {shown(best['val_bound'])} nats per {run.info['unit']}."
    )


def _drawn(stages: Sequence[Mapping[str, float]]) -> list[str]:
    return [name for name in stages[-1] if name not in NOT_DRAWN]


def _draw_stages(stages: Sequence[Mapping[str, float]]) -> "Figure":
    """Draw each metric of a restoration by epoch."""
    names = _drawn(stages)
    figure = new_figure(9.0, 2.6 * math.ceil(len(names) / 3))
    epochs = [stage["epoch"] for stage in stages]
    for axes, name in zip(panels(figure, len(names), 3), names, strict=True):
        values = [stage.get(name, math.nan) for stage in stages]
        axes.plot(epochs, values, color=PALETTE[0], marker="o" if len(epochs) < 12 else "")
        axes.set_title(name, parse_math=False)
        axes.set_xlabel("epoch")
    return figure


def _figures(run: RunResults, splits: Sequence[str]) -> Table:
    """Tabulate the metrics of each evaluated split."""
    names = dict.fromkeys(name for split in splits for name in run.figures[split])
    rows = []
    for name in without_spreads(names):
        cells = [Cell(name)]
        for figures in (run.figures[split] for split in splits):
            value = figures.get(name)
            text = "" if value is None else with_spread(value, figures.get(f"{name}_std"))
            cells.append(Cell(text, value))
        rows.append(Row(cells))
    caption = (
        "Means over the evaluated data, \N{PLUS-MINUS SIGN} the spread over speakers where there "
        "are any."
    )
    return Table(["figure", *splits], rows, caption)


def exhibit(run: RunResults, split: str, title: str, anchor: str, names: Sequence[str]) -> Exhibit:
    """Collect the named pictures and the sounds that the evaluation of a split wrote."""
    folder = run.folder / "evaluation" / split
    heard = [(folder / f"{name}.wav", caption) for name, caption in SOUNDS.items()]
    seen = [(folder / f"{name}.png", CAPTIONS[name]) for name in names]
    sounds = [Medium(sound(file), caption) for file, caption in heard if file.is_file()]
    found = [Medium(picture(file), caption) for file, caption in seen if file.is_file()]
    return Exhibit(title, anchor, sounds, found)


def origin(runs: Sequence[RunResults]) -> Iterator[tuple[str, str]]:
    """Yield the program, machine and data of runs, with all variants if they differ."""
    for name, values in {
        "commit": [str(run.info.get("commit") or "not from a checkout") for run in runs],
        "versions": [_pairs(run.info["versions"]) for run in runs],
        "machine": [_pairs(run.info.get("machine", {})) for run in runs],
        "data": [f"{run.info['data']}: {_rows(run)}" for run in runs],
        "data digest": [str(run.info["data_digest"]) for run in runs],
    }.items():
        if values:
            yield name, "; ".join(dict.fromkeys(values))


def _pairs(part: Mapping[str, Plain]) -> str:
    return ", ".join(f"{name} {value}" for name, value in part.items() if value is not None)


def _rows(run: RunResults) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in run.info["rows"].items())
    return f"{counts} {run.info['unit']}s of {run.info['dims']} values"


def command(run: RunResults) -> str:
    """Return the command that repeats the training of a run."""
    recipe = str(run.info["recipe"])
    if recipe in recipe_names():
        changed = beyond_recipe(flatten(run.config), recipe)
        assignments = [f"{key}={_in_yaml(value)}" for key, value in changed.items()]
        return shlex.join(["distvae", "train", recipe, *assignments])
    config = str(run.folder / "config.yaml")
    if recipe == RESTORATION:
        return shlex.join(["distvae", "denoise", "IN", "OUT", "--recipe", config])
    return shlex.join(["distvae", "train", config])


def beyond_recipe(settings: Mapping[str, Plain], recipe: str) -> dict[str, Plain]:
    """Return the settings that a recipe lacks or sets to another value."""
    original = flatten(load(recipe))
    changed = {}
    for key, value in settings.items():
        if key not in MACHINE_SETTINGS and original.get(key, ...) != value:
            changed[key] = value
    return changed


def _in_yaml(value: Plain) -> str:
    """Return a value on one line. Text has no quotes if YAML reads it correctly without them."""
    import yaml

    try:
        is_plain = isinstance(value, str) and yaml.safe_load(value) == value
    except yaml.YAMLError:
        is_plain = False
    return str(value) if is_plain else json.dumps(value)
