"""The findings of a sweep: a result per trial, the ranking, and the files that record them."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from distvae.config.recipes import describe
from distvae.files.output import atomic_file
from distvae.files.plain import Plain
from distvae.tasks import pictures
from distvae.tasks.pictures.canvas import GREY, PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from distvae.train.documents import Lineage

Directions = Mapping[str, Literal["max", "min"]]
"""The figures that trials are ranked by, and which direction is better."""

Left = Literal["trials", "pictures", "nothing"]
"""What a sweep would do if it were resumed: train trials, or only draw pictures of its report."""
MAX_NUMBERED = 30
"""Of more trials, a diagram numbers those on the front alone."""
REPORT_SECONDS = 0.3
"""Epochs of this time are reported together, because each report takes some milliseconds."""


class EndedEpoch(NamedTuple):
    """An epoch of a trial that has ended."""

    epoch: int
    bound: float
    """The bound on validation data, in nats per data point."""
    seed: int = 0
    """Which of the trial's seeds was trained, from 0."""


@dataclass
class Result:
    """One trial: what it tried, how far it came, and its figures."""

    number: int
    values: dict[str, Plain]
    """The varied settings, by dotted key."""
    state: Literal["training", "finished", "failed", "stopped", "halted"] = "training"
    epoch: int = 0
    """Epochs finished so far, of the seed that is trained."""
    bound: float | None = None
    """The bound on validation data after the last epoch."""
    figures: dict[str, float] = field(default_factory=dict)
    """The evaluation of the best weights, on validation data."""
    seconds: float = 0.0
    cause: str = ""
    """Why the trial failed or was halted."""
    node: str = ""
    """The machine of Ray that its process ran on."""
    unbeaten: bool = False
    """Whether no other trial is better in one figure and no worse in the others."""

    parent: int | None = None
    """The trial of a population that it continues from."""
    parent_epoch: int = 0
    """The epoch of that trial after which it does."""

    @property
    def label(self) -> str:
        """The varied settings in a few words."""
        return describe(self.values)

    @classmethod
    def of(
        cls, number: int, values: Mapping[str, Plain], lineage: "Lineage | None" = None
    ) -> "Result":
        """Return the result of a trial that begins anew, or that continues another."""
        if lineage is None:
            return cls(number, dict(values))
        parent, epoch = lineage["parent"], lineage["epoch"]
        return cls(number, dict(values), parent=parent, parent_epoch=epoch)

    @property
    def origin(self) -> str:
        """The trial and epoch that it continues, in words; empty for a trial that began anew."""
        return "" if self.parent is None else f"trial {self.parent} at epoch {self.parent_epoch}"

    @property
    def group(self) -> str:
        """The settings that are words, which trials that differ in numbers only have in common."""
        words = [value for value in self.values.values() if isinstance(value, str)]
        return " ".join(words) or "all"


@dataclass(frozen=True)
class Findings:
    """The results of a sweep, ranked."""

    folder: Path
    metrics: Directions
    results: list[Result]
    """All trials, the best in the first figure first."""
    look: str
    """How to look at the sweep in MLflow."""
    signal: int = 0
    """The signal that asked the sweep to stop, or 0."""
    left: Left = "trials"

    @property
    def states(self) -> set[str]:
        """The states of the trials."""
        return {result.state for result in self.results}

    @property
    def interrupted(self) -> bool:
        """True if the sweep was asked to stop, and can be resumed."""
        return bool(self.signal) or "stopped" in self.states

    @property
    def exit_code(self) -> int:
        """0 if a trial finished, 1 if none did, above 128 if the sweep was asked to stop."""
        if self.signal:
            return 128 + self.signal
        if "stopped" in self.states:
            return 130
        return 0 if "finished" in self.states else 1


def rank(results: Sequence[Result], metrics: Directions) -> list[Result]:
    """Return the trials, the best in the first figure first, and mark those that none beats.

    Trials that did not finish come last.
    """
    finished = [result for result in results if result.state == "finished"]
    scores = {result.number: _score(result, metrics) for result in finished}
    for result in finished:
        score = scores[result.number]
        result.unbeaten = not any(beats(other, score) for other in scores.values())
    rest = [result for result in results if result.state != "finished"]
    return [*sorted(finished, key=lambda result: scores[result.number], reverse=True), *rest]


def _score(result: Result, metrics: Directions) -> tuple[float, ...]:
    """Return the figures that a trial is ranked by, the larger the better."""
    signs = {"max": 1, "min": -1}
    return tuple(signs[direction] * result.figures[name] for name, direction in metrics.items())


def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Return whether one is better in some figure and worse in none; larger is better."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def write_findings(findings: Findings) -> list[Path]:
    """Write results.json, results.csv and, if there are two figures to compare, tradeoff.png.

    Return the files written.
    """
    content = {
        "metrics": dict(findings.metrics),
        "trials": [asdict(result) for result in findings.results],
    }
    with atomic_file(findings.folder / "results.json") as path:
        path.write_text(json.dumps(content, indent=1) + "\n")
    branched = any(result.parent is not None for result in findings.results)
    names = COLUMNS + LINEAGE * branched
    rows = [_row(result, names) for result in findings.results]
    columns = dict.fromkeys(name for row in rows for name in row)
    with atomic_file(findings.folder / "results.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)
    _draw_tradeoff(findings)
    return sorted([*findings.folder.glob("results.*"), *findings.folder.glob("tradeoff.png")])


COLUMNS = ("number", "state", "unbeaten", "epoch", "seconds", "node", "cause")
LINEAGE = ("parent", "parent_epoch")
"""Columns of a population."""


def _row(result: Result, names: Sequence[str]) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(result, name) for name in names}
    return row | result.values | result.figures


def _draw_tradeoff(findings: Findings) -> None:
    finished = [result for result in findings.results if result.state == "finished"]
    if finished and len(findings.metrics) > 1:
        pictures.save(draw_front(finished, findings.metrics), findings.folder / "tradeoff.png")


def draw_front(ranked: Sequence[Result], metrics: Directions) -> "Figure":
    """Draw finished trials in the first two figures that rank them, with a line along their front.

    The numbers of trials that no other beats are bold.
    """
    up, across = list(metrics)[:2]
    groups = {result.group for result in ranked}
    rows: list[dict[str, float | str]] = []
    for result in ranked:
        group = result.group if len(groups) <= len(PALETTE) else "all"
        rows.append({**result.figures, "model": group})
    figure = pictures.tradeoff(rows, across, up, "model")
    axes = figure.axes[0]
    front = [result for result in ranked if result.unbeaten]
    if len(metrics) == 2:
        path = [[result.figures[name] for result in front] for name in (across, up)]
        axes.plot(*path, color=GREY, drawstyle="steps-pre", zorder=0)
    for result in ranked if len(ranked) <= MAX_NUMBERED else front:
        at = (result.figures[across], result.figures[up])
        weight = "bold" if result.unbeaten else "normal"
        text = str(result.number)
        axes.annotate(text, at, (6, 4), textcoords="offset points", fontweight=weight)
    return figure
