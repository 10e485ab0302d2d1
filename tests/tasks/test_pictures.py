from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray

from distvae.config.values import FrequencyScale
from distvae.files.refusal import Refusal
from distvae.tasks import pictures
from distvae.tasks.pictures import Spectrum

Values = NDArray[np.floating]
TOLD = [
    {
        "epoch": float(i),
        "train_objective": 2.0 * i,
        "val_bound": 2.5 * i,
        "sigma": 1 / i,
        "active": 3.0,
        "active_p10": 1.0,
        "active_p90": 5.0 + i,
        "dead": float(9 - i),
        "substitutions": 20.0 / i,
        "distinct_states": 0.1 * i,
        "estep_seconds": 3.0,
        "mstep_seconds": 2.0,
        "data_seconds": 0.5,
    }
    for i in range(1, 9)
]


def canvas(axes: Axes) -> Values:
    """Return the values of the single image in some axes."""
    (image,) = axes.images
    shown = image.get_array()
    assert shown is not None
    return np.ma.getdata(shown)


def bars_of(axes: Axes) -> list[Rectangle]:
    """The bars of some axes, from left to right."""
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def all_figures(title: str) -> list[Figure]:
    """A picture of each kind."""
    random = np.random.default_rng(0)
    power, live = random.exponential(size=(20, 9)), np.array([True, False, True])
    return [
        pictures.spectrograms(power, power, Spectrum(8000, 64), title),
        pictures.sampled_frames(power, 8000, title),
        pictures.dictionary(random.normal(size=(4, 3)), title),
        pictures.responses(random.normal(size=(3, 9)), ["a", "b", "c"], live, 8000, title),
        pictures.fields(random.normal(size=(3, 4, 2, 1)), ["a", "b", "c"], title),
        pictures.fields(random.normal(size=(3, 4, 2, 3)), ["a", "b", "c"], title),
        pictures.fields(random.normal(size=(3, 9, 2)), ["a", "b", "c"], title),
        pictures.active_latents(random.uniform(size=(20, 3)), np.array([0.1, 0.9, 0.5]), title),
        pictures.telemetry(TOLD, "image", title),
        pictures.code_histograms(random.normal(size=(20, 3)), live, title),
        pictures.learning_curves([{"epoch": 1.0, "val_bound": -2.0, "rate": 1e-3}], "frame", title),
        pictures.quality_by_batch([pictures.QualityPoint("held", "long", 8, 1.0)], title, "bound"),
        pictures.tradeoff([{"hoyer": 0.1, "stoi": 0.9, "model": "vae"}], "hoyer", "stoi", "model"),
        pictures.pairs(random.uniform(size=(5, 9, 2)), random.uniform(size=(5, 9, 2)), title),
        pictures.grid(random.uniform(size=(5, 3, 3, 3)), title),
        pictures.grid(random.uniform(size=(5, 9, 1)), title),
        pictures.strips(random.uniform(size=(2, 3, 4, 5, 3)), ["a", "b"], ["c", "d", "e"], title),
        pictures.encodings(random.uniform(size=(2, 4, 5, 3)), random.normal(size=(2, 7)), title),
    ]


