"""Pictures of a trained model, and of a restoration beside its input. Each function returns a
matplotlib figure, and `save` writes it. Librosa draws spectrograms; it is only imported then.

Pictures use the palette of Okabe and Ito and perceptually uniform colour maps, so that readers who
cannot tell red from green can read them.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distvae.config.schema import POWER_FLOOR, FrequencyScale
from distvae.files.paths import atomic_file
from distvae.numerics.arrays import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
GREY = "#8c8c8c"
PLACES = [
    (9 * distance * x, 9 * distance * y)
    for distance in (1.0, 1.5, 2.0, 2.5, 3.0)
    for x, y in ((1, 0.6), (-1, 0.6), (1, -0.6), (-1, -0.6), (0, 1), (0, -1), (1.3, 0), (-1.3, 0))
]
"""Offsets of a label from its point, in points of print, the best first."""
MARKERS = "osD^vPX"
CROWD = 50
"""Points of a group in a diagram; more points are drawn smaller."""
Records = Sequence[Mapping[str, float]]
BOUND = "bound"
PANELS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    BOUND: (
        "nats per {unit}",
        {
            "train_objective": "objective, training",
            "val_objective": "objective, validation",
            "val_bound": "bound, validation",
        },
    ),
    "learning rate": ("", {"rate": "rate"}),
    r"noise, $\sigma$": ("units of the data", {"sigma": "sigma"}),
    "active latents": (
        "per {unit}",
        {"active": "mean", "active_p10": "10th percentile", "active_p90": "90th percentile"},
    ),
    "dead latents": ("active in less than one {unit}", {"dead": "dead"}),
    "kept states": ("replaced per {unit}", {"substitutions": "replaced"}),
    "distinct states": ("share of the states in a block", {"distinct_states": "distinct"}),
    "time of an epoch": (
        "seconds",
        {"estep_seconds": "E-step", "mstep_seconds": "M-step", "data_seconds": "data"},
    ),
}
"""The panels of a training by title: the label of the vertical axis, and its curves, each with the
name in the records and the name in the legend.
"""
STRONGEST = 256
"""The largest number of values of a code whose distributions are drawn."""
NAMED = 32
"""The largest number of latents that an axis names."""
COLUMNS = 8
WIDTH, HEIGHT = 0.9, 0.72
"""Size of a curve in its cell. The rest of the cell holds the name and the spacing."""
RANGE_DB = 80.0
"""The range of a spectrogram below the loudest bin."""
DIFFERENCE_DB = 30.0
"""The range of a difference, in both directions."""
MEL_BANDS = 80
"""Bands of a spectrogram on the mel scale, where there are four times as many bins."""


def save(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of the suffix."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, sized in inches, with automatic layout."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def entitle(figure: "Figure", title: str) -> None:
    """Write a title over a figure. Characters of file names are not read as formulas."""
    figure.suptitle(title.replace("$", r"\$"), wrap=True)


def panels(figure: "Figure", count: int, columns: int) -> list["Axes"]:
    """Return `count` axes, in rows of `columns`."""
    axes = figure.subplots(math.ceil(count / columns), columns, squeeze=False)
    for place in range(count, axes.size):
        axes.flat[place].remove()
        axes.flat[place - columns].tick_params(labelbottom=True)
    return list(axes.flat[:count])


def colour_bar(
    axes: "Axes | Sequence[Axes]", mesh: "AxesImage | QuadMesh", label: str
) -> "Colorbar":
    """Draw the scale of the colours of an image."""
    figure = mesh.get_figure()
    assert figure is not None
    return figure.colorbar(mesh, ax=axes, label=label)


def learning(epochs: Records, unit: str, title: str) -> "Figure":
    """Draw the course of a training, with a panel for each quantity in its records."""
    if len(epochs) == 1:  # repeated, so that it can be drawn as a line
        epochs = [{**epochs[0], "epoch": epochs[0]["epoch"] + half} for half in (-0.5, 0.5)]
    known = {name for record in epochs for name in record}
    drawn = {name: panel for name, panel in PANELS.items() if known & panel[1].keys()}
    columns = 2 if len(drawn) == 4 else min(3, len(drawn))
    figure = new_figure(3.7 * columns, 3.2 * math.ceil(len(drawn) / columns) + 0.4)
    number = [record["epoch"] for record in epochs]
    for axes, (name, (label, curves)) in zip(
        panels(figure, len(drawn), columns), drawn.items(), strict=True
    ):
        found = {
            key: [each.get(key, math.nan) for each in epochs] for key in curves if key in known
        }
        for values, colour, style in zip(found.values(), PALETTE, ("-", "--", ":"), strict=False):
            axes.plot(number, values, style, color=colour)
        axes.set(title=name, xlabel="epoch", ylabel=label.format(unit=unit))
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        axes.margins(x=0.02)
        is_bound, is_named = name == BOUND, len(found) > 1
        if is_named:
            labels = [curves[key] for key in found]
            axes.legend(labels, frameon=False, loc="lower right" if is_bound else "upper right")
        seen = [value for values in found.values() for value in values if math.isfinite(value)]
        if is_bound and seen:  # the steep first epochs would hide the later ones
            low, high = float(np.quantile(seen, 0.1)), max(seen)
            axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.1 * (high - low or 1))
        elif not is_bound:  # with room for the legend above the curves
            axes.set_ylim(0, (1.5 if is_named else 1.0) * axes.get_ylim()[1])
    entitle(figure, title)
    return figure


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
    _cell_curves(axes, [change], [colours], columns, (0, rate / 2000), names)
    axes.set(xlabel="frequency, kHz", ylabel="change, dB")
    entitle(figure, title)
    return figure


def code_histograms(codes: Floats, live: NDArray[np.bool_], title: str) -> "Figure":
    """Draw the strength and the distribution of each value of codes (rows, atoms), or of the
    strongest: the share of rows in each of 81 cells.
    """
    from matplotlib.colors import LogNorm

    strength = np.sqrt(np.mean(codes**2, axis=0))
    rank = np.argsort(-strength)[:STRONGEST]
    figure = new_figure(9.0, 3.0 + 0.06 * len(rank))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 3))
    colours = [PALETTE[0] if live[atom] else GREY for atom in rank]
    left.barh(np.arange(len(rank)), strength[rank], color=colours)
    left.set(xlabel="root mean square", ylabel="index in the code, strongest first")
    shown = np.arange(0, len(rank), math.ceil(len(rank) / NAMED))
    left.set_yticks(shown, [str(latent) for latent in rank[shown]], fontsize=7)
    left.set_title(f"{int(live.sum())} live, {int((~live).sum())} dead")
    edge = float(np.quantile(np.abs(codes), 0.999)) or 1.0
    *_, mesh = right.hist2d(
        codes[:, rank].ravel(),
        np.tile(np.arange(len(rank)), len(codes)),
        (np.linspace(-edge, edge, 82), np.arange(len(rank) + 1) - 0.5),
        weights=np.full(len(rank) * len(codes), 1 / len(codes)),
        norm=LogNorm(1e-3, 1),
        cmap="cividis",
    )
    colour_bar(right, mesh, "share of data points")
    of_all = f" of the {len(rank)} strongest" if len(rank) < len(strength) else ""
    right.set(xlabel="value", title=f"distribution{of_all}", ylim=(len(rank) - 0.5, -0.5))
    right.set_facecolor(mesh.get_cmap()(0.0))
    entitle(figure, title)
    return figure


def encodings(images: Floats, codes: Floats, title: str) -> "Figure":
    """Draw pictures (count, height, width, channels) beside their codes (count, values)."""
    figure, span = new_figure(8.0, 1.1 * len(images) + 0.8), limits(images)
    drawn = figure.subplots(len(images), 2, squeeze=False, width_ratios=(1, 8), sharey="col")
    for (left, right), image, code in zip(drawn, images, codes, strict=True):
        _show_picture(left, image, span)
        left.set_axis_off()
        right.bar(np.arange(len(code)), code, width=0.9, color=PALETTE[0])
        right.axhline(0, color=GREY, linewidth=0.5)
        right.tick_params(labelbottom=False, labelsize=7)
    drawn[-1, 1].tick_params(labelbottom=True)
    drawn[-1, 1].set(xlabel="latent")
    entitle(figure, title)
    return figure


def active_latents(codes: Floats, pi: Floats, title: str) -> "Figure":
    """Draw binary codes E[z] (rows, latents): the number of active latents, and the frequency of
    each latent beside its prior pi.
    """
    figure = new_figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    active = codes.sum(1)
    shares = np.bincount(active.round().astype(np.int64)) / len(active)
    left.bar(np.arange(len(shares)), shares, width=0.9, color=PALETTE[0])
    left.axvline(float(active.mean()), color=PALETTE[5], linewidth=1.5)
    left.set_title(f"mean {active.mean():.2f}", color=PALETTE[5], fontsize="medium")
    left.set(xlabel="active latents of a data point", ylabel="share of data points")
    left.locator_params(axis="x", integer=True)
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


def pairs(originals: Floats, reconstructions: Floats, title: str) -> "Figure":
    """Draw each picture above its reconstruction, or each curve under it."""
    if originals.ndim == 3:
        return _waves({"original": originals, "reconstruction": reconstructions}, title)
    columns = min(12, len(originals))
    starts = range(0, len(originals), columns)
    bands = []
    for start in starts:
        for part in (originals, reconstructions):
            bands.append(_tiles(part[start : start + columns], columns))
    heading = f"{title}: originals above reconstructions"
    return _canvas(np.concatenate(bands), limits(originals), heading)


def grid(points: Floats, title: str) -> "Figure":
    """Draw rows (count, ...) side by side."""
    if points.ndim == 3:
        return _waves({"draw": points}, title)
    return _canvas(_tiles(points, math.ceil(math.sqrt(len(points)))), limits(points), title)


def strips(frames: Floats, rows: Sequence[str], columns: Sequence[str], title: str) -> "Figure":
    """Draw a table of pictures (rows, columns, height, width, channels), rows and columns named."""
    down, across, height, width, _ = frames.shape
    tiled = _tiles(frames.reshape(down * across, *frames.shape[2:]), across)
    tall, named = 0.75 * height / width, 0.08 * max(map(len, rows))
    figure = new_figure(0.75 * across + named + 0.2, tall * down + 0.6)
    axes = figure.subplots()
    _show_picture(axes, tiled, limits(frames))
    axes.spines[:].set_visible(False)
    axes.tick_params(
        length=0, labelsize=8, top=False, labeltop=True, bottom=False, labelbottom=False
    )
    axes.set_xticks(np.arange(across) * (width + 1) + (width + 1) / 2, columns)
    axes.set_yticks(np.arange(down) * (height + 1) + (height + 1) / 2, rows)
    entitle(figure, title)
    return figure


def fields(changes: Floats, names: Sequence[str], title: str) -> "Figure":
    """Draw the change that each single value of the code makes to a row, under the value's name."""
    columns = min(COLUMNS, len(changes))
    figure = new_figure(max(1.1 * columns, 4.0), 1.35 * math.ceil(len(changes) / columns) + 0.5)
    axes = figure.subplots()
    if changes.ndim == 3:
        _curves(axes, [changes], [PALETTE[0]], columns, names)
    else:
        edges = np.abs(changes).max((1, 2, 3)).astype(float)
        shown = changes / np.where(edges, edges, 1.0)[:, None, None, None]
        _cell_images(
            axes, shown, columns, names, [f"\N{PLUS-MINUS SIGN}{edge:.2g}" for edge in edges]
        )
    entitle(figure, title)
    return figure


