"""Measures of a trained model on a split: what `eval.metrics` may name beside the measures of
recordings.

Here stands which there are, what each needs, and what it gives; docs/measures.md says where each
comes from.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from distvae.config import Config
from distvae.files.refusal import Refusal
from distvae.tasks.measures import effects, factors, importance, probes
from distvae.tasks.measures.needs import anything, classes, draws, known_factors
from distvae.tasks.measures.subject import Subject, require_labels
from distvae.train.run import Run

Figures = dict[str, float]


class Measure(NamedTuple):
    """One entry of `eval.metrics`."""

    lack: Callable[[Config], str]
    """What it needs that a configuration does not give, and what would; nothing if it can be
    measured.
    """
    measure: Callable[[Subject], Figures]
    figures: tuple[str, ...]
    """The names of what it gives."""


MEASURES: dict[str, Measure] = {
    "effects": Measure(anything, effects.effects, ("effective_effects",)),
    "iw_bound": Measure(draws, importance.iw_bound, ("iw_bound", "iw_bound_row_std")),
    "probe_linear": Measure(classes, probes.linear, ("probe_linear",)),
    "probe_sgd": Measure(classes, probes.sgd, ("probe_sgd",)),
    "probe_mlp": Measure(classes, probes.mlp, ("probe_mlp",)),
    "mig": Measure(known_factors, factors.mig, ("mig",)),
    "dci": Measure(known_factors, factors.dci, ("dci", "dci_completeness", "dci_informativeness")),
    "sap": Measure(known_factors, factors.sap, ("sap",)),
}


def figure_names(names: Iterable[str]) -> list[str]:
    """What the measures among these names give, and every other name as it is."""
    return [
        figure
        for name in names
        for figure in (MEASURES[name].figures if name in MEASURES else (name,))
    ]


def refuse_impossible_measures(config: Config) -> None:
    """Refuse the first measure that a configuration can never give."""
    for name in config.eval.metrics:
        if name in MEASURES and (lack := MEASURES[name].lack(config)):
            raise Refusal(f"eval.metrics: {name} {lack}")


def refuse_missing_labels(config: Config) -> None:
    """Refuse the first measure that needs classes where the data, though of a kind that may have
    them, has none.
    """
    refuse_impossible_measures(config)
    if any(name in MEASURES and MEASURES[name].lack is classes for name in config.eval.metrics):
        require_labels(config.data)


def measure_run(run: Run, split: str) -> tuple[Figures, list[str]]:
    """What the measures that a run's configuration asks for say of a split, and notes on what they
    left out.
    """
    refuse_impossible_measures(run.config)
    subject, found = Subject(run, split), Figures()
    for name in run.config.eval.metrics:
        if name in MEASURES:
            found |= MEASURES[name].measure(subject)
    return found, subject.notes
