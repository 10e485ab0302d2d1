"""The report of one run."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial

from distvae.config import Config
from distvae.config.registry import SECTIONS
from distvae.config.schema import read_section
from distvae.report import drawing, repeat
from distvae.report.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Document,
    Drawing,
    Drawings,
    Row,
    Table,
    Text,
    document,
    facts,
)
from distvae.report.exhibits import exhibit
from distvae.report.numbers import counted, setting, shown, with_spread
from distvae.report.provenance import counts, pairs
from distvae.report.reading import Evidence
from distvae.tasks import pictures
from distvae.train.progress import format_duration

STAGED = {
    "bound": "bound, nats per window",
    "sigma": "noise it takes away, sigma",
    "active": "active latents of a window",
}
"""What is known after each epoch of a restoration, beside how close it is to a reference."""
UNIT_FREE = ("epoch", "seconds")


def of_run(run: Evidence) -> Document:
    """All that a run's folder tells."""
    parts = {
        "What it is": _identity(run),
        "Learning": _learning(run),
        "Judged": _figures(run),
        "Seen and heard": _exhibits(run),
        "What was run": _provenance(run),
    }
    recipe = str(run.info["recipe"]) or "a run"
    return document(f"Run {run.folder.absolute().name}", f"{recipe} on {run.info['data']}", parts)


def _identity(run: Evidence) -> Iterator[Block]:
    yield Text(_answer(run), strong=True)
    model = run.config.model
    yield facts(
        [
            ("model", f"{model.kind}, {counted(model.latent, 'latent')}"),
            ("inference", run.config.estep.kind),
            ("data", f"{run.info['data']}: {counts(run)} of {run.info['dims']} values"),
        ]
    )
    yield facts(list(_differing(run.config)), "What differs from the defaults.")


def _answer(run: Evidence) -> str:
    """How far it came, and how good it is."""
    if not run.epochs:
        return "No epoch was finished."
    count = f"Trained for {len(run.epochs)} of {counted(run.config.train.epochs, 'epoch')}"
    if run.stages:
        last = run.stages[-1]
        close = [
            f"{name.upper()} {shown(value)}"
            for name, value in last.items()
            if name not in (*STAGED, *UNIT_FREE)
        ]
        told = f", {', '.join(close)} to the reference" if close else ""
        return f"{count}: the noise is estimated at sigma {shown(last['sigma'])}{told}."
    best = max(run.epochs, key=lambda epoch: epoch["val_objective"])
    return (
        f"{count}; the best weights are those of epoch {best['epoch']:.0f}, with a validation"
        " bound of " + f"{shown(best['val_bound'])} nats per {run.unit}."
    )


def _differing(config: Config) -> Iterator[tuple[str, str]]:
    """The kind of each section, and what is set otherwise than that kind has it by default."""
    for section in SECTIONS:
        part = getattr(config, section)
        yield f"{section}.kind", part.kind
        for name, usual in asdict(read_section(section, {"kind": part.kind})).items():
            if (value := getattr(part, name)) != usual:
                yield (
                    f"{section}.{name}",
                    setting(list(value) if isinstance(value, tuple) else value),
                )
    if config.follows != Config().follows:
        yield "follows", config.follows


def _learning(run: Evidence) -> Iterator[Block]:
    if run.stages:
        yield Drawings([_course(run, name) for name in run.stages[-1] if name not in UNIT_FREE])
        yield Text(
            "After each epoch, in the units of the data. The restored file is not kept with the"
            " run."
        )
    elif run.epochs:
        searched = "active" in run.epochs[-1]
        course = pictures.telemetry if searched else pictures.learning_curves
        yield Drawing(
            drawing.svg(lambda: course(run.epochs, run.unit, ""), "learning"),
            "Every epoch.",
            searched,
        )
    else:
        yield Text("Nothing yet.")


def _course(run: Evidence, name: str) -> Drawing:
    values = [(stage["epoch"], stage.get(name, math.nan)) for stage in run.stages]
    return Drawing(
        drawing.svg(partial(drawing.course, values), f"course-{name}"),
        STAGED.get(name, name.upper()),
    )


def _figures(run: Evidence) -> Iterator[Block]:
    if not run.judged:
        if not run.stages:
            yield Text(f"Not yet; 'distvae evaluate {run.folder}' judges it.")
        return
    names = dict.fromkeys(
        name for figures in run.figures.values() for name in figures if not name.endswith("_std")
    )
    columns = [Column("figure"), *(Column(split, numeric=True) for split in run.judged)]
    rows = [
        Row([Cell(name), *(_told(run.figures[split], name) for split in run.judged)])
        for name in names
    ]
    yield Table(
        columns,
        rows,
        "Means over what was judged, \N{PLUS-MINUS SIGN} the spread over speakers where there are"
        " any.",
    )


def _told(figures: Mapping[str, float | None], name: str) -> Cell:
    value = figures.get(name)
    return (
        Cell("") if value is None else Cell(with_spread(value, figures.get(f"{name}_std")), value)
    )


def _exhibits(run: Evidence) -> Iterator[Block]:
    for split in run.judged[:1]:
        names = ("spectrogram", "images", "codes", "atoms", "dictionary")
        yield exhibit(run, split, f"Judged on {split}", names)


def _provenance(run: Evidence) -> Iterator[Block]:
    info = run.info
    seconds = info.get("seconds") or (run.epochs[-1]["seconds"] if run.epochs else 0)
    yield facts(
        [
            ("begun", str(info["begun"])),
            ("time of training", format_duration(seconds) if seconds else ""),
            ("seed", str(run.config.train.seed)),
            ("commit", str(info.get("commit") or "not from a checkout")),
            ("versions", pairs(info["versions"])),
            ("machine", pairs(info["machine"])),
            ("digest of the data", str(info["data_digest"])),
        ]
    )
    restored = (
        f", where IN is {info['data']}; or inpaint" if info["recipe"] == repeat.RESTORED else ""
    )
    yield Code(repeat.command(run), f"To repeat it{restored}:")
