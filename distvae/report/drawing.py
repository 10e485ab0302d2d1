"""Diagrams as SVG inside the page: their ink is the page's own, so that they read by day and by
night.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distvae.report.front import Point, front
from distvae.report.importance import Share
from distvae.tasks.pictures.canvas import GREY, PALETTE, leave_out_the_plunge, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox
    from matplotlib.typing import RcKeyType

INK, RULE, PAPER = "#010203", "#040506", "#070809"
"""Colours that stand for the page's until the drawing is put into it."""
THEMED = {
    INK: "currentColor",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    PALETTE[0].lower(): "var(--first)",
}
COLOURS = PALETTE[:6]  # black is no colour by night
MARKERS = "osD^vP"
POINTS = 200  # of a curve, at most: more cannot be told apart
PLACES = ((6, 4), (6, -10), (-6, 4), (-6, -10), (0, 8), (0, -14), (12, -3), (-12, -3))
"""Where a label may stand, in points from what it names."""
STYLE: "dict[RcKeyType, Any]" = {
    "svg.fonttype": "none",
    "svg.hashsalt": "distvae",
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
    "legend.frameon": False,
}


def svg(draw: "Callable[[], Figure]", name: str) -> str:
    """A figure as an element of the page; the name keeps what it defines apart from other
    drawings.
    """
    import matplotlib as mpl

    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(STYLE):
        draw().savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = (
        re.sub(
            r'\s(width|height|xmlns(:xlink)?|version)="[^"]*"', "", text[: (end := text.index(">"))]
        )
        + text[end:]
    )
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for stood, meant in THEMED.items():
        text = text.replace(stood, meant)
    return text.strip()


@dataclass(frozen=True)
class Dot:
    """A trial among others."""

    number: int
    at: Point
    group: str


def compromises(dots: Sequence[Dot], axes: Sequence[str], signs: Sequence[int]) -> "Figure":
    """Two figures of each trial, the second across; what no other beats in the two is the corner of
    a step.
    """
    figure, drawn = _plane(axes, signs)
    for (group, members), colour, marker in zip(
        _grouped(dots).items(), _cycle(COLOURS), _cycle(MARKERS), strict=False
    ):
        _scatter(drawn, members, color=colour, marker=marker, label=group)
    best = _steps(drawn, dots, signs, INK)
    _legend(figure, dots)
    _name(figure, drawn, [dot for dot in dots if len(dots) <= 60 or dot.at in best], best)
    return figure


def fronts(dots: Sequence[Dot], axes: Sequence[str], signs: Sequence[int]) -> "Figure":
    """The same of several sweeps, which are the groups: each has steps of its own, and what is no
    corner is pale.
    """
    figure, drawn = _plane(axes, signs)
    named: list[Dot] = []
    for (group, members), colour, marker in zip(
        _grouped(dots).items(), _cycle(COLOURS), _cycle(MARKERS), strict=False
    ):
        best = _steps(drawn, members, signs, colour)
        corners = [dot for dot in members if dot.at in best]
        _scatter(drawn, corners, color=colour, marker=marker, label=group)
        _scatter(
            drawn,
            [dot for dot in members if dot.at not in best],
            color=colour,
            marker=marker,
            alpha=0.3,
        )
        named += corners
    _legend(figure, dots)
    _name(figure, drawn, named, set())
    return figure


def _plane(axes: Sequence[str], signs: Sequence[int]) -> "tuple[Figure, Axes]":
    """Empty axes of two figures, the second across."""
    figure = new_figure(5.8, 4.1)
    drawn = figure.subplots()
    better = ["larger" if sign > 0 else "smaller" for sign in signs]
    drawn.set_xlabel(f"{axes[1]} ({better[1]} is better)", parse_math=False)
    drawn.set_ylabel(f"{axes[0]} ({better[0]} is better)", parse_math=False)
    drawn.grid(linewidth=0.6)
    drawn.set_axisbelow(True)
    drawn.margins(0.08)
    return figure, drawn


def _scatter(axes: "Axes", dots: Sequence[Dot], **how: Any) -> None:
    across, up = [dot.at[1] for dot in dots], [dot.at[0] for dot in dots]
    axes.scatter(across, up, s=46, edgecolors=PAPER, zorder=3, **how)


