"""The report on a sweep."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from distvae.files.plain import Plain
from distvae.numerics.numbers import capitalise, counted, listed, setting
from distvae.report import drawing
from distvae.report.against import against
from distvae.report.blocks import Block, Document, Drawing, Drawings, Text, document
from distvae.report.exhibits import Exhibits, exhibits, gallery
from distvae.report.glossary import explain_measures
from distvae.report.importance import RESAMPLES, Group, groups, shares
from distvae.report.provenance import provenance
from distvae.report.published import is_table, published
from distvae.report.question import question
from distvae.report.reading import RunResults, Sweep, Trial
from distvae.report.tradeoffs import tradeoffs
from distvae.report.trials import STATES, tables
from distvae.report.values import figures_by_value
from distvae.tune.scheduler_check import changes_the_bound

MAX_BARS = 40
MAX_LABEL = 44
"""The number of characters of the label beside a bar."""


def sweep_report(sweep: Sweep, other: Sweep | None = None) -> Document:
    """Build the report on a sweep, and on how its front compares with that of another."""
    chosen = exhibits(sweep)
    sections: dict[str, Iterable[Block]] = {
        "Question and answer": question(sweep),
        "Compared with published figures": published(sweep),
        "Trials": _trials(sweep, chosen),
        "Trade-offs": tradeoffs(sweep, chosen),
        "See and hear": gallery(sweep, chosen),
        "Compared with another sweep": against(sweep, other) if other else (),
        "Which parameters matter": _importances(sweep),
        "Learning": _learning(sweep),
        "Sparsity": _sparsity(sweep),
        "Provenance": provenance(sweep),
    }
    kind = "Table" if is_table(sweep) else "Sweep"
    page = document(f"{kind} {sweep.facts['name']}", _subtitle(sweep), sections)
    return explain_measures(page)


def _subtitle(sweep: Sweep) -> str:
    states = [trial.result.state for trial in sweep.trials]
    counts = [f"{states.count(state)} {STATES[state]}" for state in dict.fromkeys(states)]
    total = counted(len(states), "trial")
    return f"{total}: {listed(counts)}" if counts else total


def _trials(sweep: Sweep, chosen: Exhibits) -> Iterator[Block]:
    if sweep.trials:
        yield from tables(sweep, chosen)
    else:
        yield Text("None.")


def _importances(sweep: Sweep) -> Iterator[Block]:
    if not sweep.finished or is_table(sweep):
        return
    found = groups(sweep)
    if not found:
        yield Text("The sampler's study (optuna.db) is not in the folder, or no parameter varied.")
        return
    drawn = [group for group in found if _is_large_enough(group)]
    drawings = [list(_importance_drawings(sweep, group, n)) for n, group in enumerate(drawn)]
    if any(drawings):
        yield Text(
            "Bars are shares of a figure's variance: the part that a parameter accounts for, alone "
            "and with others, in a random forest fitted to the trials (functional analysis of "
            "variance). They add up to 1 however much the forest explains. Lines show the range "
            f"over {RESAMPLES} bootstrap resamples of the trials; parameters whose lines overlap "
            "cannot be told apart. A sampler that seeks the best tries some values more often "
            "than others. The shares do not account for that."
        )
    for group, each in zip(drawn, drawings, strict=True):
        if each:
            yield Drawings(each)
        else:
            yield Text(
                f"{capitalise(group.about)} have figures that hardly differ, or that differ where "
                "no parameter does, so no parameter matters among them."
            )
    yield from (Text(sentence) for sentence in _left_out(found))
    if not drawn:
        missing = found[0].needed - len(found[0].trials)
        if missing > 0:
            yield Text(_advice(sweep, len(sweep.trials) + missing))
        yield from figures_by_value(sweep)


def _advice(sweep: Sweep, needed: int) -> str:
    """Say how to get enough trials."""
    begun = sum(trial.result.parent is None for trial in sweep.trials)
    planned = sweep.facts["trials"]
    if begun < planned or not sweep.concluded:
        return (
            f"{begun} of {planned} trials have begun: the same command with --resume goes on. "
            "Until then, compare the figures by value."
        )
    if sweep.facts["search"] == "grid":
        return "A grid has no more trials than these; a random search of the same space has."
    if sweep.facts["scheduler"] == "population":
        return (
            "The size of a population is fixed: start a new sweep with more trials, or compare the "
            "figures by value."
        )
    return (
        f"The same command with --trials {needed} --resume adds the trials that are missing. Until "
        "then, compare the figures by value."
    )


def _is_large_enough(group: Group) -> bool:
    return len(group.varied) > 1 and len(group.trials) >= group.needed


def _importance_drawings(sweep: Sweep, group: Group, order: int) -> Iterator[Drawing]:
    for place, name in enumerate(sweep.metrics):
        found = shares(group, place)
        if found:
            caption = f"{name}: {group.about}, {counted(len(group.trials), 'trial')}."
            svg = drawing.svg(partial(drawing.importances, found), f"part-{order}-{place}")
            yield Drawing(svg, caption)


def _left_out(found: Sequence[Group]) -> Iterator[str]:
    """Name the groups that are too small, and the parameters that only some trials have."""
    any_large = any(len(group.trials) >= group.needed for group in found)
    for group in found if any_large else found[:1]:
        if len(group.varied) == 1:
            yield f"In {group.about} only {group.varied[0]} differs: there is nothing to compare."
        elif not group.varied:
            yield f"In {group.about} no parameter that all have differs: nothing to compare."
        elif not _is_large_enough(group):
            count = counted(len(group.trials), "trial")
            yield (
                f"{capitalise(group.about)}: {count} finished. To tell parameters apart takes "
                f"{group.needed} or more."
            )
        elif group.left_out:
            yield (
                f"In {group.about} only some have {listed(group.left_out)}, which the shares leave "
                "out."
            )


def _learning(sweep: Sweep) -> Iterator[Block]:
    """Draw one diagram for each prior and density, because their bounds do not compare."""
    by_kind = _trials_by_bound(sweep)
    if not by_kind:
        if sweep.trials:
            yield Text("No trial finished an epoch.")
        return
    diagrams = []
    for place, (about, trials) in enumerate(by_kind.items()):
        diagrams.append(_curves(about, trials, place))
    yield Drawings(diagrams)
    note = (
        "Bound on validation data after each epoch, larger is better; the first steep rise is cut "
        "off."
    )
    if sweep.facts["seeds"] > 1:
        note += " One curve for each seed."
    if len(by_kind) > 1:
        note += " Bounds under different priors or densities do not compare; each has its own axes."
    yield Text(note)


def _trials_by_bound(sweep: Sweep) -> dict[str, list[Trial]]:
    """Group the trials that finished an epoch by the settings that change the bound's meaning."""
    tried: dict[str, list[Plain]] = {}
    for trial in sweep.trials:
        for key, value in trial.result.values.items():
            tried.setdefault(key, []).append(value)
    keys = {key for key, values in tried.items() if changes_the_bound(key, values)}
    by_kind: dict[str, list[Trial]] = {}
    for trial in sweep.trials:
        if any(run.epochs for run in trial.runs):
            kinds = [setting(value) for key, value in trial.result.values.items() if key in keys]
            by_kind.setdefault(", ".join(kinds) or "all trials", []).append(trial)
    return by_kind


