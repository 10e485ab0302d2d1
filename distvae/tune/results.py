"""The findings of a sweep: a result per trial, the ranking, and its files, tables and summary."""

import csv
import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from distvae.config.recipes import describe
from distvae.files.paths import atomic_file
from distvae.files.untrusted import Plain, markdown_table
from distvae.numerics.metrics import brief
from distvae.tasks import pictures
from distvae.tasks.pictures import GREY, PALETTE
from distvae.train.progress import format_duration
from distvae.tune.space import Directions, Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from distvae.train.run_folder import Lineage

Left = Literal["trials", "pictures", "nothing"]
"""What a resumed sweep would do: train trials, or only draw pictures of its report."""
BASELINE: Literal["baseline"] = "baseline"
"""The state of a baseline, which is shown among the trials and was not trained."""
DIRECTIONS = {"max": "larger is better", "min": "smaller is better"}
MAX_TRIALS = 16
"""The largest number of trials that a report shows, so that it can be mailed.

A trial of speech adds 0.13 MB of sound at most, and one with pictures 0.3 MB more.
"""
MAX_NUMBERED = 30
"""With more trials, a diagram numbers the trials on the front alone."""
COLUMNS = ("number", "state", "unbeaten", "epoch", "seconds", "node", "cause")
LINEAGE = ("parent", "parent_epoch")
"""Columns of a population in results.csv."""
SPARSITY_COLUMNS = ("effective_atoms", "live_atoms")
"""Figures that the ranking shows even if trials are not ranked by them."""
WIDTH = 200
"""Characters of the ranking, so that no figure is cut off; a narrow terminal wraps it."""
STOPPED = "stopped; the same command with --resume continues"
LAST_WORDS: Mapping[Left, str] = {
    "trials": STOPPED,
    "pictures": (
        "stopped; all trials have ended, and the same command with --resume draws the pictures of"
        " the report that are missing"
    ),
    "nothing": "stopped; all trials have ended, and nothing is missing",
}
"""The last line of a sweep that was asked to stop, by the work that a resume would do."""
ORIGIN = "continues"
"""The heading of the column that says which trial a trial continues."""
TEXT_COLUMNS = ("what varies", ORIGIN, "state", "")


class EndedEpoch(NamedTuple):
    """An epoch of a trial that has ended."""

    epoch: int
    bound: float
    """The bound on validation data, in nats per data point."""
    seed: int = 0
    """The index of the seed that was trained, from 0."""


@dataclass
class Result:
    """One trial or baseline: its settings, its progress and its figures."""

    number: int
    """Counted from one; 0 for a baseline."""
    values: dict[str, Plain]
    """The varied settings, by dotted key."""
    state: Literal["training", "finished", "failed", "stopped", "halted", "baseline"] = "training"
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
    """Whether it is on the Pareto front: no trial is better in a figure and no worse in any."""

    parent: int | None = None
    """The trial of a population that it continues from."""
    parent_epoch: int = 0
    """The epoch of the parent from which it continues."""

    @property
    def name(self) -> str:
        """The number of a trial, or the name of a baseline."""
        return str(self.number or self.values["model.kind"])

    def label(self, constant: Collection[str]) -> str:
        """Return the varied settings in a few words, without those that are constant."""
        return describe(self._varied(constant))

    def group(self, constant: Collection[str]) -> str:
        """Return the settings that are words. Trials of a group differ in numbers only."""
        varied = self._varied(constant).values()
        return " ".join(value for value in varied if isinstance(value, str)) or "all"

    def _varied(self, constant: Collection[str]) -> dict[str, Plain]:
        return {key: value for key, value in self.values.items() if key not in constant}

    @classmethod
    def of(
        cls, number: int, values: Mapping[str, Plain], lineage: "Lineage | None" = None
    ) -> "Result":
        """Return the result of a trial that starts from scratch, or that continues another."""
        result = cls(number, dict(values))
        if lineage is not None:
            result.parent, result.parent_epoch = lineage["parent"], lineage["epoch"]
        return result

    @property
    def origin(self) -> str:
        """The trial and epoch that it continues, in words; '' for a trial from scratch."""
        return "" if self.parent is None else f"trial {self.parent} at epoch {self.parent_epoch}"


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
    constant: Collection[str] = ()
    """The varied keys that have a single value, which labels leave out."""
    baselines: Sequence[Result] = ()

    @property
    def finished(self) -> list[Result]:
        """The trials that finished, the best in the first figure first."""
        return [result for result in self.results if result.state == "finished"]

    @property
    def exit_code(self) -> int:
        """0 if a trial finished, 1 if none did, above 128 if the sweep was asked to stop."""
        if self.signal:
            return 128 + self.signal
        if any(result.state == "stopped" for result in self.results):
            return 130
        return 0 if self.finished else 1

    @property
    def interrupted(self) -> bool:
        """True if the sweep was asked to stop, and can be resumed."""
        return self.exit_code > 128