def _steps(axes: "Axes", dots: Sequence[Dot], signs: Sequence[int], colour: str) -> set[Point]:
    """Draw what bounds the area that trials cover; its corners, which are the trials that no other
    beats.
    """
    best = [
        (up * signs[0], across * signs[1])
        for up, across in front([_turned(dot, signs) for dot in dots])
    ]
    across, up = [at[1] for at in best], [at[0] for at in best]
    axes.plot(across, up, drawstyle="steps-pre", color=colour, linewidth=1, alpha=0.55, zorder=2)
    return set(best)


def _legend(figure: "Figure", dots: Sequence[Dot]) -> None:
    """The groups, as many side by side as there is room for."""
    groups = len(_grouped(dots))
    for columns in range(min(4, groups), 0, -1) if groups > 1 else ():
        legend = figure.legend(loc="outside upper center", ncols=columns, handletextpad=0.1)
        for text in legend.get_texts():
            text.set_parse_math(False)
        figure.draw_without_rendering()
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def _turned(dot: Dot, signs: Sequence[int]) -> Point:
    """Both figures with larger the better."""
    return dot.at[0] * signs[0], dot.at[1] * signs[1]


def _grouped(dots: Sequence[Dot]) -> dict[str, list[Dot]]:
    """Those of each group; all of them where there are more groups than can be told apart."""
    names = dict.fromkeys(dot.group for dot in dots)
    if len(names) > len(COLOURS):
        return {"": list(dots)}
    return {group: [dot for dot in dots if dot.group == group] for group in names}


def _cycle(things: Sequence[str]) -> list[str]:
    return list(things) * 50