def _curves(about: str, trials: Sequence[Trial], place: int) -> Drawing:
    curves = {}
    for trial in sorted(trials, key=lambda trial: trial.result.number):
        curves[trial.result.number] = [_curve(run) for run in trial.runs if run.epochs]
    finished = [trial.result.number for trial in trials if trial.result.state == "finished"]
    best = finished[0] if len(finished) > 1 else None
    unit = next(run.unit for trial in trials for run in trial.runs)
    caption = f"{about}: {counted(len(trials), 'trial')}"
    caption += f"; the best in rank, {best}, in blue." if best else "."
    svg = drawing.svg(lambda: drawing.bound_curves(curves, unit, best), f"curves-{place}")
    return Drawing(svg, caption)


def _curve(run: RunResults) -> tuple[list[float], list[float]]:
    return [epoch["epoch"] for epoch in run.epochs], [epoch["val_bound"] for epoch in run.epochs]


def _sparsity(sweep: Sweep) -> Iterator[Block]:
    """Draw how many values of its code each trial uses."""
    results = [trial.result for trial in sweep.finished]
    results = [result for result in results if "live_atoms" in result.figures]
    if not results:
        return
    bars = []
    for result in results[:MAX_BARS]:
        figures = result.figures
        label = f"{result.number}  {result.label}"[:MAX_LABEL]
        dead, effective = figures.get("dead_atoms", 0.0), figures.get("effective_atoms")
        bars.append(drawing.Usage(label, figures["live_atoms"], dead, effective))
    caption = (
        "Live: values of the code with a root mean square above a tenth of the strongest one's. "
        "Effective: the number of equal values that would be spread as widely as those of one "
        "row, on average. Best first."
    )
    if len(results) > MAX_BARS:
        caption += f" The first {MAX_BARS} of {len(results)} trials."
    yield Drawing(drawing.svg(lambda: drawing.usage(bars), "usage"), caption)
