"""The page of a sweep."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain, Tree
from distvae.numerics.metrics import (
    capitalise,
    counted,
    listed,
    setting,
    shown,
    with_spread,
    without_spreads,
)
from distvae.report.page import Cell, Exhibit, Medium, Page, Row, Section, Table, drawing
from distvae.report.reading import PLAN, Sweep
from distvae.report.runs import beyond_recipe, exhibit, origin
from distvae.tasks.pictures import PALETTE, new_figure
from distvae.train.progress import format_duration
from distvae.tune.results import DIRECTIONS, MAX_TRIALS, ORIGIN, Result, draw_front, shown_in_report
from distvae.tune.space import Choice, Interval, as_written

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial


UNBEATEN = "\N{BLACK STAR}"
MAX_LISTED = 4
"""The most unbeaten trials that the answer lists. A longer list is cut to its first and last
trials.
"""
PICTURES = ("spectrogram", "images", "codes", "dictionary")
"""The pictures of a trial that the page shows."""
SHARES = (
    "Bars are shares of a figure's variance: the part that a parameter accounts for, alone and "
    "with others, in a random forest fitted to the trials (functional analysis of variance). They "
    "add up to 1 however much the forest explains. A sampler that seeks the best tries some values "
    "more often than others. The shares do not account for that."
)
NO_SHARES = "The figures hardly differ, or differ where no parameter does."
MIN_TRIALS = 10
"""With fewer trials, the shares are mostly noise."""
TRIALS_PER_PARAMETER = 4
TREES = 16


def sweep_page(sweep: Sweep) -> Page:
    """Build the page of a sweep, or of a table of published figures."""
    states = [trial.result.state for trial in sweep.trials]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    subtitle = f"{counted(len(states), 'trial')}: {listed(counts)}"
    kind = "Table" if _is_table(sweep) else "Sweep"
    return Page(f"{kind} {sweep.facts['name']}", subtitle, list(_sections(sweep)))


def _is_table(sweep: Sweep) -> bool:
    """Return whether the trials of a sweep are the rows of a published table."""
    return bool(sweep.facts.get("rows"))


def _sections(sweep: Sweep) -> Iterator[Section]:
    shown = exhibits(sweep)
    axes = [] if _is_table(sweep) else [(axis["key"], _span(axis)) for axis in sweep.facts["axes"]]
    asked = [sweep.facts.get("about", ""), _question(sweep)]
    yield Section("Question and answer", list(filter(None, asked)), list(_answer(sweep)), axes)
    if sweep.trials:
        yield Section("Trials", tables=[_trials(sweep, shown)])
    if len(sweep.metrics) > 1 and len(sweep.finished) > 1:
        figure = draw_front([trial.result for trial in sweep.finished], sweep.metrics)
        caption = "Each point is a trial. No other trial beats those whose numbers are bold."
        yield Section("Front", drawings=[Medium(drawing(figure), caption)])
    if sweep.finished and not _is_table(sweep):
        yield _importance(sweep)
    if shown:
        text = "A sound goes on where the one before it was stopped, so that you can switch."
        yield Section("Pictures and sounds", [text], exhibits=list(shown.values()))
    yield Section("Provenance", facts=list(_provenance(sweep)), codes=list(_repeat(sweep)))


def _question(sweep: Sweep) -> str:
    if _is_table(sweep):
        return (
            f"How close do the rows of {sweep.facts['name']} come to the published figures, in "
            f"{listed(list(sweep.metrics))}? Each row is a recipe of its own, evaluated on test "
            "data. No choice is made by the results."
        )
    keys = list(dict.fromkeys(axis["key"] for axis in sweep.facts["axes"]))
    verb = "does" if len(keys) == 1 else "do"
    figures = [f"{name} ({DIRECTIONS[mode]})" for name, mode in sweep.metrics.items()]
    return (
        f"How {verb} {listed(keys)} change {listed(list(sweep.metrics))}? The trials vary the "
        f"recipe {sweep.facts['recipe']}. They are ranked by {listed(figures)} on validation data, "
        "so that the choice among them does not use the test data."
    )


def _answer(sweep: Sweep) -> Iterator[str]:
    """Yield sentences on the conclusions from the results, and on open questions."""
    finished = sweep.finished
    unbeaten = [trial for trial in finished if trial.result.unbeaten]
    described = [_describe(trial.result, sweep) for trial in unbeaten]
    if not finished:
        yield "No trial finished, so there is no answer."
    elif len(finished) == 1:
        yield f"Only {described[0]} finished; there is nothing to compare it with."
    elif len(unbeaten) == 1:
        yield f"{capitalise(described[0])} is the best of {len(finished)}{_lead(sweep)}."
    else:
        among = "; ".join(described)
        if len(unbeaten) > MAX_LISTED:
            among = f"from {described[0]} to {described[-1]}"
        yield f"No other trial beats {len(unbeaten)} of the {len(finished)} that finished: {among}."
    begun = sum(trial.result.parent is None for trial in sweep.trials)
    states = [trial.result.state for trial in sweep.trials]
    if "training" in states or begun < sweep.facts["trials"]:
        yield f"{begun} of {sweep.facts['trials']} trials had started."


def _lead(sweep: Sweep) -> str:
    """Return the margin of the best trial over the next, and whether its seeds differ by more."""
    if len(sweep.metrics) > 1:
        return ""
    (name,) = sweep.metrics
    first, second = (trial.result.figures for trial in sweep.finished[:2])
    lead, spread = abs(first[name] - second[name]), first.get(f"{name}_spread", 0.0)
    beside = f", which is less than its seeds differ by ({shown(spread)})"
    return f", {shown(lead)} from the next{beside if spread > lead else ''}"


def _describe(result: Result, sweep: Sweep) -> str:
    figures = ", ".join(f"{name} {shown(result.figures[name])}" for name in sweep.metrics)
    return f"trial {result.number} ({result.label}: {figures})"


def _span(axis: Tree) -> str:
    """Return the values of a setting, and its condition."""
    span = axis["span"]
    if "values" in span:
        text = str(Choice(tuple(span["values"])))
    else:
        text = str(Interval(span["low"], span["high"], span.get("log", False)))
    conditions = [f"{k} is {' or '.join(map(setting, v))}" for k, v in axis["when"].items()]
    return f"{text}, where {' and '.join(conditions)}" if conditions else text


def _trials(sweep: Sweep, shown: Mapping[int, Exhibit]) -> Table:
    """Tabulate all trials. Columns without values are left out."""
    results = [trial.result for trial in sweep.trials]
    cells = [_cells(result) for result in results]
    keys = [key for result in results for key in result.values]
    figures = [name for result in results for name in result.figures]
    columns = ["trial", UNBEATEN, "state", "cause", *sweep.metrics, *keys, ORIGIN, *figures]
    columns += ["epochs", "last bound", "time"]
    columns = [name for name in dict.fromkeys(columns) if any(name in row for row in cells)]
    rows = []
    for result, row in zip(results, cells, strict=True):
        state = "unbeaten" if result.unbeaten else result.state
        target = shown[result.number].anchor if result.number in shown else ""
        rows.append(Row([row.get(name, Cell("")) for name in columns], state, target))
    first = next(iter(sweep.metrics))
    order = "descending" if sweep.metrics[first] == "max" else "ascending"
    caption = (
        f"{UNBEATEN}: no other trial is better in one of the ranking figures and no worse in the "
        "others."
    )
    seeds = sweep.facts["seeds"]
    if seeds > 1:
        caption += f" Means over {seeds} seeds, \N{PLUS-MINUS SIGN} their standard deviation."
    return Table(columns, rows, caption, first if sweep.finished else "", order)


def _cells(result: Result) -> dict[str, Cell]:
    """Return the known values of a trial, by column."""
    cells = {"trial": Cell(str(result.number), result.number), "state": Cell(result.state)}
    if result.unbeaten:
        cells[UNBEATEN] = Cell(UNBEATEN, 1)
    for key, value in result.values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            cells[key] = Cell(setting(value), value)
        else:
            cells[key] = Cell(setting(value))
    for name in without_spreads(result.figures):
        if not name.endswith("_spread"):
            value, spread = result.figures[name], result.figures.get(f"{name}_spread")
            cells[name] = Cell(with_spread(value, spread or None), value)
    if result.origin:
        cells[ORIGIN] = Cell(result.origin)
    if result.epoch:
        cells["epochs"] = Cell(str(result.epoch), result.epoch)
    if result.bound is not None:
        cells["last bound"] = Cell(shown(result.bound), result.bound)
    if result.seconds:
        cells["time"] = Cell(format_duration(result.seconds), result.seconds)
    if result.cause:
        cells["cause"] = Cell(result.cause)
    return cells


def exhibits(sweep: Sweep) -> dict[int, Exhibit]:
    """Collect pictures and sounds of a few trials, so that the page is small enough to mail."""
    results = shown_in_report([trial.result for trial in sweep.finished])
    if len(results) > MAX_TRIALS:
        last = len(results) - 1
        results = [results[round(n * last / (MAX_TRIALS - 1))] for n in range(MAX_TRIALS)]
    chosen = {result.number for result in results}
    found: dict[int, Exhibit] = {}
    for trial in sweep.finished:
        number = trial.result.number
        evaluated = [run for run in trial.runs if sweep.split in run.figures]
        if number in chosen and evaluated:
            title, anchor = capitalise(_describe(trial.result, sweep)), f"trial-{number}"
            shown = exhibit(evaluated[0], sweep.split, title, anchor, PICTURES)
            if shown.sounds or shown.pictures:
                found[number] = shown
    return found


def _importance(sweep: Sweep) -> Section:
    """Draw the importance of parameters, or state the number of trials that this needs."""
    trials = sampled_trials(sweep)
    names = varied(trials)
    drawings = []
    if len(names) > 1 and len(trials) >= needed(names):
        for place, metric in enumerate(sweep.metrics):
            if found := shares(trials, names, place):
                drawings.append(Medium(drawing(draw_shares(found)), metric))
        text = SHARES if drawings else NO_SHARES
    elif len(names) == 1:
        text = f"In all trials only {names[0]} varied."
    elif names:
        count = f"{counted(len(trials), 'trial')} finished"
        text = f"{count}. To tell parameters apart takes {needed(names)} or more."
    else:
        text = "The sampler's study (optuna.db) is not in the folder, or no parameter varied."
    return Section("Which parameters matter", [text], drawings=drawings)


def _provenance(sweep: Sweep) -> Iterator[tuple[str, str]]:
    yield from origin(sweep.runs)
    recorded = sweep.facts
    seeds = f"{counted(recorded['seeds'], 'run')} of each trial"
    yield "search", f"{recorded['search']}, seed {recorded['seed']}, {seeds}"
    yield "scheduler", recorded["scheduler"]
    begun = [trial.datetime_start for trial in sweep.sampled if trial.datetime_start]
    ended = [trial.datetime_complete for trial in sweep.sampled if trial.datetime_complete]
    if begun and ended:
        yield "started, ended", f"{min(begun):%Y-%m-%d %H:%M}, {max(ended):%Y-%m-%d %H:%M}"


def _repeat(sweep: Sweep) -> Iterator[tuple[str, str]]:
    """Yield the commands and files that repeat the sweep."""
    recorded = sweep.facts
    if "command" in recorded:
        yield "To repeat it, with the data's folder after --data:", recorded["command"]
    elif text := space(recorded):
        file = f"{recorded['name']}.yaml"
        command = shlex.join(["distvae", "tune", file])
        yield "To repeat it, save the space below as a file, and type:", command
        yield file, text


def space(facts: Tree) -> str:
    """Return the YAML of a space that repeats the sweep, or '' if its recipe is unknown here."""
    import yaml

    keys = {axis["key"] for axis in facts["axes"]}
    try:
        changed = beyond_recipe(facts["config"], facts["recipe"])
    except Refusal:
        return ""
    fixed = {key: value for key, value in changed.items() if key not in keys}
    tree: dict[str, Plain] = {"about": facts["about"]} if facts.get("about") else {}
    tree |= {"base": facts["recipe"], "fixed": fixed}
    tree |= {name: facts[name] for name in (*PLAN, "judge") if name in facts}
    tree["axes"] = [as_written(axis) for axis in facts["axes"]]
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def sampled_trials(sweep: Sweep) -> "list[FrozenTrial]":
    """Return the finished trials from the sampler's study."""
    finished = {trial.result.number for trial in sweep.finished}
    complete = [trial for trial in sweep.sampled if trial.state.name == "COMPLETE"]
    return [trial for trial in complete if trial.number + 1 in finished and trial.params]


