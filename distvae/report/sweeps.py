"""The report of a sweep."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from distvae.report import drawing
from distvae.report.blocks import (
    Block,
    Document,
    Drawing,
    Drawings,
    Exhibit,
    Table,
    Text,
    document,
    facts,
)
from distvae.report.compromises import against, compromises
from distvae.report.exhibits import exhibit
from distvae.report.importance import DRAWN, Group, groups, shares
from distvae.report.numbers import counted, listed, setting, shown
from distvae.report.provenance import described, provenance
from distvae.report.published import published, rows_told
from distvae.report.reading import Evidence, Sweep, Trial
from distvae.report.trials import STATES, better, tables
from distvae.tune.axes import Choice, Interval
from distvae.tune.validation import CHANGE_THE_BOUND

DRAWN_BARS = 40
LABEL = 44  # letters beside a bar
NAMED = 4
"""So many settings are named in a sentence."""


def of_sweep(sweep: Sweep, other: Sweep | None = None) -> Document:
    """All that a sweep's folder tells, and how its front stands against that of another."""
    parts: dict[str, Iterable[Block]] = {
        "Question and answer": _question(sweep),
        "Beside what was published": published(sweep),
        "Trials": _trials(sweep),
        "Compromises": compromises(sweep),
        "Against another sweep": against(sweep, other) if other else (),
        "Which parameters matter": _importances(sweep),
        "Learning": _learning(sweep),
        "The best and the worst": _exhibits(sweep),
        "Sparsity": _sparsity(sweep),
        "What was run": provenance(sweep),
    }
    what = "Table" if rows_told(sweep) else "Sweep"
    return document(f"{what} {sweep.facts['name']}", _subtitle(sweep), parts)


def _subtitle(sweep: Sweep) -> str:
    counts = [
        f"{sum(trial.result.state == state for trial in sweep.trials)} {STATES[state]}"
        for state in dict.fromkeys(trial.result.state for trial in sweep.trials)
    ]
    return f"{counted(len(sweep.trials), 'trial')}" + (f": {listed(counts)}" if counts else "")


def _question(sweep: Sweep) -> Iterator[Block]:
    told, axes = sweep.facts, sweep.facts["axes"]
    if rows_told(sweep):
        yield Text(
            f"How close do the rows of {told['name']} come to what was published, in"
            f" {listed(list(sweep.metrics))}? Each is a recipe of its own, judged on test data:"
            " nothing is chosen by what they find."
        )
        yield from (Text(sentence, strong=True) for sentence in _answer(sweep))
        return
    keys = listed(list(dict.fromkeys(axis["key"] for axis in axes)))
    ranked = listed([f"{name} ({better(mode)} is better)" for name, mode in sweep.metrics.items()])
    data = (
        f"on {described(sweep.runs[0])}"
        if sweep.runs
        else f"on {told['config'].get('data.path') or 'its data'}"
    )
    yield Text(
        f"What do {keys} do to {listed(list(sweep.metrics))}? Trials depart from the recipe"
        f" {told['recipe']}, {data}. They are ranked by {ranked}, judged on validation data:"
        " choosing among them does not see the test data."
    )
    yield from (Text(sentence, strong=True) for sentence in _answer(sweep))
    yield _space(axes)


def _answer(sweep: Sweep) -> Iterator[str]:
    """What the results say, in a sentence or two; and what they leave open."""
    if not sweep.trials:
        yield "No trial was begun, so there is no answer yet."
    elif not sweep.finished:
        yield "No trial finished, so there is no answer: the table says how each ended."
    elif len(sweep.finished) == 1:
        yield (
            f"Only {_named(sweep.finished[0], sweep)} finished; there is nothing to compare it"
            " with."
        )
    else:
        yield _best(sweep)
    begun, planned = len(sweep.trials), sweep.facts["trials"]
    if not sweep.concluded:
        yield (
            f"The sweep was cut off, or is still under way: {begun} of {planned} trials had begun."
        )
    elif begun < planned:
        yield f"{begun} of {planned} trials were begun."