def limits(points: Floats) -> tuple[float, float]:
    """Return the values of black and white: 0 and 1, or the range without the extreme values."""
    low, high = (float(edge) for edge in np.nanquantile(points, (0.002, 0.998)))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def _curves(
    axes: "Axes",
    layers: Sequence[Floats],
    colours: Sequence[str],
    columns: int,
    names: Sequence[str] = (),
) -> None:
    """Draw layers of curves (count, values, channels) over each other, in cells."""
    single = [layer[..., channel] for layer in layers for channel in range(layer.shape[-1])]
    shades = [
        [colour] * len(layer)
        for layer, colour in zip(layers, colours, strict=True)
        for _ in range(layer.shape[-1])
    ]
    _cell_curves(axes, single, shades, columns, (0, layers[0].shape[1] - 1), names)
    axes.set_xlabel("index")


def _waves(layers: Mapping[str, Floats], title: str) -> "Figure":
    """Draw layers of curves (count, values, channels) over each other; the first is grey."""
    from matplotlib.lines import Line2D

    points = list(layers.values())
    columns = min(6, len(points[0]))
    figure = new_figure(1.6 * columns + 0.6, 1.1 * math.ceil(len(points[0]) / columns) + 0.9)
    axes, colours = figure.subplots(), (GREY, PALETTE[0])[-len(layers) :]
    _curves(axes, points, colours, columns)
    entitle(figure, title)
    if len(layers) > 1:
        lines = [Line2D([], [], color=colour) for colour in colours]
        figure.legend(lines, list(layers), loc="outside lower right", ncols=2, frameon=False)
    return figure


