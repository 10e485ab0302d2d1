"""Diagrams as SVG inside the page. They use the page's own colours, in light and dark mode."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distvae.report.importance import Share
from distvae.tasks.pictures.canvas import GREY, PALETTE, limit_to_later_epochs, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

INK, RULE, PAPER = "#010203", "#040506", "#070809"
"""Placeholder colours, replaced by the page's own in the finished SVG."""
THEME = {
    INK: "currentColor",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    PALETTE[0].lower(): "var(--first)",
}
LINK = r'<a xlink:href="#trial-(\d+)" target="_blank">'
# Black is left out: it cannot be seen in dark mode.
COLOURS = PALETTE[:6]
MAX_POINTS = 200
"""The number of points drawn of a curve; more cannot be told apart."""
MAX_NAMED_CURVES = 20
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
    """Draw a figure as an SVG element. `name` prefixes its ids, which must differ on a page."""
    import matplotlib as mpl

    stream = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(STYLE):
        draw().savefig(stream, format="svg", metadata=no_metadata)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    end = text.index(">")
    tag = re.sub(r'\s(width|height|xmlns(:xlink)?|version)="[^"]*"', "", text[:end])
    text = tag + text[end:]
    text = re.sub(r'(\bid="|url\(#|href="#)(?!trial-)', rf"\g<1>{name}-", text)
    text = re.sub(LINK, r'<a href="#trial-\1" aria-label="Trial \1">', text)
    for placeholder, colour in THEME.items():
        text = text.replace(placeholder, colour)
    return text.strip()


def annotate(
    axes: "Axes",
    text: str,
    at: tuple[float, float],
    offset: tuple[float, float],
    **style: Any,
) -> None:
    """Write a small label at an offset in points from a position, even outside the axes."""
    axes.annotate(
        text,
        at,
        offset,
        textcoords="offset points",
        annotation_clip=False,
        fontsize=9.5,
        **style,
    )


Curves = Mapping[int, Sequence[tuple[Sequence[float], Sequence[float]]]]
"""Curves by trial, one for each seed: epochs and values."""


def bound_curves(curves: Curves, unit: str, best: int | None) -> "Figure":
    """Draw validation bounds by epoch; the best trial stands out."""
    figure = new_figure(4.4, 3.0)
    axes = figure.subplots()
    for number, runs in curves.items():
        for epochs, values in runs:
            _draw_curve(axes, epochs, values, number == best)
    limit_to_later_epochs(axes, [values for runs in curves.values() for _, values in runs])
    axes.set(xlabel="epoch", ylabel=f"validation bound, nats per {unit}")
    axes.locator_params(axis="x", integer=True)
    axes.margins(x=0.02)
    _label_ends(figure, axes, curves, best)
    return figure


def _draw_curve(
    axes: "Axes", epochs: Sequence[float], values: Sequence[float], is_best: bool
) -> None:
    colour = COLOURS[0] if is_best else GREY
    step = -(-len(epochs) // MAX_POINTS)
    axes.plot(
        epochs[::step],
        values[::step],
        color=colour,
        linewidth=1.8 if is_best else 1.0,
        zorder=3 if is_best else 2,
    )
    if len(epochs) == 1:
        axes.plot(epochs, values, "o", markersize=3, color=colour)


def _label_ends(figure: "Figure", axes: "Axes", curves: Curves, best: int | None) -> None:
    """Write each trial's number at the end of its curve, without overlaps."""
    figure.draw_without_rendering()
    low, high = axes.get_ylim()
    ends = []
    for number, runs in curves.items():
        epochs, values = runs[0]
        if len(curves) <= MAX_NAMED_CURVES or number == best:
            ends.append((min(max(values[-1], low), high), epochs[-1], number))
    ends.sort()
    heights = spread_apart([value for value, _, _ in ends], (high - low) / 17)
    for (_, epoch, number), height in zip(ends, heights, strict=True):
        style = {"color": COLOURS[0], "weight": "bold"} if number == best else {}
        annotate(axes, str(number), (epoch, height), (4, 0), va="center", **style)


def spread_apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move rising heights as little as possible, in least squares, to be at least a gap apart."""
    blocks: list[tuple[float, int]] = []
    for place, height in enumerate(heights):
        blocks.append((height - place * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (low, below), (high, above) = blocks[-2:]
            mean = (low * below + high * above) / (below + above)
            blocks[-2:] = [(mean, below + above)]
    level = [mean for mean, count in blocks for _ in range(count)]
    return [mean + place * gap for place, mean in enumerate(level)]


@dataclass(frozen=True)
class Usage:
    """The numbers of live, dead and effective values of a trial's code."""

    label: str
    live: float
    dead: float
    effective: float | None


def usage(trials: Sequence[Usage]) -> "Figure":
    """Draw live and dead values of each trial's code as bars, and effective values as marks."""
    figure = new_figure(5.8, 1.1 + 0.25 * len(trials))
    axes = figure.subplots()
    rows = range(len(trials))
    live = [trial.live for trial in trials]
    dead = [trial.dead for trial in trials]
    axes.barh(rows, live, color=COLOURS[0], height=0.66, label="live")
    axes.barh(rows, dead, left=live, color=RULE, height=0.66, label="dead")
    effective = {row: trial.effective for row, trial in enumerate(trials)}
    marks = {row: value for row, value in effective.items() if value is not None}
    if marks:
        axes.plot(
            list(marks.values()),
            list(marks),
            "D",
            color=COLOURS[1],
            markeredgecolor=PAPER,
            markersize=7,
            label="effective",
        )
    axes.set(xlabel="values of the code")
    _label_bars(axes, [trial.label for trial in trials])
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def importances(shares: Sequence[Share]) -> "Figure":
    """Draw the share of each parameter as a bar, with its range over resamples as a line."""
    figure = new_figure(4.4, 0.8 + 0.3 * len(shares))
    axes = figure.subplots()
    rows = range(len(shares))
    low, high = [share.low for share in shares], [share.high for share in shares]
    axes.barh(rows, [share.mean for share in shares], color=COLOURS[0], height=0.6)
    axes.hlines(rows, low, high, color=INK, linewidth=1.4)
    axes.set(xlabel="share of the variance", xlim=(0, 1))
    _label_bars(axes, [share.name for share in shares])
    return figure


def _label_bars(axes: "Axes", labels: Sequence[str]) -> None:
    """Label horizontal bars, the first at the top."""
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def figure_by_epoch(values: Sequence[tuple[float, float]]) -> "Figure":
    """Draw one figure by epoch."""
    figure = new_figure(4.4, 2.6)
    axes = figure.subplots()
    epochs, heights = zip(*values, strict=True)
    marker = "o" if len(epochs) < 12 else ""
    axes.plot(epochs, heights, color=COLOURS[0], linewidth=1.8, marker=marker, markersize=4)
    axes.set(xlabel="epoch")
    axes.locator_params(axis="x", integer=True)
    return figure
