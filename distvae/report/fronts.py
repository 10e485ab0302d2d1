"""Diagrams of trials in two figures, with their Pareto fronts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distvae.report.drawing import COLOURS, INK, PAPER, annotate
from distvae.report.pareto import Point, front
from distvae.tasks.pictures.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

MARKERS = "osD^vP"
MAX_LABELS = 60
"""With more trials than this, only those on the front are labelled."""
OFFSETS = ((6, 4), (6, -10), (-6, 4), (-6, -10), (0, 8), (0, -14), (12, -3), (-12, -3))
"""Candidate offsets of a label from its point, in points."""


@dataclass(frozen=True)
class Dot:
    """A trial in a diagram."""

    number: int
    at: Point
    group: str


@dataclass(frozen=True)
class Style:
    """The colour and marker of a group."""

    colour: str
    marker: str


def draw_front(
    dots: Sequence[Dot],
    names: Sequence[str],
    signs: Sequence[int],
    targets: Mapping[int, str] | None = None,
) -> "Figure":
    """Draw two figures of each trial, the second across, with the front as a staircase.

    Trials with a target are links to it.
    """
    figure, axes = _plane(names, signs)
    for group, members, style in _styled_groups(dots):
        _scatter(axes, members, style, group)
    best = _draw_staircase(axes, dots, signs, INK)
    _add_legend(figure, dots)
    labelled = [dot for dot in dots if len(dots) <= MAX_LABELS or dot.at in best]
    _label_dots(figure, axes, labelled, best)
    _add_links(axes, dots, targets or {})
    return figure


def draw_fronts(dots: Sequence[Dot], names: Sequence[str], signs: Sequence[int]) -> "Figure":
    """Draw the trials of several sweeps, one group each, with a front each.

    Trials that are not on their sweep's front are pale.
    """
    figure, axes = _plane(names, signs)
    labelled: list[Dot] = []
    for group, members, style in _styled_groups(dots):
        best = _draw_staircase(axes, members, signs, style.colour)
        corners = [dot for dot in members if dot.at in best]
        others = [dot for dot in members if dot.at not in best]
        _scatter(axes, corners, style, group)
        _scatter(axes, others, style, alpha=0.3)
        labelled += corners
    _add_legend(figure, dots)
    _label_dots(figure, axes, labelled, set())
    return figure


def _plane(names: Sequence[str], signs: Sequence[int]) -> "tuple[Figure, Axes]":
    """Return empty axes of two figures, the second across."""
    figure = new_figure(5.8, 4.1)
    axes = figure.subplots()
    better = ["larger" if sign > 0 else "smaller" for sign in signs]
    axes.set_xlabel(f"{names[1]} ({better[1]} is better)", parse_math=False)
    axes.set_ylabel(f"{names[0]} ({better[0]} is better)", parse_math=False)
    axes.grid(linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.08)
    return figure, axes


def _groups(dots: Sequence[Dot]) -> dict[str, list[Dot]]:
    """Return the trials of each group; one group if there are more than colours."""
    names = dict.fromkeys(dot.group for dot in dots)
    if len(names) > len(COLOURS):
        return {"": list(dots)}
    return {name: [dot for dot in dots if dot.group == name] for name in names}


def _styled_groups(dots: Sequence[Dot]) -> Iterator[tuple[str, list[Dot], Style]]:
    for order, (group, members) in enumerate(_groups(dots).items()):
        colour = COLOURS[order % len(COLOURS)]
        yield group, members, Style(colour, MARKERS[order % len(MARKERS)])


def _scatter(
    axes: "Axes",
    dots: Sequence[Dot],
    style: Style,
    label: str | None = None,
    alpha: float | None = None,
) -> None:
    axes.scatter(
        [dot.at[1] for dot in dots],
        [dot.at[0] for dot in dots],
        s=46,
        color=style.colour,
        marker=style.marker,
        alpha=alpha,
        edgecolors=PAPER,
        label=f" {label}" if label and label.startswith("_") else label,  # "_" hides it
        zorder=3,
    )


def _add_links(axes: "Axes", dots: Sequence[Dot], targets: Mapping[int, str]) -> None:
    """Cover points by larger circles that cannot be seen, and are links."""
    for dot in dots:
        if dot.number in targets:
            link = f"#{targets[dot.number]}"
            axes.scatter(dot.at[1], dot.at[0], 300, ["none"], zorder=5, urls=[link])


def _draw_staircase(
    axes: "Axes", dots: Sequence[Dot], signs: Sequence[int], colour: str
) -> set[Point]:
    """Draw the boundary of the area that trials cover; return its corners, the unbeaten trials."""
    signed = [(dot.at[0] * signs[0], dot.at[1] * signs[1]) for dot in dots]
    corners = [(up * signs[0], across * signs[1]) for up, across in front(signed)]
    axes.plot(
        [corner[1] for corner in corners],
        [corner[0] for corner in corners],
        drawstyle="steps-pre",
        color=colour,
        linewidth=1,
        alpha=0.55,
        zorder=2,
    )
    return set(corners)


def _add_legend(figure: "Figure", dots: Sequence[Dot]) -> None:
    """Add a legend of the groups, with as many columns as fit."""
    groups = len(_groups(dots))
    if groups == 1:
        return
    for columns in range(min(4, groups), 0, -1):
        legend = figure.legend(loc="outside upper center", ncols=columns, handletextpad=0.1)
        for text in legend.get_texts():
            text.set_parse_math(False)
        figure.draw_without_rendering()
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def _label_dots(figure: "Figure", axes: "Axes", dots: Sequence[Dot], best: set[Point]) -> None:
    """Write each trial's number where it covers as little as possible."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    scale = figure.dpi / 72
    positions: dict[Dot, tuple[float, float]] = {}
    for dot in dots:
        x, y = axes.transData.transform((dot.at[1], dot.at[0]))
        positions[dot] = (float(x), float(y))
    occupied = []
    for x, y in positions.values():
        occupied.append(Bbox.from_bounds(x - 4 * scale, y - 4 * scale, 8 * scale, 8 * scale))
    for dot in dots:
        boxes = [_label_box(dot, positions[dot], offset, scale) for offset in OFFSETS]
        overlaps = [sum(_overlap(box, other) for other in occupied) for box in boxes]
        chosen = overlaps.index(min(overlaps))
        occupied.append(boxes[chosen])
        offset = OFFSETS[chosen]
        weight = "bold" if dot.at in best else "normal"
        at = (dot.at[1], dot.at[0])
        annotate(axes, str(dot.number), at, offset, ha=_alignment(offset), weight=weight)


def _alignment(offset: tuple[float, float]) -> str:
    if offset[0] == 0:
        return "center"
    return "left" if offset[0] > 0 else "right"


def _label_box(
    dot: Dot, position: tuple[float, float], offset: tuple[float, float], scale: float
) -> "Bbox":
    """Return the box in pixels that a trial's number would cover at an offset from its point."""
    from matplotlib.transforms import Bbox

    width, height = 6.5 * scale * len(str(dot.number)), 9 * scale
    left = position[0] + offset[0] * scale
    if offset[0] == 0:
        left -= width / 2
    elif offset[0] < 0:
        left -= width
    return Bbox.from_bounds(left, position[1] + offset[1] * scale, width, height)


def _overlap(one: "Bbox", other: "Bbox") -> float:
    from matplotlib.transforms import Bbox

    common = Bbox.intersection(one, other)
    return float(common.width * common.height) if common else 0.0