def varied(trials: "Sequence[FrozenTrial]") -> list[str]:
    """Return the parameters that all trials have and that vary."""
    common = set.intersection(*(set(trial.params) for trial in trials)) if trials else set()
    return [name for name in sorted(common) if len({t.params[name] for t in trials}) > 1]


def needed(names: Sequence[str]) -> int:
    """Return the number of trials that meaningful shares of these parameters need."""
    return max(MIN_TRIALS, TRIALS_PER_PARAMETER * len(names))


def shares(trials: "Sequence[FrozenTrial]", names: Sequence[str], metric: int) -> dict[str, float]:
    """Return the share of each parameter in the variance of a metric, largest first.

    Return no shares if the metric hardly varies, or if its variance comes from no parameter.
    """
    import optuna

    if len({trial.values[metric] for trial in trials}) < 2:
        return {}
    study = optuna.create_study(directions=["maximize"] * len(trials[0].values))
    study.add_trials(trials)
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0)
    try:
        return dict(
            optuna.importance.get_param_importances(
                study,
                evaluator=evaluator,
                params=list(names),
                target=lambda trial: trial.values[metric],
            )
        )
    except RuntimeError:  # "zero total variance in all trees"
        return {}


def draw_shares(found: Mapping[str, float]) -> "Figure":
    """Draw the share of each parameter as a bar."""
    figure = new_figure(5.0, 0.8 + 0.3 * len(found))
    axes = figure.subplots()
    axes.barh(range(len(found)), list(found.values()), color=PALETTE[0], height=0.6)
    axes.set(xlabel="share of the variance", xlim=(0, 1))
    axes.set_yticks(range(len(found)), list(found), parse_math=False)
    axes.invert_yaxis()
    return figure
