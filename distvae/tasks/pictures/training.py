"""Curves of a training, from the records of its epochs."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from distvae.tasks.pictures.canvas import (
    PALETTE,
    entitle,
    limit_to_later_epochs,
    new_figure,
    panels,
    second_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = list[float]
Records = Sequence[Mapping[str, float]]
CURVES = {
    "train_objective": "objective, training",
    "val_objective": "objective, validation",
    "val_bound": "bound, validation",
}
SECONDS = {"estep_seconds": "E-step", "mstep_seconds": "M-step", "data_seconds": "data"}


def learning_curves(epochs: Records, unit: str, title: str) -> "Figure":
    """Draw objective and bound over epochs, with the learning rate on a second axis."""
    figure = new_figure(7.5, 4.5)
    axes, epochs = figure.subplots(), _visible(epochs)
    number = _curve(epochs, "epoch")
    curves = {name: _curve(epochs, name) for name in CURVES}
    styles = zip(PALETTE, ("-", "--", ":"), strict=False)
    for (name, values), (colour, style) in zip(curves.items(), styles, strict=True):
        axes.plot(number, values, color=colour, linestyle=style, linewidth=1.8, label=CURVES[name])
    limit_to_later_epochs(axes, curves.values())
    axes.set(xlabel="epoch", ylabel=f"nats per {unit}")
    entitle(figure, title)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    second_axis(axes, number, _curve(epochs, "rate"), "learning rate")
    return figure


def telemetry(epochs: Records, unit: str, title: str) -> "Figure":
    """Draw the training of a truncated model, with a panel for each quantity in its records."""
    epochs = _visible(epochs)
    drawn = [draw for name, draw in PANELS.items() if any(name in record for record in epochs)]
    columns = 2 if len(drawn) == 4 else 3
    figure = new_figure(3.7 * columns, 3.0 * math.ceil(len(drawn) / columns) + 0.4)
    for axes, draw in zip(panels(figure, len(drawn), columns), drawn, strict=True):
        draw(axes, epochs, unit)
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        axes.margins(x=0.02)
    entitle(figure, title)
    return figure


def _visible(epochs: Records) -> Records:
    """Return the records. Repeat a single record, so that it can be drawn as a line."""
    if len(epochs) != 1:
        return epochs
    (record,) = epochs
    return [{**record, "epoch": record["epoch"] + half} for half in (-0.5, 0.5)]


def _curve(epochs: Records, name: str) -> Curve:
    return [record.get(name, math.nan) for record in epochs]


def _bound(axes: "Axes", epochs: Records, unit: str) -> None:
    names = {"train_objective": ("training", "-"), "val_bound": ("validation", "--")}
    for (name, (label, style)), colour in zip(names.items(), PALETTE, strict=False):
        axes.plot(_curve(epochs, "epoch"), _curve(epochs, name), style, color=colour, label=label)
    limit_to_later_epochs(axes, [_curve(epochs, name) for name in names])
    axes.set(title="bound", ylabel=f"nats per {unit}")
    axes.legend(frameon=False, loc="lower right")


def _sigma(axes: "Axes", epochs: Records, unit: str) -> None:
    axes.plot(_curve(epochs, "epoch"), _curve(epochs, "sigma"), color=PALETTE[0])
    axes.set(title=r"noise, $\sigma$", ylabel="units of the data")
    axes.set_ylim(bottom=0)


def _seconds(axes: "Axes", epochs: Records, unit: str) -> None:
    parts = [_curve(epochs, name) for name in SECONDS]
    axes.stackplot(
        _curve(epochs, "epoch"), *parts, labels=SECONDS.values(), colors=PALETTE, linewidth=0
    )
    axes.set(title="time of an epoch", ylabel="seconds")
    _legend_above(axes, 3)


def _active(axes: "Axes", epochs: Records, unit: str) -> None:
    number, low, high = (_curve(epochs, name) for name in ("epoch", "active_p10", "active_p90"))
    axes.plot(number, _curve(epochs, "active"), color=PALETTE[0], label="mean")
    axes.fill_between(
        number, low, high, color=PALETTE[4], alpha=0.35, linewidth=0, label=f"8 of 10 {unit}s"
    )
    axes.set(title="active latents", ylabel=f"per {unit}")
    _legend_above(axes, 2)


def _dead(axes: "Axes", epochs: Records, unit: str) -> None:
    dead = _curve(epochs, "dead")
    top = 1.1 * max(2, *dead)
    axes.step(_curve(epochs, "epoch"), dead, where="mid", color=PALETTE[0])
    axes.set(
        title="dead latents", ylabel=f"active in less than one {unit}", ylim=(-0.04 * top, top)
    )
    axes.locator_params(axis="y", integer=True)


def _states(axes: "Axes", epochs: Records, unit: str) -> None:
    number = _curve(epochs, "epoch")
    axes.plot(number, _curve(epochs, "substitutions"), color=PALETTE[0])
    axes.set(title="kept states", ylabel=f"replaced per {unit}")
    axes.yaxis.label.set_color(PALETTE[0])
    axes.set_ylim(bottom=0)
    percent = [100 * share for share in _curve(epochs, "distinct_states")]
    second_axis(axes, number, percent, "distinct in a block, %")


def _legend_above(axes: "Axes", columns: int) -> None:
    """Draw a legend in a strip above the curves, which start at zero."""
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    axes.legend(
        frameon=False, loc="upper center", ncols=columns, columnspacing=1.2, handlelength=1.4
    )


PANELS: dict[str, Callable[["Axes", Records, str], None]] = {
    "val_bound": _bound,
    "sigma": _sigma,
    "estep_seconds": _seconds,
    "active": _active,
    "dead": _dead,
    "substitutions": _states,
}