def _best(sweep: Sweep) -> str:
    unbeaten = [trial for trial in sweep.finished if trial.result.unbeaten]
    if len(sweep.metrics) == 1:
        return (
            f"{_capital(_named(sweep.finished[0], sweep))} is the best of"
            f" {len(sweep.finished)}{_lead(sweep)}."
        )
    figures = "both figures" if len(sweep.metrics) == 2 else "all figures"
    if len(unbeaten) == 1:
        return (
            f"{_capital(_named(unbeaten[0], sweep))} is the best of {len(sweep.finished)} in"
            f" {figures}."
        )
    if len(unbeaten) <= NAMED:
        told = "; ".join(_named(trial, sweep) for trial in unbeaten)
        return f"No trial is the best in {figures}. No other beats these {len(unbeaten)}: {told}."
    first, last = unbeaten[0], unbeaten[-1]
    return (
        f"No other trial beats {len(unbeaten)} of the {len(sweep.finished)} that finished, from "
        f"{_named(first, sweep)} to {_named(last, sweep)}."
    )


def _lead(sweep: Sweep) -> str:
    """How far the best is from the next, and whether seeds differ by more."""
    (name,) = sweep.metrics
    first, second = (trial.result.figures for trial in sweep.finished[:2])
    lead, spread = abs(first[name] - second[name]), first.get(f"{name}_spread")
    told = f", {shown(lead)} from the next"
    return told + (
        f", which is less than seeds of it differ by ({shown(spread)})"
        if spread and spread > lead
        else ""
    )


