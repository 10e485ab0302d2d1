"""Pictures of codes: the distribution and the effect of their values."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distvae.numerics.array_types import Floats
from distvae.tasks.pictures import cells
from distvae.tasks.pictures.canvas import GREY, PALETTE, colour_bar, entitle, new_figure
from distvae.tasks.pictures.data import limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 32
"""The largest number of latents that an axis names."""


def dictionary(matrix: Floats, title: str) -> "Figure":
    """Draw the columns (values, atoms) of a dictionary."""
    figure = new_figure(2.5 + matrix.shape[1] * 0.09, 2.0 + matrix.shape[0] * 0.07)
    axes = figure.subplots()
    edge = float(np.quantile(np.abs(matrix), 0.995)) or 1.0
    mesh = axes.imshow(
        matrix, aspect="auto", cmap="RdBu_r", vmin=-edge, vmax=edge, interpolation="nearest"
    )
    colour_bar(axes, mesh, "entry")
    axes.set(xlabel="atom", ylabel="value of z")
    entitle(figure, title)
    return figure


def responses(
    change: Floats, names: Sequence[str], live: NDArray[np.bool_], rate: int, title: str
) -> "Figure":
    """Draw the change (atoms, bins) in dB that each single atom makes to the decoded spectrum."""
    columns = min(8, len(change))
    figure = new_figure(1.3 * columns + 1, -(-len(change) // columns) + 1.2)
    axes = figure.subplots()
    colours = [PALETTE[0] if lives else GREY for lives in live]
    cells.curves(axes, [change], [colours], columns, (0, rate / 2000), names)
    axes.set(xlabel="frequency, kHz", ylabel="change, dB")
    entitle(figure, title)
    return figure


def code_histograms(codes: Floats, live: NDArray[np.bool_], title: str) -> "Figure":
    """Draw the strength and the distribution of each value of codes (rows, atoms)."""
    strength = np.sqrt(np.mean(codes**2, axis=0))
    rank = np.argsort(-strength)
    figure = new_figure(9.0, 3.0 + 0.06 * len(rank))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 3))
    colours = [PALETTE[0] if live[atom] else GREY for atom in rank]
    left.barh(np.arange(len(rank)), strength[rank], color=colours)
    left.set(xlabel="root mean square", ylabel="index in the code, strongest first")
    shown = np.arange(0, len(rank), math.ceil(len(rank) / NAMED))
    left.set_yticks(shown, [str(latent) for latent in rank[shown]], fontsize=7)
    left.set_title(f"{int(live.sum())} live, {int((~live).sum())} dead")
    _distribution(right, codes[:, rank])
    entitle(figure, title)
    return figure


def encodings(images: Floats, codes: Floats, title: str) -> "Figure":
    """Draw pictures (count, height, width, channels) beside their codes (count, values)."""
    low, high = limits(images)
    figure = new_figure(8.0, 1.1 * len(images) + 0.8)
    drawn = figure.subplots(len(images), 2, squeeze=False, width_ratios=(1, 8), sharey="col")
    for (left, right), image, code in zip(drawn, images, codes, strict=True):
        shown = ((image - low) / (high - low or 1)).clip(0, 1)
        left.imshow(shown if shown.shape[-1] == 3 else shown.mean(-1), cmap="gray", vmin=0, vmax=1)
        left.set_axis_off()
        right.bar(np.arange(len(code)), code, width=0.9, color=PALETTE[0])
        right.axhline(0, color=GREY, linewidth=0.5)
        right.tick_params(labelbottom=False, labelsize=7)
    drawn[-1, 1].tick_params(labelbottom=True)
    drawn[-1, 1].set(xlabel="latent")
    entitle(figure, title)
    return figure


def _distribution(axes: "Axes", codes: Floats) -> None:
    """Draw a row of shades for each column of the codes: the share of rows in each of 81 cells.

    The shades are logarithmic.
    """
    edge = float(np.quantile(np.abs(codes), 0.999)) or 1.0
    cells = np.linspace(-edge, edge, 82)
    share = np.stack([np.histogram(column, cells)[0] for column in codes.T]) / len(codes)
    shown = np.log10(np.maximum(share, 1e-4))
    extent = (-edge, edge, codes.shape[1] - 0.5, -0.5)
    mesh = axes.imshow(
        shown,
        aspect="auto",
        extent=extent,
        cmap="cividis",
        vmin=-3,
        vmax=0,
        interpolation="nearest",
    )
    bar = colour_bar(axes, mesh, "share of data points")
    bar.set_ticks([-3, -2, -1, 0], labels=["0.1 %", "1 %", "10 %", "100 %"])
    axes.set(xlabel="value", title="distribution")


def active_latents(codes: Floats, pi: Floats, title: str) -> "Figure":
    """Draw binary codes E[z] (rows, latents): the number of active latents, and the frequency of
    each latent beside its prior pi.
    """
    figure = new_figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    _counts(left, codes.sum(1))
    rank = np.argsort(-pi)
    right.bar(np.arange(len(pi)), pi[rank], width=1.0, color=PALETTE[4], label=r"prior $\pi_h$")
    right.plot(
        np.arange(len(pi)),
        codes.mean(0)[rank],
        ".",
        color=PALETTE[5],
        markersize=4,
        label="mean of the codes",
    )
    right.set(
        xlabel="rank of the latent, most frequent first", ylabel="active in a share of data points"
    )
    right.set(yscale="log", ylim=(10 ** math.floor(math.log10(max(pi.min(), 1e-6))), 1))
    right.legend(frameon=False, loc="upper right")
    entitle(figure, title)
    return figure


def _counts(axes: "Axes", active: Floats) -> None:
    """Draw the share of rows by their expected number of active latents, rounded."""
    shares = np.bincount(active.round().astype(np.int64)) / len(active)
    axes.bar(np.arange(len(shares)), shares, width=0.9, color=PALETTE[0])
    axes.axvline(float(active.mean()), color=PALETTE[5], linewidth=1.5)
    axes.set_title(f"mean {active.mean():.2f}", color=PALETTE[5], fontsize="medium")
    axes.set(xlabel="active latents of a data point", ylabel="share of data points")
    axes.locator_params(axis="x", integer=True)
