"""Model quality by batch size."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from distvae.tasks.pictures.canvas import PALETTE, new_figure
from distvae.tasks.pictures.tradeoff import MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class QualityPoint(NamedTuple):
    """The quality of one training."""

    way: str
    """The scaling rule of the learning rates."""
    lasting: str
    """The length of the training, relative to the other trainings."""
    batch: int
    quality: float
    """NaN if training diverged."""


def quality_by_batch(points: Sequence[QualityPoint], title: str, label: str) -> "Figure":
    """Draw quality by batch size, with a line for each scaling rule and a panel for each length."""
    lastings = list(dict.fromkeys(point.lasting for point in points))
    figure = new_figure(5.0 * len(lastings), 4.2)
    panels = figure.subplots(1, len(lastings), sharey=True, squeeze=False)[0]
    for axes, lasting in zip(panels, lastings, strict=True):
        _draw_ways(axes, [point for point in points if point.lasting == lasting])
        axes.set_title(f"{title}, after {lasting}", parse_math=False)
        axes.set_xlabel("batch")
    panels[0].set_ylabel(label)
    ways = panels[0].get_legend_handles_labels()
    figure.legend(*ways, loc="outside right upper", title="rate", frameon=False)
    return figure


def _draw_ways(axes: "Axes", points: Sequence[QualityPoint]) -> None:
    for i, way in enumerate(dict.fromkeys(point.way for point in points)):
        found = sorted({(p.batch, p.quality) for p in points if p.way == way and _is_known(p)})
        across, up = [batch for batch, _ in found], [quality for _, quality in found]
        axes.plot(across, up, color=PALETTE[i], marker=MARKERS[i], linewidth=1.6, label=way)
    batches = sorted({point.batch for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches], minor=False)
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)


def _is_known(point: QualityPoint) -> bool:
    return not math.isnan(point.quality)
