"""The report on one run."""

import math
from collections.abc import Iterator, Mapping
from functools import partial

from distvae.config import changed_settings
from distvae.numerics.figures import without_spreads
from distvae.numerics.numbers import counted, setting, shown, with_spread
from distvae.report import drawing, repeat
from distvae.report.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Document,
    Drawing,
    Drawings,
    Gallery,
    Row,
    Table,
    Text,
    document,
    facts,
)
from distvae.report.exhibits import exhibit
from distvae.report.glossary import explain_measures
from distvae.report.provenance import pairs, row_counts
from distvae.report.reading import RunResults
from distvae.tasks import pictures
from distvae.train.progress import format_duration

STAGE_CAPTIONS = {
    "bound": "bound, nats per window",
    "sigma": "estimated noise, sigma",
    "active": "active latents per window",
}
"""The figures that every epoch of a restoration has."""
CLOSENESS = {"psnr": "PSNR", "ssim": "SSIM", "snr": "SNR", "snr_gain": "SNR gain"}
"""Figures that compare an epoch of a restoration with the clean reference."""
NOT_DRAWN = ("epoch", "seconds")


def run_report(run: RunResults) -> Document:
    """Build the report on a run."""
    sections = {
        "Summary": _summary(run),
        "Learning": _learning(run),
        "Evaluation": _evaluation(run),
        "Pictures and sounds": _exhibits(run),
        "Provenance": _provenance(run),
    }
    recipe = str(run.info["recipe"]) or "a run"
    name = run.folder.absolute().name
    page = document(f"Run {name}", f"{recipe} on {run.info['data']}", sections)
    return explain_measures(page)


def _summary(run: RunResults) -> Iterator[Block]:
    yield Text(_outcome(run), strong=True)
    model = run.config.model
    data = f"{run.info['data']}: {row_counts(run)} of {run.info['dims']} values"
    yield facts(
        [
            ("model", f"{model.kind}, {counted(model.latent, 'latent')}"),
            ("inference", run.config.estep.kind),
            ("data", data),
        ]
    )
    changed = [(name, setting(value)) for name, value in changed_settings(run.config).items()]
    yield facts(changed, "Settings that differ from the defaults.")


def _outcome(run: RunResults) -> str:
    """Say how long the run trained and how good it is."""
    if not run.epochs:
        return "No epoch was finished."
    planned = counted(run.config.train.epochs, "epoch")
    trained = f"Trained for {len(run.epochs)} of {planned}"
    if run.stages:
        last = run.stages[-1]
        closeness = [
            f"{CLOSENESS.get(name, name)} {shown(value)}"
            for name, value in last.items()
            if name not in STAGE_CAPTIONS and name not in NOT_DRAWN
        ]
        if "sigma" in last:
            found = f"the noise is estimated at sigma {shown(last['sigma'])}"
        else:
            found = f"a bound of {shown(last['bound'])} nats per window"
        suffix = f"; beside the reference: {', '.join(closeness)}" if closeness else ""
        return f"{trained}: {found}{suffix}."
    best = run.best_epoch
    return (
        f"{trained}; the best weights are those of epoch {best['epoch']:.0f}, with a validation "
        f"bound of {shown(best['val_bound'])} nats per {run.unit}."
    )


def _learning(run: RunResults) -> Iterator[Block]:
    if run.stages:
        names = [name for name in run.stages[-1] if name not in NOT_DRAWN]
        yield Drawings([_stage_curve(run, name) for name in names])
        yield Text(
            "After each epoch, in the units of the data. The restored file is not kept with the "
            "run."
        )
    elif run.epochs:
        searched = "active" in run.epochs[-1]
        draw = pictures.telemetry if searched else pictures.learning_curves
        svg = drawing.svg(lambda: draw(run.epochs, run.unit, ""), "learning")
        yield Drawing(svg, "Every epoch.", searched)
    else:
        yield Text("Nothing yet.")


def _stage_curve(run: RunResults, name: str) -> Drawing:
    values = [(stage["epoch"], stage.get(name, math.nan)) for stage in run.stages]
    svg = drawing.svg(partial(drawing.figure_by_epoch, values), f"course-{name}")
    return Drawing(svg, (STAGE_CAPTIONS | CLOSENESS).get(name, name))


def _evaluation(run: RunResults) -> Iterator[Block]:
    splits = run.evaluated_splits
    if not splits:
        if not run.stages:
            yield Text(f"Not yet evaluated; run 'distvae evaluate {run.folder}'.")
        return
    names = dict.fromkeys(name for figures in run.figures.values() for name in figures)
    columns = [Column("figure"), *(Column(split, numeric=True) for split in splits)]
    rows = []
    for name in without_spreads(names):
        cells = [_figure_cell(run.figures[split], name) for split in splits]
        rows.append(Row([Cell(name, measure=name), *cells]))
    yield Table(
        columns,
        rows,
        "Means over the evaluated data, \N{PLUS-MINUS SIGN} the spread over speakers where there "
        "are any.",
    )


def _figure_cell(figures: Mapping[str, float | None], name: str) -> Cell:
    value = figures.get(name)
    if value is None:
        return Cell("")
    return Cell(with_spread(value, figures.get(f"{name}_std")), value)


def _exhibits(run: RunResults) -> Iterator[Block]:
    for split in run.evaluated_splits[:1]:
        names = ("spectrogram", "images", "codes", "atoms", "dictionary")
        found = exhibit(run, split, f"Evaluation on {split}", names)
        if found.pictures or found.sounds:
            yield Gallery([found])


def _provenance(run: RunResults) -> Iterator[Block]:
    info = run.info
    seconds = info.get("seconds")
    if not seconds and run.epochs:
        seconds = run.epochs[-1]["seconds"]
    yield facts(
        [
            ("started", str(info["begun"])),
            ("training time", format_duration(seconds) if seconds else ""),
            ("seed", str(run.config.train.seed)),
            ("commit", str(info.get("commit") or "not from a checkout")),
            ("versions", pairs(info["versions"])),
            ("machine", pairs(info.get("machine", {}))),
            ("data digest", str(info["data_digest"])),
        ]
    )
    hint = ""
    if info["recipe"] == repeat.RESTORATION:
        hint = f", where IN is {info['data']}; or inpaint"
    yield Code(repeat.command(run), f"To repeat the run{hint}:")