@pytest.mark.slow
def test_every_picture_can_be_written_and_no_title_leaves_it(tmp_path: Path) -> None:
    figures = all_figures("vae latent 32, from $a_{ and $b: " + "what each latent alone adds " * 5)
    for i, figure in enumerate(figures):
        pictures.save(figure, tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").read_bytes().startswith(b"\x89PNG")
        if figure.get_suptitle():
            extent = figure.texts[0].get_window_extent()
            assert extent.x0 >= 0
            assert extent.x1 <= figure.bbox.x1
    untitled = [figure for figure in figures if not figure.get_suptitle()]
    assert len(untitled) == 2, "the trade-off and the quality by batch have no title"
    assert len(list(tmp_path.iterdir())) == len(figures)


def test_no_picture_searches_for_room_for_its_legend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib warns if its search takes more than a second of its clock; a warning fails."""
    clock = SimpleNamespace(perf_counter=count(step=2).__next__)
    monkeypatch.setattr("matplotlib.legend.time", clock)
    for figure in all_figures("a"):
        figure.draw_without_rendering()


def test_a_picture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="No such file"):
        pictures.save(Figure(), tmp_path / "absent" / "a.png")


@given(st.floats(-90, 90))
def test_decibels_are_ten_per_factor_of_ten(decibels: float) -> None:
    assert pictures.decibel(np.array([10 ** (decibels / 10)])) == pytest.approx(decibels)


def test_digital_silence_has_a_floor() -> None:
    assert pictures.decibel(np.zeros(1)) == -100


def mesh(axes: Axes) -> tuple[Values, Values, Values]:
    """The edges in time and in frequency of the one mesh of some axes, and its values."""
    (found,) = axes.collections
    assert isinstance(found, QuadMesh)
    corners, values = np.asarray(found.get_coordinates()), found.get_array()
    assert values is not None
    return corners[0, :, 0], corners[:, 0, 1], np.ma.getdata(values)


def test_a_spectrogram_spans_its_seconds_and_hertz_and_shows_differences_in_decibels() -> None:
    power = np.random.default_rng(0).uniform(1, 2, (50, 9))
    figure = pictures.spectrograms(power, power / 10, Spectrum(16000, 160), "a")
    original, _, difference = figure.axes[:3]
    seconds, hertz, values = mesh(original)
    np.testing.assert_allclose(values, 10 * np.log10(power).T)
    np.testing.assert_allclose((seconds[1:] + seconds[:-1]) / 2, np.arange(50) * 0.01, atol=1e-9)
    np.testing.assert_allclose((hertz[1:] + hertz[:-1]) / 2, np.arange(9) * 1000.0, atol=1e-9)
    np.testing.assert_allclose(mesh(difference)[2], -10)


@pytest.mark.parametrize("scale", ["linear", "log", "mel"])
@settings(max_examples=10)
@given(pitch=st.floats(300, 7000))
def test_a_tone_is_drawn_at_its_frequency(scale: FrequencyScale, pitch: float) -> None:
    rate, window = 16000, 1024
    wave = np.sin(2 * np.pi * pitch / rate * np.arange(window)) * np.hanning(window)
    power = np.tile(np.square(np.abs(np.fft.rfft(wave))), (4, 1))
    figure = pictures.spectrograms(power, power, Spectrum(rate, 256, scale), "a")
    _, hertz, values = mesh(figure.axes[0])
    band = int(values[:, 0].argmax())
    width = hertz[band + 1] - hertz[band]
    assert hertz[band] - width <= pitch <= hertz[band + 1] + width
    assert figure.axes[0].get_yscale() == ("linear" if scale == "linear" else "symlog")


def test_each_picture_stands_above_its_reconstruction() -> None:
    images = np.random.default_rng(0).uniform(size=(15, 2, 3, 1))  # in rows of twelve
    shown = canvas(pictures.pairs(images, -images, "a").axes[0])
    for i, image in enumerate(images[..., 0]):
        top, left = 1 + (i // 12) * 6, 1 + (i % 12) * 4
        np.testing.assert_allclose(shown[top : top + 2, left : left + 3], image, rtol=1e-6)
        np.testing.assert_allclose(shown[top + 3 : top + 5, left : left + 3], -image, rtol=1e-6)


def test_strips_name_their_rows_and_columns_where_these_are() -> None:
    frames = np.random.default_rng(0).uniform(size=(2, 3, 4, 5, 1))
    (axes,) = pictures.strips(frames, ["a", "b"], ["c", "d", "e"], "f").axes
    shown = canvas(axes)
    for y, row in zip(axes.get_yticks(), frames, strict=True):
        for x, picture in zip(axes.get_xticks(), row, strict=True):
            top, left = round(y - 1.5), round(x - 2)
            np.testing.assert_allclose(
                shown[top : top + 4, left : left + 5], picture[..., 0], rtol=1e-6
            )
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["c", "d", "e"]


def test_what_does_not_lie_between_0_and_1_is_shown_from_its_darkest_to_its_lightest() -> None:
    colours = np.random.default_rng(0).uniform(-300, 500, size=(400, 4, 4, 3))
    shown = canvas(pictures.grid(colours, "a").axes[0])[1:5, 1:5]
    np.testing.assert_allclose(shown, ((colours[0] + 300) / 800), atol=0.01)
    low, high = pictures.grid(colours[..., :1] / 1000 + 0.4, "a").axes[0].images[0].get_clim()
    assert (low, high) == (0, 1)


def test_a_missing_value_is_a_gap_in_its_curve_and_hides_no_other() -> None:
    curves = np.random.default_rng(0).normal(size=(4, 20, 1))
    curves[1, 5] = np.nan
    (axes,) = pictures.grid(curves, "a").axes
    lines = next(c for c in axes.collections if isinstance(c, LineCollection))
    drawn = [np.asarray(path.vertices) for path in lines.get_paths()]
    assert [len(line) for line in drawn] == [20] * 4
    assert [int(np.isnan(line).any(1).sum()) for line in drawn] == [0, 1, 0, 0]


def test_sounds_are_drawn_over_each_other_channel_by_channel_on_one_scale() -> None:
    sounds = np.random.default_rng(0).normal(size=(8, 50, 2))  # in rows of six
    (axes,) = pictures.pairs(sounds, 2 * sounds, "a").axes
    layers = [sounds[..., 0], sounds[..., 1], 2 * sounds[..., 0], 2 * sounds[..., 1]]
    drawn = [
        c
        for c in axes.collections
        if isinstance(c, LineCollection) and len(c.get_segments()[0]) == 50
    ]
    low, high = min(layer.min() for layer in layers), max(layer.max() for layer in layers)
    zero = {
        label.get_text(): place
        for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    }["0"]
    for collection, layer in zip(drawn, layers, strict=True):
        for n, (line, sound) in enumerate(zip(collection.get_segments(), layer, strict=True)):
            column, row = n % 6, n // 6
            assert column <= line[:, 0].min() < line[:, 0].max() < column + 1
            assert -row <= line[:, 1].min() < line[:, 1].max() < 1 - row
            scale = np.ptp(line[:, 1]) / np.ptp(sound)
            assert scale == pytest.approx(
                np.ptp(drawn[2].get_segments()[0][:, 1]) / np.ptp(layers[2][0])
            )
            np.testing.assert_allclose(line[:, 1], scale * (sound - low) - row, atol=1e-9)
    assert zero % 1 == pytest.approx((0 - low) / (high - low) * 0.72)


def test_every_field_has_its_name_and_a_scale_on_which_zero_is_the_middle() -> None:
    changes = (
        np.random.default_rng(0).normal(size=(9, 4, 2, 1))
        * np.logspace(-3, 3, 9)[:, None, None, None]
    )
    (axes,) = pictures.fields(changes, "abcdefghi", "x").axes
    shown, notes = canvas(axes), {text.get_text(): text.get_position() for text in axes.texts}
    assert axes.images[0].get_clim() == (-1, 1)
    for change, name in zip(changes, "abcdefghi", strict=True):
        x, y = notes[name]
        edge = np.abs(change).max()
        under = shown[int(np.ceil(y)) :, int(x - 0.5) : int(x - 0.5) + 2][:4]
        np.testing.assert_allclose(under, change[..., 0] / edge)
        assert notes[f"\N{PLUS-MINUS SIGN}{edge:.2g}"][0] == x
    coloured = changes[:2] * np.array([1.0, 0.0, -1.0])
    (axes,) = pictures.fields(coloured, "ab", "x").axes
    first = canvas(axes)[2:6, :2]
    np.testing.assert_array_equal(first[..., 1], 0.5)
    np.testing.assert_allclose(first - 0.5, coloured[0] / (2 * np.abs(coloured[0]).max()))


def test_active_latents_are_counted_row_by_row_and_ranked_by_their_prior() -> None:
    codes = (np.random.default_rng(0).random((500, 3)) < [0.1, 0.8, 0.4]).astype(float)
    left, right = pictures.active_latents(codes, np.array([0.1, 0.8, 0.4]), "a").axes
    shares = [np.mean(codes.sum(1) == count) for count in range(4)]
    np.testing.assert_allclose([bar.get_height() for bar in bars_of(left)], shares)
    np.testing.assert_allclose([bar.get_height() for bar in bars_of(right)], [0.8, 0.4, 0.1])
    np.testing.assert_allclose(np.asarray(right.lines[0].get_ydata()), codes.mean(0)[[1, 2, 0]])


def test_telemetry_has_a_panel_for_what_the_records_tell_of_and_none_for_the_rest() -> None:
    panels = {axes.get_title(): axes for axes in pictures.telemetry(TOLD, "image", "a").axes}
    assert {
        "bound",
        "noise, $\\sigma$",
        "active latents",
        "dead latents",
        "kept states",
        "time of an epoch",
    } < set(panels)
    np.testing.assert_array_equal(panels["dead latents"].lines[0].get_ydata(), range(8, 0, -1))
    areas = panels["time of an epoch"].collections
    tops = [
        max(np.asarray(path.vertices)[:, 1].max() for path in area.get_paths()) for area in areas
    ]
    np.testing.assert_allclose(tops, [3, 5, 5.5])
    fewer = [{"epoch": 1.0, "val_bound": -2.0, "active": 1.0, "dead": 0.0}]
    assert [axes.get_title() for axes in pictures.telemetry(fewer, "image", "a").axes] == [
        "bound",
        "active latents",
        "dead latents",
    ]


def test_histograms_rank_the_code_by_strength_and_show_shares() -> None:
    codes = np.random.default_rng(0).uniform(-1, 1, (4000, 3)) * [0.1, 1.0, 0.5]
    bars, shares = pictures.code_histograms(codes, np.array([True, True, False]), "a").axes[:2]
    strength = np.array([1.0, 0.5, 0.1]) / np.sqrt(3)
    np.testing.assert_allclose(
        [bar.get_path().get_extents(bar.get_patch_transform()).width for bar in bars.patches],
        strength,
        rtol=0.05,
    )
    shown = 10 ** canvas(shares)
    np.testing.assert_allclose(shown[:, 40].ravel(), [1 / 81, 2 / 81, 10 / 81], rtol=0.3)
    np.testing.assert_allclose(shown.sum(1), 1, atol=0.02)


@pytest.mark.parametrize("count", [5, 32, 33, 200])
def test_histograms_name_latents_by_their_index_beside_their_bars(count: int) -> None:
    spreads = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    codes = spreads * np.array([-1.0, 1.0])[:, None]
    bars = pictures.code_histograms(codes, np.ones(count, bool), "a").axes[0]
    named = {int(place): int(text.get_text()) for place, text in zip(*ticks_of(bars), strict=True)}
    assert min(count, 17) <= len(named) <= 32
    for place, latent in named.items():
        assert spreads[latent] == count - place, "the strongest stands at place 0"


def ticks_of(axes: Axes) -> tuple[NDArray[np.floating], list[Text]]:
    """The places of the labels of the vertical axis, and these."""
    return np.asarray(axes.get_yticks()), axes.get_yticklabels()


def test_learning_curves_draw_every_epoch() -> None:
    epochs = [
        {"epoch": float(i), "train_objective": 2.0 * i, "val_objective": 1.5 * i, "rate": 0.1}
        for i in range(1, 9)
    ]
    axes = pictures.learning_curves(epochs, "frame", "a").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [(i, 2 * i) for i in range(1, 9)])
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), [(i, 1.5 * i) for i in range(1, 9)])
    assert axes.get_ylabel() == "nats per frame"


def test_the_first_plunge_is_left_below_the_axis() -> None:
    epochs = [{"epoch": float(i), "val_bound": -1e6 if i == 0 else 100.0 + i} for i in range(30)]
    low, high = pictures.learning_curves(epochs, "frame", "a").axes[0].get_ylim()
    assert 0 < low < 110
    assert high > 129


def test_a_tradeoff_shows_every_row_in_the_colour_of_its_group() -> None:
    rows = [
        {"hoyer": 0.1 * i, "pesq_wb": 3 - 0.1 * i, "model": "vae" if i % 2 else "sdm"}
        for i in range(6)
    ]
    axes = pictures.tradeoff(rows, "hoyer", "pesq_wb", "model").axes[0]
    drawn = {str(group.get_label()): np.asarray(group.get_offsets()) for group in axes.collections}
    for name, points in drawn.items():
        expected = np.array(
            [(row["hoyer"], row["pesq_wb"]) for row in rows if row["model"] == name], float
        )
        np.testing.assert_allclose(points, expected)
    assert set(drawn) == {"vae", "sdm"}
    assert len({tuple(np.asarray(group.get_facecolor())[0]) for group in axes.collections}) == 2


def test_the_quality_of_batches_is_a_line_for_each_way_and_a_panel_for_each_length() -> None:
    batches = {32: 5.0, 128: 4.0, 512: float("nan")}
    points = [
        pictures.QualityPoint(way, lasting, batch, quality)
        for lasting in ("the same epochs", "the same time")
        for way in ("held", "root")
        for batch, quality in batches.items()
    ]
    panels = pictures.quality_by_batch(points, "vae", "bound").axes
    assert [axes.get_title() for axes in panels] == [
        "vae, after the same epochs",
        "vae, after the same time",
    ]
    for axes in panels:
        assert [line.get_label() for line in axes.lines] == ["held", "root"]
        for line in axes.lines:  # a training that diverged has no point
            assert np.asarray(line.get_xydata()).tolist() == [[32, 5], [128, 4]]
