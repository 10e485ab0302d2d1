"""Two sweeps of the same data, compared by the fronts of their trade-offs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distvae.files.refusal import Refusal, nearest
from distvae.numerics.numbers import counted, listed, shown
from distvae.report import fronts
from distvae.report.blocks import Block, Cell, Column, Drawing, Row, Table, Text
from distvae.report.drawing import svg
from distvae.report.fronts import Dot
from distvae.report.pareto import hypervolume
from distvae.report.reading import Sweep
from distvae.report.tradeoffs import Plane


@dataclass(frozen=True)
class Side:
    """One of two sweeps that are compared."""

    name: str
    dots: list[Dot]
    front: list[Dot]
    area: float
    """The hypervolume of its front."""
    beaten: int
    """The number of trials on its front that the other front beats."""

    def row(self) -> Row:
        """Return the line of the table on this sweep."""
        share = self.beaten / len(self.front)
        return Row(
            (
                Cell(self.name),
                Cell(str(len(self.dots)), len(self.dots)),
                Cell(str(len(self.front)), len(self.front)),
                Cell(shown(self.area), self.area),
                Cell(f"{self.beaten} of {len(self.front)} ({share:.0%})", share),
            )
        )


def against(sweep: Sweep, other: Sweep) -> Iterator[Block]:
    """Compare the fronts of two sweeps of the same data, from one reference point."""
    _refuse_incomparable(sweep, other)
    plane, names = Plane.of(sweep), _names(sweep, other)
    dots = [plane.dots(each, name) for each, name in zip((sweep, other), names, strict=True)]
    best = [plane.unbeaten(each) for each in dots]
    reference = plane.reference([*best[0], *best[1]])
    sides = []
    for side, rival in ((0, 1), (1, 0)):
        area = hypervolume(plane.points(best[side]), reference)
        beaten = plane.count_beaten(best[side], best[rival])
        sides.append(Side(names[side], dots[side], best[side], area, beaten))
    notes = []
    for axis in (0, 1):
        known = plane.has_range(axis)
        notes.append(" (the worst possible)" if known else " (the worst on either front)")
    yield Text(_larger(sides), strong=True)
    yield Text(
        f"Hypervolumes above the reference point {plane.describe(reference, notes)}; more is "
        "better."
    )
    numeric = ("trials", "on its front", "hypervolume", "of its front, beaten by the other's")
    columns = [Column("sweep"), *(Column(name, numeric=True) for name in numeric)]
    yield Table(columns, [side.row() for side in sides])
    drawn = svg(
        lambda: fronts.draw_fronts([*dots[0], *dots[1]], plane.names, plane.signs), "against"
    )
    yield Drawing(
        drawn,
        "Both fronts; the lines bound the areas that they cover. Numbers are those of trials. "
        "Pale trials are on neither front.",
    )
    yield from (Text(sentence) for sentence in _differences(sweep, other, plane, names))


def _refuse_incomparable(sweep: Sweep, other: Sweep) -> None:
    """Refuse sweeps without two common figures, and sweeps of different data."""
    if len(sweep.metrics) < 2:
        raise Refusal(
            f"--against: {sweep.folder}: ranked by {next(iter(sweep.metrics))} alone; two figures "
            "expected"
        )
    plane = Plane.of(sweep)
    for each in (sweep, other):
        if not plane.dots(each):
            raise Refusal(
                f"--against: {each.folder}: {listed(list(plane.names))} are compared, and "
                f"{_missing_figure(each, plane)}"
            )
    if sweep.split != other.split:
        raise Refusal(
            f"--against: {other.folder}: its figures are of the split {other.split}, those of "
            f"{sweep.folder} of {sweep.split}; one split expected"
        )
    (digest, data), (other_digest, other_data) = _data(sweep), _data(other)
    if digest != other_digest:
        raise Refusal(
            f"--against: {other.folder}: found on other data ({other_data}) than {sweep.folder} "
            f"({data}); a sweep on the same data expected"
        )
    for key in ("eval.latent", "eval.recordings"):
        own, others = (each.facts["config"].get(key) for each in (sweep, other))
        if own != others:
            raise Refusal(
                f"--against: {other.folder}: evaluated with {key} {others}, not {own}; the same"
                " value expected"
            )


def _missing_figure(sweep: Sweep, plane: Plane) -> str:
    known = {name for trial in sweep.finished for name in trial.result.figures}
    missing = [name for name in plane.names if name not in known]
    if known and missing:
        return f"its trials have no {missing[0]}; {nearest(missing[0], known)}"
    return "no trial has both"


def _data(sweep: Sweep) -> tuple[str, str]:
    """Return the digest of the data that all trials used, and its name."""
    by_digest = {str(run.info["data_digest"]): str(run.info["data"]) for run in sweep.runs}
    if len(by_digest) == 1:
        ((digest, name),) = by_digest.items()
        return digest, f"{name}, digest {digest[:12]}"
    problem = "it contains no run"
    if by_digest:
        problem = f"its trials used several data sets: {listed(list(by_digest.values()))}"
    raise Refusal(
        f"--against: {sweep.folder}: {problem}; trials whose run.json files name the same digest "
        "expected"
    )


def _names(sweep: Sweep, other: Sweep) -> tuple[str, str]:
    """Return names that tell two sweeps apart: those of their spaces, folders or paths."""
    first, second = (
        (str(each.facts["name"]), each.folder.absolute().name, str(each.folder.absolute()))
        for each in (sweep, other)
    )
    for pair in zip(first, second, strict=True):
        if pair[0] != pair[1]:
            return pair
    return f"{first[0]} (this one)", f"{second[0]} (the same one)"


def _larger(sides: Sequence[Side]) -> str:
    """Say which front covers the larger area."""
    small, large = sorted(sides, key=lambda side: side.area)
    if large.area == small.area:
        return (
            f"The fronts of {large.name} and {small.name} cover the same area: {shown(large.area)}."
        )
    return (
        f"The front of {large.name} covers more than that of {small.name}: {shown(large.area)} "
        f"against {shown(small.area)}."
    )


def _differences(sweep: Sweep, other: Sweep, plane: Plane, names: tuple[str, str]) -> Iterator[str]:
    """Mention differences between two sweeps that their fronts do not show."""
    not_ranked = [name for name in plane.names if name not in other.metrics]
    if not_ranked:
        yield f"{names[1]} was not ranked by {listed(not_ranked)}, so its search did not seek it."
    seeds, other_seeds = sweep.facts["seeds"], other.facts["seeds"]
    if seeds != other_seeds:
        yield (
            f"Points of {names[0]} are means over {counted(seeds, 'run')}, those of {names[1]} "
            f"over {counted(other_seeds, 'run')}. With fewer runs, the best owes more to chance."
        )
