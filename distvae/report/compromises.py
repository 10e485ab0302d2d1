"""What trials are worth in two figures at once: those of a sweep alone, and against those of
another sweep.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distvae.files.refusal import Refusal, nearest
from distvae.report import drawing
from distvae.report.blocks import Block, Cell, Column, Drawing, Row, Table, Text
from distvae.report.drawing import Dot
from distvae.report.front import Point, front, hypervolume
from distvae.report.numbers import counted, listed, shown
from distvae.report.reading import Sweep, Trial

RANGES = {
    "pesq_wb": (1.0, 4.65),
    "pesq_nb": (1.0, 4.55),
    "stoi": (0.0, 1.0),
    "estoi": (0.0, 1.0),
    "hoyer": (0.0, 1.0),
    "hoyer_active": (0.0, 1.0),
}
"""The least and the most that a figure can be, or nearly: what its worth is counted from."""


@dataclass(frozen=True)
class Plane:
    """Two figures, and the sign that makes larger better in each."""

    names: tuple[str, str]
    signs: tuple[int, int]

    @classmethod
    def of(cls, sweep: Sweep) -> "Plane":
        """The two figures that a sweep is ranked by first."""
        (first, mode), (second, other) = list(sweep.metrics.items())[:2]
        return cls((first, second), (1 if mode == "max" else -1, 1 if other == "max" else -1))

    def turned(self, dots: Sequence[Dot]) -> list[Point]:
        """Where trials are, with larger the better."""
        return [(self.signs[0] * dot.at[0], self.signs[1] * dot.at[1]) for dot in dots]

    def natural(self, axis: int) -> bool:
        """Whether it is known how bad a figure can be."""
        return self.names[axis] in RANGES

    def reference(self, dots: Sequence[Dot]) -> Point:
        """What the worth of trials is counted from, turned: the worst there can be, else the worst
        of these.
        """
        worst = [min(along) for along in zip(*self.turned(dots), strict=True)]
        ends = [
            RANGES.get(name, ())[::sign] for name, sign in zip(self.names, self.signs, strict=True)
        ]
        first, second = (
            sign * end[0] if end else low
            for sign, end, low in zip(self.signs, ends, worst, strict=True)
        )
        return first, second

    def told(self, point: Point, why: Sequence[str] = ("", "")) -> str:
        """A turned point in words."""
        each = zip(self.names, self.signs, point, why, strict=True)
        return listed(
            [f"{name} {shown(sign * value)}{because}" for name, sign, value, because in each]
        )

    def dots(self, sweep: Sweep, group: str = "") -> list[Dot]:
        """The trials that have both figures, by kind of model or as one group."""
        return [
            self._dot(trial, group)
            for trial in sweep.finished
            if set(self.names) <= trial.result.figures.keys()
        ]

    def _dot(self, trial: Trial, group: str) -> Dot:
        kind = str(trial.result.values.get("model.kind", trial.result.group))
        first, second = (trial.result.figures[name] for name in self.names)
        return Dot(trial.result.number, (first, second), group or kind)

    def unbeaten(self, dots: Sequence[Dot]) -> list[Dot]:
        """The trials that no other of them beats."""
        best = set(front(self.turned(dots)))
        return [dot for dot, at in zip(dots, self.turned(dots), strict=True) if at in best]

    def beaten(self, dots: Sequence[Dot], by: Sequence[Dot]) -> int:
        """How many trials some other trial is better than in one figure and no worse in the
        other.
        """
        others = self.turned(by)
        return sum(
            any(o != at and o[0] >= at[0] and o[1] >= at[1] for o in others)
            for at in self.turned(dots)
        )


def compromises(sweep: Sweep) -> Iterator[Block]:
    """The trials of a sweep in two figures, and the area that they cover."""
    if len(sweep.metrics) < 2 or len(sweep.finished) < 2:
        return
    plane = Plane.of(sweep)
    dots = plane.dots(sweep)
    more = f" The table goes by all {len(sweep.metrics)} figures." if len(sweep.metrics) > 2 else ""
    caption = (
        "Each point is a trial, under its number. Those in bold are beaten by no other in the two;"
        f" the line bounds what they cover.{more}"
    )
    yield Drawing(
        drawing.svg(lambda: drawing.compromises(dots, plane.names, plane.signs), "front"), caption
    )
    yield Text(_covered(plane, dots))


def _covered(plane: Plane, dots: Sequence[Dot]) -> str:
    """The area that the trials cover, and from where it is counted."""
    reference = plane.reference(dots)
    area = hypervolume(plane.turned(dots), reference)
    same = plane.natural(0) and plane.natural(1)
    told = (
        "Other sweeps of the same data compare by it"
        if same
        else (
            "It compares only with what has the same reference; 'distvae report --against' finds"
            " one for two sweeps"
        )
    )
    at = plane.told(reference)
    return (
        f"They cover a hypervolume of {shown(area)} above the reference point {at}. {told}; more is"
        " better."
    )


def against(sweep: Sweep, other: Sweep) -> Iterator[Block]:
    """The fronts of two sweeps of the same data, from one reference point."""
    _refuse(sweep, other)
    plane, names = Plane.of(sweep), _names(sweep, other)
    sides = [plane.dots(each, name) for each, name in zip((sweep, other), names, strict=True)]
    fronts = [plane.unbeaten(dots) for dots in sides]
    reference = plane.reference([*fronts[0], *fronts[1]])
    areas = [hypervolume(plane.turned(dots), reference) for dots in fronts]
    beaten = [plane.beaten(fronts[0], fronts[1]), plane.beaten(fronts[1], fronts[0])]
    why = [
        " (as bad as can be)" if plane.natural(axis) else " (the worst on either front)"
        for axis in (0, 1)
    ]
    yield Text(_more(names, areas), strong=True)
    yield Text(
        f"Hypervolumes above the reference point {plane.told(reference, why)}; more is better."
    )
    columns = [
        Column("sweep"),
        *(Column(name, numeric=True) for name in ("trials", "on its front", "hypervolume")),
    ]
    rows = [
        Row(
            (
                Cell(name),
                _count(len(dots)),
                _count(len(best)),
                Cell(shown(area), area),
                _share(lost, len(best)),
            )
        )
        for name, dots, best, area, lost in zip(names, sides, fronts, areas, beaten, strict=True)
    ]
    yield Table([*columns, Column("of its front, beaten by the other's", numeric=True)], rows)
    caption = (
        "Both fronts: the line bounds what each covers. Numbers are those of trials; pale ones are"
        " not on a front."
    )
    drawn = [*sides[0], *sides[1]]
    yield Drawing(
        drawing.svg(lambda: drawing.fronts(drawn, plane.names, plane.signs), "against"), caption
    )
    yield from (Text(sentence) for sentence in _unlike(sweep, other, plane, names))


def _refuse(sweep: Sweep, other: Sweep) -> None:
    """Refuse what has no two figures in common, or was found on other data."""
    if len(sweep.metrics) < 2:
        raise Refusal(
            f"--against: {sweep.folder}: ranked by {next(iter(sweep.metrics))} alone; two figures"
            " expected"
        )
    plane = Plane.of(sweep)
    for each in (sweep, other):
        if not plane.dots(each):
            known = {name for trial in each.finished for name in trial.result.figures}
            lacking = [name for name in plane.names if name not in known] if known else []
            told = (
                f"its trials have no {lacking[0]}; {nearest(lacking[0], known)}"
                if lacking
                else "no trial has both"
            )
            raise Refusal(
                f"--against: {each.folder}: {listed(list(plane.names))} are compared, and {told}"
            )
    (ours, said), (theirs, there) = _data(sweep), _data(other)
    if ours != theirs:
        raise Refusal(
            f"--against: {other.folder}: found on other data ({there}) than {sweep.folder}"
            f" ({said}); a sweep on the same data expected"
        )
    judged, apart = (each.facts["config"].get("eval.latent") for each in (sweep, other))
    if judged != apart:
        raise Refusal(
            f"--against: {other.folder}: judged with eval.latent {apart}, not {judged}; the same"
            " expected"
        )


def _data(sweep: Sweep) -> tuple[str, str]:
    """The digest of the data that all trials saw, and what to call them."""
    found = {str(run.info["data_digest"]): str(run.info["data"]) for run in sweep.runs}
    if len(found) != 1:
        seen = (
            f"its trials saw several data sets: {listed(list(found.values()))}"
            if found
            else "no trial left its run"
        )
        raise Refusal(
            f"--against: {sweep.folder}: {seen}; trials whose run.json names one and the same"
            " digest expected"
        )
    ((digest, name),) = found.items()
    return digest, f"{name}, digest {digest[:12]}"


def _names(sweep: Sweep, other: Sweep) -> tuple[str, str]:
    first, second = str(sweep.facts["name"]), str(other.facts["name"])
    return (first, second) if first != second else (f"{first} (this one)", f"{second} (the other)")


def _more(names: Sequence[str], areas: Sequence[float]) -> str:
    """Which front covers more."""
    (large, most), (small, least) = sorted(zip(areas, names, strict=True), reverse=True)
    if large == small:
        return f"The fronts of {most} and {least} cover as much as each other: {shown(large)}."
    return (
        f"The front of {most} covers more than that of {least}: {shown(large)} against"
        f" {shown(small)}."
    )


def _count(number: int) -> Cell:
    return Cell(str(number), number)


def _share(part: int, whole: int) -> Cell:
    return Cell(f"{part} of {whole} ({part / whole:.0%})", part / whole)


def _unlike(sweep: Sweep, other: Sweep, plane: Plane, names: Sequence[str]) -> Iterator[str]:
    """What the two sweeps did differently that their fronts do not show."""
    if unsought := [name for name in plane.names if name not in other.metrics]:
        yield (
            f"{names[1]} was not ranked by {listed(unsought)}: its search did not seek what it is"
            " measured by here."
        )
    ours, theirs = sweep.facts["seeds"], other.facts["seeds"]
    if ours != theirs:
        yield (
            f"Points of {names[0]} are means over {counted(ours, 'run')}, of {names[1]} over"
            f" {counted(theirs, 'run')}: the fewer, the more chance flatters the best."
        )