def rank(results: Sequence[Result], metrics: Directions) -> list[Result]:
    """Return the trials, the best in the first figure first, and mark the Pareto front.

    Trials that did not finish come last.
    """
    finished = [result for result in results if result.state == "finished"]
    scores = {result.number: score_of(result, metrics) for result in finished}
    for result in finished:
        score = scores[result.number]
        result.unbeaten = not any(beats(other, score) for other in scores.values())
    rest = [result for result in results if result.state != "finished"]
    return [*sorted(finished, key=lambda result: scores[result.number], reverse=True), *rest]


def best(results: Sequence[Result], name: str, direction: Literal["max", "min"]) -> Result:
    """Return the first result with the best value of a figure."""
    return (max if direction == "max" else min)(results, key=lambda each: each.figures[name])


def score_of(result: Result, metrics: Directions) -> tuple[float, ...]:
    """Return the figures by which trials are ranked, with such signs that larger is better."""
    signs = {"max": 1, "min": -1}
    return tuple(signs[mode] * result.figures[name] for name, mode in metrics.items())


def with_baselines(
    finished: Sequence[Result], baselines: Sequence[Result], metrics: Directions
) -> list[Result]:
    """Return ranked trials with the baselines that have the first figure at their places."""
    first = dict([next(iter(metrics.items()))])
    known = [result for result in baselines if first.keys() <= result.figures.keys()]
    return sorted([*finished, *known], key=lambda each: score_of(each, first), reverse=True)


def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Return whether `one` is better in some figure and worse in none; larger is better."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def shown_in_report(ranked: Sequence[Result]) -> list[Result]:
    """Return all finished trials if they are few, otherwise the Pareto front and the worst."""
    finished = [result for result in ranked if result.state == "finished"]
    if len(finished) <= MAX_TRIALS:
        return finished
    return [result for result in finished if result.unbeaten or result is finished[-1]]