def _tiles(pictures: Floats, columns: int) -> Floats:
    """Return pictures (count, height, width, channels) as one picture, with NaN in the gaps."""
    count, height, width, channels = pictures.shape
    rows = math.ceil(count / columns)
    padded = np.full((rows * columns, height + 1, width + 1, channels), np.nan, np.float32)
    padded[:count, 1:, 1:] = pictures
    tiled = padded.reshape(rows, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    return tiled.reshape(rows * (height + 1), columns * (width + 1), channels)


def _canvas(tiled: Floats, span: tuple[float, float], title: str) -> "Figure":
    height, width, _ = tiled.shape
    figure = new_figure(8.0, 8.0 * height / width + 0.5)
    axes = figure.subplots()
    _show_picture(axes, tiled, span)
    axes.set_axis_off()
    entitle(figure, title)
    return figure


def _show_picture(axes: "Axes", tiled: Floats, span: tuple[float, float]) -> None:
    """Draw a picture (height, width, channels) in which NaN is white."""
    low, high = span
    if tiled.shape[-1] == 3:
        shown = np.where(np.isnan(tiled), 1.0, ((tiled - low) / (high - low or 1)).clip(0, 1))
        axes.imshow(shown, interpolation="nearest")
    else:
        axes.imshow(tiled.mean(-1), cmap="gray", vmin=low, vmax=high, interpolation="nearest")


def corners(count: int, columns: int) -> tuple[Floats, Floats]:
    """Return the left and lower edges of the cells, which run in rows from the top left."""
    place = np.arange(count)
    return (place % columns).astype(float), -(place // columns).astype(float)


def _cell_curves(
    axes: "Axes",
    layers: Sequence[Floats],
    colours: Sequence[Sequence[str]],
    columns: int,
    ends: tuple[float, float],
    names: Sequence[str] = (),
) -> None:
    """Draw layers of curves (count, values), one curve of each layer in every cell.

    All curves share the vertical scale, and a horizontal scale from `ends[0]` to `ends[1]`. A
    missing value (NaN) leaves a gap.
    """
    from matplotlib.collections import LineCollection

    seen = np.concatenate([layer[~np.isnan(layer)] for layer in layers])
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    scale = HEIGHT / (high - low or 1.0)
    left, below = corners(len(layers[0]), columns)
    for layer, shades in zip(layers, colours, strict=True):
        x = left[:, None] + WIDTH * np.linspace(0, 1, layer.shape[1])
        y = below[:, None] + scale * (layer - low)
        lines = list(np.stack([x, y], -1))
        axes.add_collection(LineCollection(lines, colors=list(shades), linewidths=0.9))
    if low < 0 < high:
        axes.hlines(below - scale * low, left, left + WIDTH, color=GREY, linewidth=0.5, zorder=1)
    for x, y, name in zip(left, below, names, strict=False):
        axes.text(x, y + HEIGHT + 0.02, name, fontsize=8, va="bottom")
    # both ends of the horizontal scale are named in the first column, its end in every column
    rights, rows = np.unique(left) + WIDTH, np.unique(below)
    axes.set(xlim=(-0.05, left.max() + 1), ylim=(below.min() - 0.1, 1.0))
    last_labels = [f"{ends[1]:g}"] * len(rights)
    axes.set_xticks([0.0, *rights], [f"{ends[0]:g}", *last_labels], fontsize=7)
    values = [value for value in (low, 0.0, high) if low <= value <= high]
    if len(values) == 3:
        values.remove(min(low, high, key=abs))  # its label would cover the label of zero
    named = [(row + scale * (each - low), each) for row in rows for each in dict.fromkeys(values)]
    axes.set_yticks([y for y, _ in named], [f"{each:.2g}" for _, each in named], fontsize=7)
    axes.tick_params(length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _cell_images(
    axes: "Axes", shown: Floats, columns: int, names: Sequence[str], notes: Sequence[str]
) -> None:
    """Draw pictures (count, height, width, channels) of values from -1 to 1.

    Each picture has a name above and a note below.
    """
    count, height, width, channels = shown.shape
    left, below = corners(count, columns)
    pad_x, pad_y = 1 + width // 8, 1 + math.ceil(0.6 * height)
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + pad_y), columns * (width + pad_x), channels), np.nan)
    for picture, x, y, name, note in zip(shown, left, -below, names, notes, strict=True):
        top, start = int(y) * (height + pad_y) + pad_y // 2, int(x) * (width + pad_x)
        canvas[top : top + height, start : start + width] = picture
        middle = start + (width - 1) / 2
        axes.text(middle, top - 0.7, name, fontsize=8, ha="center", va="bottom")
        axes.text(middle, top + height - 0.3, note, fontsize=7, ha="center", va="top")
    if channels == 3:
        axes.imshow(np.where(np.isnan(canvas), 1.0, 0.5 + canvas / 2), interpolation="nearest")
    else:
        axes.imshow(canvas.mean(-1), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def tradeoff(rows: Sequence[Mapping[str, float | str]], x: str, y: str, label: str) -> "Figure":
    """Plot two figures of each row, with a colour and marker for each value of `label`."""
    figure = new_figure(7.5, 5.0)
    axes = figure.subplots()
    for i, group in enumerate(dict.fromkeys(str(row[label]) for row in rows)):
        members = [row for row in rows if str(row[label]) == group]
        colour, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        across, up = [row[x] for row in members], [row[y] for row in members]
        size = 70 if len(members) <= CROWD else 20
        axes.scatter(
            across, up, s=size, color=colour, marker=marker, edgecolors="white", label=group
        )
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    legend = figure.legend(loc="outside right upper", title=label, frameon=False)
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_parse_math(False)
    return figure


def label_points(axes: "Axes", labels: Sequence[tuple[float, float, str, bool]]) -> None:
    """Write a text beside each point (x, y, text, whether bold), at the nearest free place. A text
    that would cover an earlier one everywhere is left out.
    """
    if not labels:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # places depend on the layout
    pixels = figure.dpi / 72
    points = [np.asarray(drawn.get_offsets()) for drawn in axes.collections]
    centres = axes.transData.transform(np.concatenate(points))
    taken = [(x, y, 8.0, 8.0) for x, y in centres]  # centres and sizes
    for x, y, text, is_bold in labels:
        weight = "bold" if is_bold else "normal"
        style: dict[str, Any] = {
            "fontsize": 9,
            "fontweight": weight,
            "ha": "center",
            "va": "center",
        }
        note = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", **style)
        box, crowd = note.get_window_extent(), np.array(taken)
        middle, size = np.array([box.x0 + box.x1, box.y0 + box.y1]) / 2, np.array(box.size)
        covered = []  # texts, and points
        for place in PLACES:
            gaps = np.abs(crowd[:, :2] - middle - pixels * np.array(place))
            hits = (gaps < (crowd[:, 2:] + size) / 2).all(1)
            covered.append((int(hits[len(centres) :].sum()), int(hits.sum())))
        if min(covered)[0]:
            note.remove()
            continue
        note.xyann = PLACES[covered.index(min(covered))]
        taken.append((*(middle + pixels * np.array(note.xyann)), *size))


class Spectrum(NamedTuple):
    """Axes of a spectrogram: sampling rate, samples between frames, frequencies."""

    rate: int
    hop: int
    scale: FrequencyScale = "linear"


def decibel(power: Floats) -> Floats:
    """Return power in dB, with the floor that models use."""
    return 10 * np.log10(np.maximum(power, POWER_FLOOR))


def levels(power: Floats, spectrum: Spectrum) -> Floats:
    """Return the levels in dB of power (frames, bins), in librosa's layout (bins, frames)."""
    if spectrum.scale != "mel":
        return decibel(power).T
    from librosa.feature import melspectrogram

    bands = max(1, min(MEL_BANDS, power.shape[1] // 4))
    return decibel(melspectrogram(S=power.T, sr=spectrum.rate, n_mels=bands))


def spectrograms(
    original: Floats, reconstruction: Floats, spectrum: Spectrum, title: str
) -> "Figure":
    """Draw power (frames, bins) of a recording, of its reconstruction, and their difference."""
    figure = new_figure(9.0, 8.0)
    rows = figure.subplots(3, 1, sharex=True, sharey=True)
    above, below = levels(original, spectrum), levels(reconstruction, spectrum)
    high = float(above.max())
    above, below = (np.clip(level, high - RANGE_DB, high) for level in (above, below))
    show_levels(rows[0], above, spectrum, high)
    show_levels(rows[1], below, spectrum, high)
    _show_spectrum(rows[2], below - above, spectrum, "RdBu_r", (-DIFFERENCE_DB, DIFFERENCE_DB))
    names = ("original", "reconstruction", "reconstruction less original")
    for axes, name in zip(rows, names, strict=True):
        axes.set_title(name)
        axes.label_outer()
    entitle(figure, title)
    return figure


def sampled_frames(power: Floats, rate: int, title: str) -> "Figure":
    """Draw decoded frames (count, bins) side by side; they have no order in time."""
    figure = new_figure(8.0, 4.0)
    axes = figure.subplots()
    level = decibel(power).T
    show_levels(axes, level, Spectrum(rate, hop=0), float(level.max()))
    axes.set(xlabel="sample")
    entitle(figure, title)
    return figure


def show_levels(axes: "Axes", level: Floats, spectrum: Spectrum, high: float) -> None:
    """Draw levels (bins or bands, frames) up to the highest, with a colour bar in dB."""
    _show_spectrum(axes, level, spectrum, "magma", (high - RANGE_DB, high))


def _show_spectrum(
    axes: "Axes", shown: Floats, spectrum: Spectrum, colours: str, limits: tuple[float, float]
) -> None:
    """Draw values over frequency, and over time if the frames are consecutive."""
    from librosa.display import specshow

    mesh = specshow(
        shown,
        sr=spectrum.rate,
        hop_length=spectrum.hop,
        x_axis="time" if spectrum.hop else None,
        y_axis=spectrum.scale,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        ax=axes,
    )
    if spectrum.hop:
        axes.set_xlabel("time (s)")
    colour_bar(axes, mesh, "dB")


def compare_pictures(panels: Mapping[str, Floats], spectrum: Floats | None = None) -> "Figure":
    """Draw pictures (height, width, channels) of values from 0 to 1 under their titles.

    Missing pixels are red. The power of the noise by frequency comes last, if it is given.
    """
    height, width = next(iter(panels.values())).shape[:2]
    widths = [5.0] * len(panels) + [2.5] * (spectrum is not None)
    figure = new_figure(sum(widths), 5 * height / width + 0.4)
    row = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    for axes, (title, values) in zip(row, panels.items(), strict=False):
        colours = np.broadcast_to(values, (*values.shape[:2], 3))
        missing = np.isnan(colours).all(-1, keepdims=True)
        shown = np.where(missing, (0.84, 0.37, 0.0), np.nan_to_num(colours).clip(0, 1))
        axes.imshow(shown, interpolation="nearest")
        axes.set_title(title)
        axes.set_axis_off()
    if spectrum is not None:
        row[-1].imshow(spectrum, vmin=0, extent=(-0.5, 0.5, 0.5, -0.5))
        row[-1].set_anchor("N")
        row[-1].set(title="power of the noise", xlabel="cycles per pixel")
    return figure


def compare_sounds(panels: Mapping[str, Floats], rate: int) -> "Figure":
    """Draw spectrograms of sounds (samples, channels) below each other, on one scale.

    Channels are averaged.
    """
    from librosa import stft

    figure = new_figure(9, 2.6 * len(panels))
    window = min(512, min(map(len, panels.values())))
    spectrum = Spectrum(rate, hop=max(1, window // 4))
    power = {
        title: np.square(
            np.abs(stft(values.mean(-1), n_fft=window, hop_length=spectrum.hop, center=False))
        )
        for title, values in panels.items()
    }
    high = max(float(decibel(each).max()) for each in power.values())
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, each) in zip(column, power.items(), strict=True):
        show_levels(axes, decibel(each), spectrum, high)
        axes.set_title(title)
        axes.label_outer()
    return figure
