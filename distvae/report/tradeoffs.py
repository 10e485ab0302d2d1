"""Trade-offs between two figures of a sweep's trials."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distvae.numerics.numbers import listed, shown
from distvae.report import fronts
from distvae.report.blocks import Block, Drawing, Text
from distvae.report.drawing import svg
from distvae.report.exhibits import Exhibits
from distvae.report.fronts import Dot
from distvae.report.pareto import Point, front, hypervolume
from distvae.report.reading import Sweep, Trial
from distvae.tune.results import beats

RANGES = {
    "pesq_wb": (1.0, 4.65),
    "pesq_nb": (1.0, 4.55),
    "stoi": (0.0, 1.0),
    "estoi": (0.0, 1.0),
    "hoyer": (0.0, 1.0),
    "hoyer_active": (0.0, 1.0),
}
"""The smallest and the largest value of figures with a known range."""


@dataclass(frozen=True)
class Plane:
    """Two figures, with the signs that make larger better in each."""

    names: tuple[str, str]
    signs: tuple[int, int]

    @classmethod
    def of(cls, sweep: Sweep) -> "Plane":
        """Take the first two figures that rank a sweep."""
        (first, mode), (second, other_mode) = list(sweep.metrics.items())[:2]
        signs = (1 if mode == "max" else -1, 1 if other_mode == "max" else -1)
        return cls((first, second), signs)

    def points(self, dots: Sequence[Dot]) -> list[Point]:
        """Return the positions of trials, signed so that larger is better."""
        return [(self.signs[0] * dot.at[0], self.signs[1] * dot.at[1]) for dot in dots]

    def has_range(self, axis: int) -> bool:
        """Return whether the worst value of a figure is known."""
        return self.names[axis] in RANGES

    def reference(self, dots: Sequence[Dot]) -> Point:
        """Return the reference point of the hypervolume, signed.

        It is the worst possible value of each figure, or the worst of these trials if that is
        unknown.
        """
        first, second = (self._worst(axis, self.points(dots)) for axis in (0, 1))
        return first, second

    def _worst(self, axis: int, points: Sequence[Point]) -> float:
        if not self.has_range(axis):
            return min(point[axis] for point in points)
        smallest, largest = RANGES[self.names[axis]]
        return smallest if self.signs[axis] > 0 else -largest

    def describe(self, point: Point, notes: Sequence[str] = ("", "")) -> str:
        """Describe a signed point, with a note after each figure."""
        words = []
        for name, sign, value, note in zip(self.names, self.signs, point, notes, strict=True):
            words.append(f"{name} {shown(sign * value)}{note}")
        return listed(words)

    def dots(self, sweep: Sweep, group: str = "") -> list[Dot]:
        """Return the trials that have both figures, grouped by kind of model or as one group."""
        names = set(self.names)
        trials = [trial for trial in sweep.finished if names <= trial.result.figures.keys()]
        return [self._dot(trial, group) for trial in trials]

    def _dot(self, trial: Trial, group: str) -> Dot:
        kind = str(trial.result.values.get("model.kind", trial.result.group))
        first, second = (trial.result.figures[name] for name in self.names)
        return Dot(trial.result.number, (first, second), group or kind)

    def unbeaten(self, dots: Sequence[Dot]) -> list[Dot]:
        """Return the trials that no other beats."""
        points = self.points(dots)
        best = set(front(points))
        return [dot for dot, point in zip(dots, points, strict=True) if point in best]

    def count_beaten(self, dots: Sequence[Dot], by: Sequence[Dot]) -> int:
        """Count the trials that one of the others beats.

        A trial beats another if it is better in one figure and no worse in the other.
        """
        others = self.points(by)
        return sum(any(beats(other, point) for other in others) for point in self.points(dots))


def tradeoffs(sweep: Sweep, chosen: Exhibits) -> Iterator[Block]:
    """Draw the trials of a sweep in two figures, and give the hypervolume of their front."""
    if len(sweep.metrics) < 2 or len(sweep.finished) < 2:
        return
    plane = Plane.of(sweep)
    dots = plane.dots(sweep)
    caption = (
        "Each point is a trial, labelled by its number. No other trial beats those in bold; the "
        "line bounds the area that they cover."
    )
    if len(sweep.metrics) > 2:
        caption += f" The table ranks by all {len(sweep.metrics)} figures."
    targets = {dot.number: chosen[dot.number].anchor for dot in dots if dot.number in chosen}
    drawn = svg(lambda: fronts.draw_front(dots, plane.names, plane.signs, targets), "front")
    yield Drawing(drawn, caption, links=bool(targets))
    yield Text(_coverage(plane, dots))


def _coverage(plane: Plane, dots: Sequence[Dot]) -> str:
    """Give the hypervolume and its reference point."""
    reference = plane.reference(dots)
    area = hypervolume(plane.points(dots), reference)
    if plane.has_range(0) and plane.has_range(1):
        comparable = "It can be compared with other sweeps of the same data"
    else:
        comparable = (
            "It can be compared only with sweeps that have the same reference; 'distvae report "
            "--against' finds one for two sweeps"
        )
    return (
        f"They cover a hypervolume of {shown(area)} above the reference point "
        f"{plane.describe(reference)}. {comparable}; more is better."
    )