def write_findings(findings: Findings) -> list[Path]:
    """Write results.json, results.csv and, if two figures rank trials, tradeoff.png.

    Return the files written.
    """
    content = {
        "metrics": dict(findings.metrics),
        "trials": [asdict(result) for result in findings.results],
        "baselines": [{**each.values, **each.figures} for each in findings.baselines],
    }
    with atomic_file(findings.folder / "results.json") as path:
        path.write_text(json.dumps(content, indent=1) + "\n")
    branched = any(result.parent is not None for result in findings.results)
    rows = []
    for result in (*findings.results, *findings.baselines):
        row = {name: getattr(result, name) for name in COLUMNS + LINEAGE * branched}
        row["number"] = result.number or ""
        others = result.values | result.figures
        others.pop("seconds", None)  # of the recordings; the row has those of the training
        rows.append(row | others)
    columns = dict.fromkeys(name for row in rows for name in row)
    with atomic_file(findings.folder / "results.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)
    if findings.finished and len(findings.metrics) > 1:
        front = draw_front(
            findings.finished, findings.metrics, findings.constant, findings.baselines
        )
        pictures.save(front, findings.folder / "tradeoff.png")
    return sorted([*findings.folder.glob("results.*"), *findings.folder.glob("tradeoff.png")])


def draw_front(
    ranked: Sequence[Result],
    metrics: Directions,
    constant: Collection[str] = (),
    baselines: Sequence[Result] = (),
) -> "Figure":
    """Draw finished trials in the first two figures that rank them, with a line along their front.

    The numbers of trials on the front are bold. Baselines have their names.
    """
    up, across = list(metrics)[:2]

    def place(result: Result) -> tuple[float, float]:
        return result.figures[across], result.figures[up]

    groups = {result.group(constant) for result in ranked}
    rows: list[dict[str, float | str]] = []
    for result in ranked:
        group = result.group(constant) if len(groups) < len(PALETTE) else "trials"
        rows.append({**result.figures, "model": group})
    known = [result for result in baselines if {up, across} <= result.figures.keys()]
    rows += [{**result.figures, "model": BASELINE} for result in known]
    figure = pictures.tradeoff(rows, across, up, "model")
    axes = figure.axes[0]
    front = [result for result in ranked if result.unbeaten]
    if len(metrics) == 2:
        axes.plot(
            *zip(*map(place, front), strict=True), color=GREY, drawstyle="steps-pre", zorder=0
        )
    rest = [result for result in ranked if not result.unbeaten]
    numbered = [*front, *(rest if len(ranked) <= MAX_NUMBERED else ())]
    labels = [(*place(result), str(result.number), result.unbeaten) for result in numbered]
    labels += [(*place(result), result.name, False) for result in known]
    pictures.label_points(axes, labels)
    return figure


def describe_findings(space: Space, ranked: Sequence[Result]) -> str:
    """Return the question of a sweep, its best trials and its Pareto front, in Markdown."""
    finished = [result for result in ranked if result.state == "finished"]
    lines = [space.about.strip(), "", f"{len(finished)} of {len(ranked)} trials finished.", ""]
    for name, direction in space.metrics.items() if finished else ():
        first = best(finished, name, direction)
        figure = f"{name} ({DIRECTIONS[direction]}): {brief(first.figures[name])}"
        lines.append(f"- Best {figure}, trial {first.number}, {first.label(space.constant)}")
    rows = []
    for result in finished:
        if result.unbeaten:
            figures = [brief(result.figures[name]) for name in space.metrics]
            rows.append([str(result.number), result.label(space.constant), *figures])
    if rows and len(space.metrics) > 1:
        table = markdown_table(["trial", "settings", *space.metrics], rows)
        lines += ["", "The front, which no other trial beats:", "", *table]
    return "\n".join(lines).strip()


def print_findings(findings: Findings) -> None:
    """Print the ranking, the trials that did not finish, and where to look further."""
    from rich.console import Console

    if findings.finished:
        console = Console(width=WIDTH, markup=False, emoji=False)
        console.print(ranking_table(findings))
        print(
            "* no other trial is better in one of the figures it is ranked by and no worse in the"
            " others"
        )
    for result in findings.results:
        if result.state != "finished":
            cause = f": {result.cause}" if result.cause else ""
            print(f"trial {result.number} {result.state}: {result.label(findings.constant)}{cause}")
    if findings.interrupted:
        print(LAST_WORDS[findings.left])
    print(f"\nfolder:    {findings.folder}\nin MLflow: {findings.look}")


def progress_table(results: Iterable[Result], space: Space) -> "Table":
    """Return a table of the trials of a running sweep."""
    metrics = list(space.metrics)
    table = _empty_table(["trial", "what varies", "epoch", "bound", *metrics, "time", "state"])
    for result in sorted(results, key=lambda result: result.number):
        epochs = space.epochs(result.values)
        training_done = result.state == "training" and result.epoch == epochs
        state = "evaluating" if training_done else result.state
        table.add_row(
            f"{result.number}/{space.count}",
            result.label(space.constant),
            f"{result.epoch}/{epochs}",
            "" if result.bound is None else f"{result.bound:.1f}",
            *_figures(result, metrics),
            format_duration(result.seconds),
            result.cause or state,
        )
    return table


def ranking_table(findings: Findings) -> "Table":
    """Return a table of the finished trials, the best first, and of the baselines."""
    finished = findings.finished
    sparsity = [name for name in SPARSITY_COLUMNS if name in finished[0].figures]
    columns = list(dict.fromkeys([*findings.metrics, *sparsity]))
    origin = [ORIGIN] * any(result.origin for result in finished)
    table = _empty_table(["trial", "what varies", *origin, *columns, "time", ""])
    for result in with_baselines(finished, findings.baselines, findings.metrics):
        table.add_row(
            result.name,
            result.label(findings.constant) if result.number else BASELINE,
            *[result.origin for _ in origin],
            *_figures(result, columns),
            format_duration(result.seconds) if result.seconds else "",
            "*" if result.unbeaten else "",
        )
    return table


def html_table(table: "Table") -> str:
    """Return a table as HTML, as a terminal would show it."""
    from rich.console import Console

    console = Console(
        width=WIDTH,
        record=True,
        file=io.StringIO(),
        force_jupyter=False,
        markup=False,
        emoji=False,
    )
    console.print(table)
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def _empty_table(columns: Iterable[str]) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in columns:
        is_text = name in TEXT_COLUMNS
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    return table


def _figures(result: Result, names: Iterable[str]) -> list[str]:
    return [brief(result.figures[name]) if name in result.figures else "" for name in names]
