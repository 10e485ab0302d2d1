"""What a sweep found: a result per trial, which of them no other beats, and the files that say
so.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from distvae.config.recipes import describe
from distvae.files.output import atomic_file
from distvae.tasks import pictures

Directions = Mapping[str, Literal["max", "min"]]


@dataclass
class Result:
    """One trial: what it tried, how far it came, and what it is worth."""

    number: int
    values: dict[str, Any]
    """What varied, by dotted key."""
    state: Literal["training", "finished", "failed", "stopped", "halted"] = "training"
    epoch: int = 0
    bound: float | None = None
    """Of the last epoch on validation data."""
    figures: dict[str, float] = field(default_factory=dict)
    """What judging said of the best weights, on validation data."""
    seconds: float = 0.0
    cause: str = ""
    """Why it failed."""
    node: str = ""
    """The machine of Ray that its process ran on."""
    unbeaten: bool = False
    """Whether no other trial is better in one figure and no worse in the others."""

    @property
    def label(self) -> str:
        """What varied, in a few words."""
        return describe(self.values)

    @property
    def group(self) -> str:
        """What it shares with the trials that differ from it in numbers only."""
        return " ".join(value for value in self.values.values() if isinstance(value, str)) or "all"


@dataclass(frozen=True)
class Findings:
    """What a sweep found."""

    folder: Path
    metrics: Directions
    """What trials were ranked by."""
    results: list[Result]
    """Every trial, the best in the first figure first."""
    look: str
    """How to look at it in MLflow."""
    signal: int = 0
    """That asked the sweep to stop."""

    @property
    def states(self) -> set[str]:
        """How trials ended."""
        return {result.state for result in self.results}

    @property
    def cut_short(self) -> bool:
        """Whether it was asked to stop, and can go on."""
        return bool(self.signal) or "stopped" in self.states

    @property
    def exit_code(self) -> int:
        """Nothing wrong, nothing finished, or asked to stop."""
        if self.signal:
            return 128 + self.signal
        return 130 if "stopped" in self.states else 0 if "finished" in self.states else 1


def rank(results: Sequence[Result], metrics: Directions) -> list[Result]:
    """The best in the first figure first, then what did not finish; those that no other beats are
    marked.
    """
    finished = [result for result in results if result.state == "finished"]
    scores = {result.number: _score(result, metrics) for result in finished}
    for result in finished:
        result.unbeaten = not any(_beats(other, scores[result.number]) for other in scores.values())
    rest = [result for result in results if result.state != "finished"]
    return [*sorted(finished, key=lambda result: scores[result.number], reverse=True), *rest]


def _score(result: Result, metrics: Directions) -> tuple[float, ...]:
    return tuple(
        result.figures[name] * (1 if direction == "max" else -1)
        for name, direction in metrics.items()
    )


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def write_findings(findings: Findings) -> list[Path]:
    """Write results.json, results.csv and, where there are two figures to compare, tradeoff.png;
    what was written.
    """
    listed = {
        "metrics": dict(findings.metrics),
        "trials": [asdict(result) for result in findings.results],
    }
    with atomic_file(findings.folder / "results.json") as path:
        path.write_text(json.dumps(listed, indent=1) + "\n")
    rows = [_row(result) for result in findings.results]
    with atomic_file(findings.folder / "results.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    _draw(findings)
    return sorted([*findings.folder.glob("results.*"), *findings.folder.glob("tradeoff.png")])


def _row(result: Result) -> dict[str, Any]:
    told = {
        name: getattr(result, name)
        for name in ("number", "state", "unbeaten", "epoch", "seconds", "node", "cause")
    }
    return told | result.values | result.figures


def _draw(findings: Findings) -> None:
    finished = [result for result in findings.results if result.state == "finished"]
    if finished and len(findings.metrics) > 1:
        quality, sparsity = list(findings.metrics)[:2]
        rows = [{**result.figures, "model": result.group} for result in finished]
        pictures.save(
            pictures.tradeoff(rows, sparsity, quality, "model"), findings.folder / "tradeoff.png"
        )