def _named(trial: Trial, sweep: Sweep) -> str:
    figures = ", ".join(f"{name} {shown(trial.result.figures[name])}" for name in sweep.metrics)
    return f"trial {trial.result.number} ({trial.result.label}: {figures})"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _space(axes: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for axis in axes:
        wanted = [
            f"{key} is {' or '.join(map(setting, values))}" for key, values in axis["when"].items()
        ]
        rows.append(
            (
                axis["key"],
                f"{_span(axis['span'])}{', where ' + ' and '.join(wanted) if wanted else ''}",
            )
        )
    return facts(rows, "What varies.")


def _span(span: dict[str, Any]) -> str:
    return str(Choice(tuple(span["values"])) if "values" in span else Interval(**span))


def _trials(sweep: Sweep) -> Iterator[Block]:
    if not sweep.trials:
        yield Text("None.")
        return
    yield from tables(sweep)


def _importances(sweep: Sweep) -> Iterator[Block]:
    if not sweep.finished or rows_told(sweep):
        return
    found = groups(sweep)
    if not found:
        yield Text(
            "What the sampler was told (optuna.db) is not in the folder, or no parameter varied."
        )
        return
    enough = [
        group for group in found if len(group.varied) > 1 and len(group.trials) >= group.needed
    ]
    if enough:
        yield Text(
            "Bars are shares of the variance of a figure that a parameter accounts for, alone and"
            " with others, in a random forest fitted to the trials (functional analysis of"
            " variance). They add up to 1 whether the forest explains much or little. Lines span"
            f" what comes of drawing the trials anew {DRAWN} times: bars whose lines overlap are"
            " not told apart. A sampler that seeks the best tries some values more often than"
            " others, which the shares do not know."
        )
    for order, group in enumerate(enough):
        yield Drawings(list(_parts(sweep, group, order)))
    yield from (Text(sentence) for sentence in _left_out(found, enough))


def _parts(sweep: Sweep, group: Group, order: int) -> Iterator[Drawing]:
    for place, name in enumerate(sweep.metrics):
        if found := shares(group, place):
            caption = f"{name}: {group.about}, {counted(len(group.trials), 'trial')}."
            yield Drawing(
                drawing.svg(partial(drawing.parts, found), f"part-{order}-{place}"), caption
            )


def _left_out(found: Sequence[Group], enough: Sequence[Group]) -> Iterator[str]:
    """Groups that are too small, and parameters that only some trials have."""
    for group in found if any(len(g.trials) >= g.needed for g in found) else found[:1]:
        count = counted(len(group.trials), "trial")
        if len(group.varied) < 2:
            alone = (
                f"{group.varied[0]} alone differs"
                if group.varied
                else "no parameter that all have differs"
            )
            yield f"Of {group.about}: {alone}, so there is nothing to share out."
        elif group not in enough:
            yield (
                f"Of {group.about}: {count}, too few to tell parameters apart ({group.needed} or"
                " more expected)."
            )
        elif group.left_out:
            yield (
                f"Of {group.about}: only some have {listed(group.left_out)}, which the shares leave"
                " out."
            )


def _learning(sweep: Sweep) -> Iterator[Block]:
    """A diagram for each prior and density: bounds under different ones do not compare."""
    groups: dict[str, list[Trial]] = {}
    for trial in sweep.trials:
        if any(run.epochs for run in trial.runs):
            kind = {k: v for k, v in trial.result.values.items() if k.startswith(CHANGE_THE_BOUND)}
            groups.setdefault(", ".join(map(setting, kind.values())) or "all trials", []).append(
                trial
            )
    if not groups:
        if sweep.trials:
            yield Text("No trial finished an epoch.")
        return
    yield Drawings(
        [_curves(about, trials, place) for place, (about, trials) in enumerate(groups.items())]
    )
    several = " One curve for each seed." if sweep.facts["seeds"] > 1 else ""
    apart = (
        " Bounds under different priors or densities do not compare, so each has axes of its own."
        * (len(groups) > 1)
    )
    yield Text(
        "Bound on validation data after each epoch, larger is better; the first plunge is cut"
        f" off.{several}{apart}"
    )


def _curves(about: str, trials: Sequence[Trial], place: int) -> Drawing:
    curves = {
        trial.result.number: [_curve(run) for run in trial.runs if run.epochs]
        for trial in sorted(trials, key=lambda trial: trial.result.number)
    }
    finished = [trial.result.number for trial in trials if trial.result.state == "finished"]
    best = finished[0] if len(finished) > 1 else None
    unit = next(run.unit for trial in trials for run in trial.runs)
    told = f"{about}: {counted(len(trials), 'trial')}" + (
        f"; the best in rank, {best}, in blue." if best else "."
    )
    return Drawing(drawing.svg(lambda: drawing.bounds(curves, unit, best), f"curves-{place}"), told)


def _curve(run: Evidence) -> tuple[list[float], list[float]]:
    return [epoch["epoch"] for epoch in run.epochs], [epoch["val_bound"] for epoch in run.epochs]


def _exhibits(sweep: Sweep) -> Iterator[Exhibit]:
    name = next(iter(sweep.metrics))
    shown_of = {"best": sweep.finished[:1], "worst": sweep.finished[1:][-1:]}
    for rank, trials in shown_of.items():
        for trial in trials:
            run = next((run for run in trial.runs if sweep.split in run.figures), None)
            if run is not None:
                figure = f"{name} {shown(trial.result.figures[name])}"
                title = (
                    f"Trial {trial.result.number}, the {rank} in {name}: {trial.result.label}"
                    f" ({figure})"
                )
                yield exhibit(
                    run, sweep.split, title, ("spectrogram", "images", "codes", "dictionary")
                )


def _sparsity(sweep: Sweep) -> Iterator[Block]:
    known = [trial.result for trial in sweep.finished if "live_atoms" in trial.result.figures]
    if not known:
        return
    bars = [
        drawing.Usage(
            f"{result.number}  {result.label}"[:LABEL],
            result.figures["live_atoms"],
            result.figures.get("dead_atoms", 0.0),
            result.figures.get("effective_atoms"),
        )
        for result in known[:DRAWN_BARS]
    ]
    more = f" The first {DRAWN_BARS} of {len(known)} trials." if len(known) > DRAWN_BARS else ""
    yield Drawing(
        drawing.svg(lambda: drawing.usage(bars), "usage"),
        "Live: the values of the code whose root mean square is above a tenth of the strongest"
        " one's. Effective: how many equal values would be as spread as those of one data point,"
        f" on average. Best first.{more}",
    )