def _name(figure: "Figure", axes: "Axes", dots: Sequence[Dot], best: set[Point]) -> None:
    """Write each trial's number where it covers as little as possible."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    scale = figure.dpi / 72
    where = {dot: axes.transData.transform((dot.at[1], dot.at[0])) for dot in dots}
    taken = [
        Bbox.from_bounds(x - 4 * scale, y - 4 * scale, 8 * scale, 8 * scale)
        for x, y in where.values()
    ]
    for dot in dots:
        x, y = where[dot]
        wide = 6.5 * scale * len(str(dot.number))
        boxes = [_label(x + dx * scale, y + dy * scale, dx, wide, 9 * scale) for dx, dy in PLACES]
        chosen = min(
            range(len(boxes)),
            key=lambda place: sum(_covered(boxes[place], other) for other in taken),
        )
        taken.append(boxes[chosen])
        dx, dy = PLACES[chosen]
        side = "left" if dx > 0 else "right" if dx < 0 else "center"
        weight = "bold" if dot.at in best else "normal"
        _beside(axes, str(dot.number), (dot.at[1], dot.at[0]), (dx, dy), ha=side, weight=weight)


def _beside(axes: "Axes", text: str, at: Point, offset: Point, **how: Any) -> None:
    """A small label so many points beside a place, also where that lies beyond the axes."""
    axes.annotate(
        text, at, offset, textcoords="offset points", annotation_clip=False, fontsize=9.5, **how
    )


def _label(x: float, y: float, side: float, wide: float, high: float) -> "Bbox":
    from matplotlib.transforms import Bbox

    left = x if side > 0 else x - wide if side < 0 else x - wide / 2
    return Bbox.from_bounds(left, y, wide, high)


def _covered(one: "Bbox", other: "Bbox") -> float:
    from matplotlib.transforms import Bbox

    common = Bbox.intersection(one, other)
    return float(common.width * common.height) if common else 0.0


Curves = Mapping[int, Sequence[tuple[Sequence[float], Sequence[float]]]]
"""By trial, one curve for each seed: epochs and values."""


def bounds(curves: Curves, unit: str, best: int | None) -> "Figure":
    """Validation bounds by epoch; the trial named stands out."""
    figure = new_figure(4.4, 3.0)
    axes = figure.subplots()
    for number, runs in curves.items():
        colour, width, above = (COLOURS[0], 1.8, 3) if number == best else (GREY, 1.0, 2)
        for epochs, values in runs:
            step = -(-len(epochs) // POINTS)
            axes.plot(epochs[::step], values[::step], color=colour, linewidth=width, zorder=above)
            if len(epochs) == 1:
                axes.plot(epochs, values, "o", markersize=3, color=colour)
    leave_out_the_plunge(axes, [values for runs in curves.values() for _, values in runs])
    axes.set(xlabel="epoch", ylabel=f"validation bound, nats per {unit}")
    axes.locator_params(axis="x", integer=True)
    axes.margins(x=0.02)
    _name_ends(figure, axes, curves, best)
    return figure


def _name_ends(figure: "Figure", axes: "Axes", curves: Curves, best: int | None) -> None:
    """Write each trial's number where its curve ends, in the order of the ends and apart from each
    other.
    """
    figure.draw_without_rendering()
    low, high = axes.get_ylim()
    ends = sorted((runs[0][1][-1], runs[0][0][-1], number) for number, runs in curves.items())
    named = ends if len(ends) <= 20 else [end for end in ends if end[2] == best]
    heights = apart([value for value, _, _ in named], (high - low) / 17)
    for (_, epoch, number), height in zip(named, heights, strict=True):
        weight = {"color": COLOURS[0], "weight": "bold"} if number == best else {}
        _beside(axes, str(number), (epoch, height), (4, 0), va="center", **weight)


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights moved as little as keeps them so far apart, in the sense of least squares."""
    blocks: list[tuple[float, int]] = []
    for place, height in enumerate(heights):
        blocks.append((height - place * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (low, few), (high, more) = blocks[-2:]
            blocks[-2:] = [((low * few + high * more) / (few + more), few + more)]
    level = [mean for mean, count in blocks for _ in range(count)]
    return [mean + place * gap for place, mean in enumerate(level)]


@dataclass(frozen=True)
class Usage:
    """How a trial uses its code."""

    label: str
    live: float
    dead: float
    effective: float | None


def usage(trials: Sequence[Usage]) -> "Figure":
    """Live and dead values of each trial's code as bars, and how many equal values a data point
    spreads over.
    """
    figure = new_figure(5.8, 1.1 + 0.25 * len(trials))
    axes = figure.subplots()
    rows = range(len(trials))
    live = [trial.live for trial in trials]
    axes.barh(rows, live, color=COLOURS[0], height=0.66, label="live")
    axes.barh(
        rows, [trial.dead for trial in trials], left=live, color=RULE, height=0.66, label="dead"
    )
    known = [
        (trial.effective, row) for row, trial in enumerate(trials) if trial.effective is not None
    ]
    if known:
        spread, places = zip(*known, strict=True)
        axes.plot(
            spread,
            places,
            "D",
            color=COLOURS[1],
            markeredgecolor=PAPER,
            markersize=7,
            label="effective",
        )
    axes.set_yticks(rows, [trial.label for trial in trials], parse_math=False)
    axes.set(xlabel="values of the code", ylim=(len(trials) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def parts(shares: Sequence[Share]) -> "Figure":
    """The part of each parameter as a bar, with the span of what other draws of the trials give."""
    figure = new_figure(4.4, 0.8 + 0.3 * len(shares))
    axes = figure.subplots()
    rows = range(len(shares))
    axes.barh(rows, [share.mean for share in shares], color=COLOURS[0], height=0.6)
    axes.hlines(
        rows,
        [share.low for share in shares],
        [share.high for share in shares],
        color=INK,
        linewidth=1.4,
    )
    axes.set_yticks(rows, [share.name for share in shares], parse_math=False)
    axes.set(xlabel="share of the variance", xlim=(0, 1), ylim=(len(shares) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    return figure


def course(values: Sequence[tuple[float, float]]) -> "Figure":
    """One figure by epoch."""
    figure = new_figure(4.4, 2.6)
    axes = figure.subplots()
    epochs, heights = zip(*values, strict=True)
    axes.plot(
        epochs,
        heights,
        color=COLOURS[0],
        linewidth=1.8,
        marker="o" if len(epochs) < 12 else "",
        markersize=4,
    )
    axes.set(xlabel="epoch")
    axes.locator_params(axis="x", integer=True)
    return figure
