"""The question that a sweep asks, and the answer that its trials give."""

from collections.abc import Iterator, Sequence

from distvae.numerics.numbers import capitalise, listed, setting, shown
from distvae.report.blocks import Block, Table, Text, facts
from distvae.report.provenance import data_summary
from distvae.report.published import is_table
from distvae.report.reading import Sweep, Trial
from distvae.report.trials import better
from distvae.tune.axes import Choice, Interval
from distvae.tune.axis_facts import AxisFacts, SpanFacts

MAX_LISTED = 4
"""The number of unbeaten trials that the answer lists; of more it names the first and last."""


def question(sweep: Sweep) -> Iterator[Block]:
    """Build the first section of a sweep's report."""
    if about := sweep.facts.get("about"):
        yield Text(about)
    yield Text(_table_question(sweep) if is_table(sweep) else _space_question(sweep))
    yield from (Text(sentence, strong=True) for sentence in _answer(sweep))
    if not is_table(sweep):
        yield _space(sweep.facts["axes"])


def _table_question(sweep: Sweep) -> str:
    return (
        f"How close do the rows of {sweep.facts['name']} come to the published figures, in "
        f"{listed(list(sweep.metrics))}? Each row is a recipe of its own, evaluated on test data. "
        "No choice is made by the results."
    )


def _space_question(sweep: Sweep) -> str:
    recorded = sweep.facts
    keys = list(dict.fromkeys(axis["key"] for axis in recorded["axes"]))
    verb = "does" if len(keys) == 1 else "do"
    figures = [f"{name} ({better(mode)} is better)" for name, mode in sweep.metrics.items()]
    if sweep.runs:
        data = data_summary(sweep.runs[0])
    else:
        data = recorded["config"].get("data.path") or "its data"
    return (
        f"How {verb} {listed(keys)} change {listed(list(sweep.metrics))}? The trials vary the"
        f" recipe {recorded['recipe']}, on {data}. They are ranked by {listed(figures)} on"
        " validation data, so that the choice among them does not use the test data."
    )


def _answer(sweep: Sweep) -> Iterator[str]:
    """Yield sentences on what the results say, and what they leave open."""
    finished = sweep.finished
    if not sweep.trials:
        yield "No trial was started, so there is no answer yet."
    elif not finished:
        yield "No trial finished, so there is no answer: the table says how each ended."
    elif len(finished) == 1:
        yield (
            f"Only {_describe_trial(finished[0], sweep)} finished;"
            " there is nothing to compare it with."
        )
    else:
        yield _best(sweep)
    begun = sum(trial.result.parent is None for trial in sweep.trials)
    planned = sweep.facts["trials"]
    if not sweep.concluded:
        yield (
            f"The sweep was interrupted, or is still running: {begun} of {planned} trials had"
            " started."
        )
    elif begun < planned:
        yield f"{begun} of {planned} trials were started."


def _best(sweep: Sweep) -> str:
    finished = sweep.finished
    equal = [trial for trial in finished if _values(trial, sweep) == _values(finished[0], sweep)]
    unbeaten = [trial for trial in finished if trial.result.unbeaten]
    if len(equal) > 1 and (len(sweep.metrics) == 1 or len(unbeaten) == len(equal)):
        numbers = listed([str(trial.result.number) for trial in equal])
        which = f"Trials {numbers}" if len(equal) <= MAX_LISTED else f"{len(equal)} trials"
        return (
            f"{which} are equally good, and the best of {len(finished)}:"
            f" {_ranked(equal[0], sweep)}."
        )
    if len(sweep.metrics) == 1:
        best = capitalise(_describe_trial(finished[0], sweep))
        return f"{best} is the best of {len(finished)}{_lead(sweep)}."
    figures = "both figures" if len(sweep.metrics) == 2 else "all figures"
    if len(unbeaten) == 1:
        best = capitalise(_describe_trial(unbeaten[0], sweep))
        return f"{best} is the best of {len(finished)} in {figures}."
    if len(unbeaten) <= MAX_LISTED:
        trials = "; ".join(_describe_trial(trial, sweep) for trial in unbeaten)
        return f"No trial is the best in {figures}. No other beats these {len(unbeaten)}: {trials}."
    first, last = _describe_trial(unbeaten[0], sweep), _describe_trial(unbeaten[-1], sweep)
    return (
        f"No other trial beats {len(unbeaten)} of the {len(finished)} that finished, from "
        f"{first} to {last}."
    )


def _lead(sweep: Sweep) -> str:
    """Return the distance of the best from the second, and whether seeds differ by more."""
    (name,) = sweep.metrics
    first, second = (trial.result.figures for trial in sweep.finished[:2])
    lead = abs(first[name] - second[name])
    spread = first.get(f"{name}_spread")
    sentence = f", {shown(lead)} from the next"
    if spread and spread > lead:
        sentence += f", which is less than its seeds differ by ({shown(spread)})"
    return sentence


def _describe_trial(trial: Trial, sweep: Sweep) -> str:
    return f"trial {trial.result.number} ({trial.result.label}: {_ranked(trial, sweep)})"


def _values(trial: Trial, sweep: Sweep) -> list[float]:
    return [trial.result.figures[name] for name in sweep.metrics]


def _ranked(trial: Trial, sweep: Sweep) -> str:
    """Return the figures by which a trial is ranked."""
    return ", ".join(f"{name} {shown(trial.result.figures[name])}" for name in sweep.metrics)


def _space(axes: Sequence[AxisFacts]) -> Table:
    """Tabulate the settings that vary, their values and their conditions."""
    rows = []
    for axis in axes:
        conditions = []
        for key, values in axis["when"].items():
            conditions.append(f"{key} is {' or '.join(map(setting, values))}")
        condition = f", where {' and '.join(conditions)}" if conditions else ""
        rows.append((axis["key"], f"{_span(axis['span'])}{condition}"))
    return facts(rows, "What varies.")


def _span(span: SpanFacts) -> str:
    if "values" in span:
        return str(Choice(tuple(span["values"])))
    return str(Interval(span["low"], span["high"], span.get("log", False)))
