"""Metrics of a trained model on a split. `eval.metrics` may name them beside metrics of recordings.

The table `MEASURES` has the requirements and the outputs of each measure; docs/measures.md names
the papers.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from distvae.config import Config
from distvae.data.family import recordings_of
from distvae.files.packages import refuse_missing
from distvae.files.refusal import Refusal
from distvae.numerics.metrics import Group, declare
from distvae.tasks.measures import effects, factors, importance, probes
from distvae.tasks.measures.needs import needs_classes, needs_encoder, needs_factors, needs_nothing
from distvae.tasks.measures.subject import Subject, require_labels
from distvae.tasks.waiting import announce
from distvae.train.run import Run

Figures = dict[str, float]


class Measure(NamedTuple):
    """One entry of `eval.metrics`."""

    missing: Callable[[Config], str]
    """A function that returns what the configuration lacks for the measure, or ''."""
    measure: Callable[[Subject], Figures]
    figures: tuple[str, ...]
    """The names of the metrics that the measure returns."""
    group: Group = "quality"
    """The group of the metrics."""


MEASURES: dict[str, Measure] = {
    "effects": Measure(needs_nothing, effects.effects, ("effective_effects",), "sparsity"),
    "iw_bound": Measure(
        needs_encoder, importance.iw_bound, ("iw_bound", "iw_bound_row_std"), "bound"
    ),
    "probe_linear": Measure(needs_classes, probes.linear, ("probe_linear",)),
    "probe_sgd": Measure(needs_classes, probes.sgd, ("probe_sgd",)),
    "probe_mlp": Measure(needs_classes, probes.mlp, ("probe_mlp",)),
    "mig": Measure(needs_factors, factors.mig, ("mig",)),
    "dci": Measure(needs_factors, factors.dci, ("dci", "dci_completeness", "dci_informativeness")),
    "sap": Measure(needs_factors, factors.sap, ("sap",)),
}
for measure in MEASURES.values():
    declare(measure.group, *measure.figures)


def figure_names(names: Iterable[str]) -> list[str]:
    """Return the names of the metrics of some measures. A measure without an entry here has one
    metric.
    """
    figures: list[str] = []
    for name in names:
        figures += MEASURES[name].figures if name in MEASURES else [name]
    return figures


def measures_for(figure: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the measures that compute a metric."""
    return tuple(name for name in names if figure in figure_names([name]))


def refuse_impossible_measures(config: Config) -> None:
    """Refuse the first measure that a configuration cannot compute, or whose package is missing."""
    if recordings_of(config.data) is not None:
        refuse_missing("evaluating recordings", "librosa", "pystoi", "pandas")
    for name in config.eval.metrics:
        if name in MEASURES and (missing := MEASURES[name].missing(config)):
            raise Refusal(f"eval.metrics: {name} {missing}")
        if name in MEASURES and MEASURES[name].missing in (needs_classes, needs_factors):
            refuse_missing(f"eval.metrics: {name}", "sklearn")


def refuse_missing_labels(config: Config) -> None:
    """Refuse measures that need classes which the data lacks."""
    for name in config.eval.metrics:
        if name in MEASURES and MEASURES[name].missing is needs_classes:
            require_labels(config.data)


def measure_run(run: Run, split: str, progress: bool = False) -> tuple[Figures, list[str]]:
    """Return the metrics of a run's measures on a split, and notes on omitted metrics."""
    refuse_impossible_measures(run.config)
    subject = Subject(run, split)
    figures: Figures = {}
    for name in run.config.eval.metrics:
        if name in MEASURES:
            announce(f"measuring {name}", progress)
            figures |= MEASURES[name].measure(subject)
    return figures, subject.notes
