"""The page of a sweep."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from distvae.config.recipes import setting_name
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain, Tree
from distvae.numerics.metrics import (
    brief,
    capitalise,
    counted,
    listed,
    setting,
    with_spread,
    without_spreads,
)
from distvae.report.page import (
    Cell,
    Exhibit,
    Facts,
    Finding,
    Medium,
    Page,
    Row,
    Section,
    Table,
    drawing,
)
from distvae.report.reading import PLAN, Sweep
from distvae.report.runs import beyond_recipe, exhibit, origin
from distvae.tasks.pictures import PALETTE, new_figure
from distvae.train.progress import format_duration
from distvae.tune.results import (
    DIRECTIONS,
    MAX_TRIALS,
    ORIGIN,
    Result,
    beats,
    best,
    draw_front,
    score_of,
    shown_in_report,
    with_baselines,
)
from distvae.tune.space import Axis, Directions, as_written

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial


UNBEATEN = "\N{BLACK STAR}"
BASELINES = "pca-N is a baseline: N principal components, on the same recordings."
NO_CELL = Cell("")
PICTURES = ("spectrogram", "images", "codes", "dictionary")
"""The pictures of a trial that the page shows."""
SHARES = (
    "Bars are shares of a figure's variance: the part that a parameter accounts for, alone and "
    "with others, in a random forest fitted to at most 300 trials (functional analysis of "
    "variance). They add up to 1 however much the forest explains. A sampler that seeks the best "
    "tries some values more often than others. The shares do not account for that."
)
NO_SHARES = "The figures hardly differ, or differ where no parameter does."
MIN_TRIALS = 10
"""With fewer trials, the shares are mostly noise."""
TRIALS_PER_PARAMETER = 4
TREES = 16
MAX_TRIALS_OF_FOREST = 300
"""The most trials that a forest is fitted to, evenly spaced; the time grows with their square."""


def sweep_page(sweep: Sweep) -> Page:
    """Build the page of a sweep, or of a table of published figures."""
    states = [trial.result.state for trial in sweep.trials]
    counts = [f"{states.count(state):,} {state}" for state in dict.fromkeys(states)]
    subtitle = f"{counted(len(states), 'trial')}: {listed(counts)}"
    kind = "Table" if _is_table(sweep) else "Sweep"
    return Page(f"{kind} {sweep.facts['name']}", subtitle, list(_sections(sweep)))


def _is_table(sweep: Sweep) -> bool:
    """Return whether the trials of a sweep are the rows of a published table."""
    return bool(sweep.facts.get("rows"))


def _sections(sweep: Sweep) -> Iterator[Section]:
    shown = exhibits(sweep)
    varied = [axis for axis in sweep.axes if axis.key not in sweep.constant]
    axes = [(setting_name(axis.key), _span(axis)) for axis in varied]
    asked = [sweep.facts.get("about", ""), _question(sweep)]
    findings = list(_findings(sweep, shown))
    yield Section("Question and answer", list(filter(None, asked)), findings, axes)
    if sweep.trials:
        yield Section("Trials", tables=[_trials(sweep, shown)])
    if len(sweep.metrics) > 1 and len(sweep.finished) > 1:
        results = [trial.result for trial in sweep.finished]
        figure = draw_front(results, sweep.metrics, sweep.constant, sweep.baselines)
        caption = "Each point is a trial. No other trial beats those whose numbers are bold."
        caption += f" {BASELINES}" if sweep.baselines else ""
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
    keys = [axis.key for axis in sweep.axes if axis.key not in sweep.constant]
    names = list(dict.fromkeys(map(setting_name, keys)))
    verb = "does" if len(names) == 1 and not names[0].endswith("s") else "do"
    figures = [f"{name} ({DIRECTIONS[mode]})" for name, mode in sweep.metrics.items()]
    return (
        f"How {verb} {listed(names)} change {listed(list(sweep.metrics))}? The trials vary the "
        f"recipe {sweep.facts['recipe']}. They are ranked by {listed(figures)} on validation data, "
        "so that the choice among them does not use the test data."
    )


def _findings(sweep: Sweep, exhibited: Mapping[int, Exhibit]) -> Iterator[Finding]:
    """Yield the best trials, the front, the baselines, how to use the best, and what is open."""
    finished = [trial.result for trial in sweep.finished]
    front = [result for result in finished if result.unbeaten]
    if not finished:
        yield Finding("answer", "No trial finished, so there is no answer.")
    for name, direction in sweep.metrics.items() if finished else ():
        first = best(finished, name, direction)
        text = f"{_figures(first, [name, *sweep.metrics])}, by {first.label(sweep.constant)}"
        yield Finding(f"best {name}", f"{text}{_lead(sweep)}:", _links([first], exhibited))
    if len(finished) == 1:
        yield Finding("front", "Only one trial finished; there is nothing to compare it with.")
    elif len(sweep.metrics) > 1 and finished:
        text = f"{len(front)} of {counted(len(finished), 'trial')}, which no other trial beats"
        links = _links(front, exhibited) if len(front) <= MAX_TRIALS else ()
        yield Finding("front", f"{text}:" if links else text, links)
    if known := [each for each in sweep.baselines if sweep.metrics.keys() <= each.figures.keys()]:
        yield Finding("baselines", _beside(known, front, sweep.metrics))
    if finished and sweep.finished[0].runs:
        words = ["distvae", "encode", str(sweep.finished[0].runs[0].folder), "DATA"]
        yield Finding("to use the best", "", command=shlex.join([*words, "-o", "codes.parquet"]))
    begun = sum(trial.result.parent is None for trial in sweep.trials)
    states = [trial.result.state for trial in sweep.trials]
    if "training" in states or begun < sweep.facts["trials"]:
        yield Finding("open", f"{begun} of {sweep.facts['trials']} trials had started.")


def _links(results: Sequence[Result], exhibited: Mapping[int, Exhibit]) -> Facts:
    """Return the names of trials, with the anchors of those that are seen and heard."""
    links = []
    for result in results:
        exhibit = exhibited.get(result.number)
        links.append((f"trial {result.number}", exhibit.anchor if exhibit else ""))
    return links


def _beside(baselines: Sequence[Result], front: Sequence[Result], metrics: Directions) -> str:
    """Say which baselines beat trials on the front, and which lead in one of several metrics."""
    lines = []
    for baseline in baselines:
        score = score_of(baseline, metrics)
        if beaten := [each.name for each in front if beats(score, score_of(each, metrics))]:
            lines.append(f"{baseline.name} beats {listed([f'trial {name}' for name in beaten])}")
    names = [each.name for each in baselines]
    lines = lines or [f"None of {listed(names)} beats a trial on the front"]
    bests = [
        max(column) for column in zip(*(score_of(each, metrics) for each in front), strict=True)
    ]
    for baseline in baselines if len(metrics) > 1 else ():
        scores = zip(metrics, score_of(baseline, metrics), bests, strict=True)
        if ahead := [name for name, score, best_of_trials in scores if score > best_of_trials]:
            lines.append(f"{baseline.name} has a better {listed(ahead)} than every trial")
    return "; ".join(lines)


def _lead(sweep: Sweep) -> str:
    """Return the margin of the best trial over the next, and whether its seeds differ by more."""
    if len(sweep.metrics) > 1 or len(sweep.finished) < 2:
        return ""
    (name,) = sweep.metrics
    first, second = (trial.result.figures for trial in sweep.finished[:2])
    lead, spread = abs(first[name] - second[name]), first.get(f"{name}_spread", 0.0)
    beside = f", which is less than its seeds differ by ({brief(spread)})"
    return f", {brief(lead)} from the next{beside if spread > lead else ''}"


def _describe(result: Result, sweep: Sweep) -> str:
    label = result.label(sweep.constant)
    return f"trial {result.number} ({label}: {_figures(result, sweep.metrics)})"


def _figures(result: Result, names: Iterable[str]) -> str:
    figures = {name: brief(result.figures[name]) for name in names}
    return ", ".join(f"{name} {figure}" for name, figure in figures.items())


def _span(axis: Axis) -> str:
    """Return the values of a setting, and its condition."""
    conditions = []
    for key, values in axis.when.items():
        conditions.append(f"{setting_name(key)} is {' or '.join(map(setting, values))}")
    return f"{axis.span}, where {' and '.join(conditions)}" if conditions else str(axis.span)


def _trials(sweep: Sweep, shown: Mapping[int, Exhibit]) -> Table:
    """Tabulate all trials and baselines. Columns are left out that say the same of all trials."""
    trials = [trial.result for trial in sweep.trials]
    finished = [result for result in trials if result.state == "finished"]
    results = with_baselines(finished, sweep.baselines, sweep.metrics)
    results += [result for result in trials if result.state != "finished"]
    cells = [_cells(result) for result in results]
    keys = dict.fromkeys(key for each in trials for key in each.values if key not in sweep.constant)
    figures = [name for result in results for name in result.figures]
    always = ["trial", UNBEATEN, "cause", *sweep.metrics, ORIGIN]
    ordered = ["trial", UNBEATEN, "state", "cause", *sweep.metrics, *keys, ORIGIN, *figures]
    columns = []
    for name in dict.fromkeys([*ordered, "epochs", "last bound", "time"]):
        texts = {row.get(name, NO_CELL).text for row in cells if row["trial"].value}
        is_kept = name in always or name.endswith("_published") or len(trials) == 1
        if texts != {""} and (is_kept or len(texts) > 1):
            columns.append(name)
    rows = []
    for result, row in zip(results, cells, strict=True):
        state = "unbeaten" if result.unbeaten else result.state
        target = shown[result.number].anchor if result.number in shown else ""
        rows.append(Row([row.get(name, NO_CELL) for name in columns], state, target))
    first = next(iter(sweep.metrics))
    order = "descending" if sweep.metrics[first] == "max" else "ascending"
    caption = (
        f"{UNBEATEN}: no other trial is better in one of the ranking figures and no worse in the "
        "others."
    )
    seeds = sweep.facts["seeds"]
    if seeds > 1:
        caption += f" Means over {seeds} seeds, \N{PLUS-MINUS SIGN} their standard deviation."
    caption += f" {BASELINES}" if sweep.baselines else ""
    heads = [setting_name(name) if name in keys else name for name in columns]
    return Table(heads, rows, caption, first if sweep.finished else "", order)


def _cells(result: Result) -> dict[str, Cell]:
    """Return the known values of a trial or baseline, by column."""
    cells = {"trial": Cell(result.name, result.number or None), "state": Cell(result.state)}
    if result.unbeaten:
        cells[UNBEATEN] = Cell(UNBEATEN, 1)
    for key, value in result.values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            cells[key] = Cell(brief(value), value)
        else:
            cells[key] = Cell(setting(value))
    for name in without_spreads(result.figures):
        if not name.endswith("_spread"):
            value, spread = result.figures[name], result.figures.get(f"{name}_spread")
            cells[name] = Cell(with_spread(value, spread or None, 3), value)
    if result.origin:
        cells[ORIGIN] = Cell(result.origin)
    if result.epoch:
        cells["epochs"] = Cell(str(result.epoch), result.epoch)
    if result.bound is not None:
        cells["last bound"] = Cell(brief(result.bound), result.bound)
    if result.seconds:
        cells["time"] = Cell(format_duration(result.seconds), result.seconds)
    if result.cause:
        cells["cause"] = Cell(result.cause)
    return cells


def exhibits(sweep: Sweep) -> dict[int, Exhibit]:
    """Collect pictures and sounds of a few trials, so that the page is small enough to mail."""
    results = shown_in_report([trial.result for trial in sweep.finished])
    if len(results) > MAX_TRIALS:
        bests = [best(results, name, mode) for name, mode in sweep.metrics.items()]
        kept = MAX_TRIALS - len(bests)
        spaced = [round(n * (len(results) - 1) / (kept - 1)) for n in range(kept)]
        results = [results[place] for place in spaced] + bests
    chosen = {result.number for result in results}
    found: dict[int, Exhibit] = {}
    for trial in sweep.finished:
        number = trial.result.number
        runs = trial.runs if number in chosen else []
        if evaluated := [run for run in runs if sweep.split in run.figures]:
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
        text = (
            f"Only {parameter_name(names[0])} varies in all trials, and there are no shares of a"
            " single parameter."
        )
    elif names:
        count = f"{counted(len(trials), 'trial')} finished"
        text = f"{count}. To tell parameters apart takes {needed(names)} or more."
    else:
        text = "The sampler's study (optuna.db) is not in the folder, or no parameter varied."
    return Section("Which parameters matter", [text], drawings=drawings)


def _provenance(sweep: Sweep) -> Iterator[tuple[str, str]]:
    yield from origin(sweep.runs)
    recorded = sweep.facts
    seed = f"from seed {recorded['config'].get('train.seed')}"
    seeds = f"{counted(recorded['seeds'], 'run')} of each trial {seed}"
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
    tree |= {name: facts[name] for name in (*PLAN, "judge", "baselines") if name in facts}
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

    trials = trials[:: -(-len(trials) // MAX_TRIALS_OF_FOREST)]
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


def parameter_name(parameter: str) -> str:
    """Return the name of a parameter of the sampler for people."""
    key, mark, place = parameter.partition("#")
    return f"{setting_name(key)}{mark}{place}"


def draw_shares(found: Mapping[str, float]) -> "Figure":
    """Draw the share of each parameter as a bar."""
    figure = new_figure(5.0, 0.8 + 0.3 * len(found))
    axes = figure.subplots()
    axes.barh(range(len(found)), list(found.values()), color=PALETTE[0], height=0.6)
    axes.set(xlabel="share of the variance", xlim=(0, 1))
    axes.set_yticks(range(len(found)), list(map(parameter_name, found)), parse_math=False)
    axes.invert_yaxis()
    return figure
