from copy import copy
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from distvae.config import PatchData, SpeechData
from distvae.data import audio, open_dataset, signals
from distvae.data.windows import Grid
from distvae.files.refusal import Refusal
from distvae.interactive.given import kept_rows
from distvae.models.tvae import TVAE
from distvae.numerics.noise import order
from distvae.tasks.evaluate import evaluate
from distvae.tasks.images import as_images, load_rows, score_rows
from distvae.tasks.run_pictures import CONTEXTS, added, pictures_of
from distvae.train.run import Run
from distvae.train.session import fit
from tests import tiny

TABLES = {
    f"{name}.{suffix}" for name in ("files", "speakers", "refused") for suffix in ("csv", "parquet")
}

DRAWN = {"images.png", "codes.png", "atoms.png", "learning.png", "summary.json"}


def test_what_a_latent_adds_is_its_weight_in_a_linear_decoder() -> None:
    chance = np.random.default_rng(0)
    weights = chance.normal(size=(7, 5)).astype(np.float32)
    states = chance.integers(0, 2, size=(9, 7)).astype(np.float32)
    found = added(lambda z: z @ weights - 3, states, np.array([4, 0, 6]))
    np.testing.assert_allclose(found, weights[[4, 0, 6]], atol=1e-5)


def test_what_a_latent_adds_is_seen_where_it_takes_two_to_put_out_anything() -> None:
    states = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], np.float32)
    found = added(lambda z: np.maximum(z[:, :1] + z[:, 1:2] - 1, 0), states, np.arange(3))
    np.testing.assert_allclose(found[:, 0], [0.5, 0.25, 0])


def test_an_error_is_the_mean_of_the_rows_that_have_values(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    table = chance.normal(size=(90, 5))
    table[::2], table[chance.random(90) < 0.5, 2] = np.nan, np.nan
    data = {"kind": "rows", "path": str(kept_rows(table))}
    config = tiny.config(data=data, model={"likelihood": "gaussian"}, estep={"input": "raw"})
    dataset = open_dataset(config.data, quiet=True)
    list(fit(config, dataset, tmp_path / "run"))
    run = Run.open(tmp_path / "run")
    rows = dataset.splits["test"][:]
    seen = ~np.isnan(rows).all(1)
    assert 0 < (~np.isnan(rows)).all(1).sum() < seen.sum() < len(rows)
    errors = np.nanmean((run.reconstruct(rows[seen]) - rows[seen]) ** 2, axis=1)
    assert score_rows(run, "test").summary["squared_error"] == pytest.approx(errors.mean())


@pytest.mark.parametrize(("columns", "shape"), [(9, (3, 3, 1)), (12, (12, 1)), (13, (13, 1))])
def test_rows_of_a_table_are_curves_unless_they_may_be_a_square_picture(
    columns: int, shape: tuple[int, ...], tmp_path: Path
) -> None:
    table = np.random.default_rng(0).normal(size=(90, columns))
    data = {"kind": "rows", "path": str(kept_rows(table))}
    config = tiny.config(data=data, model={"likelihood": "gaussian"}, estep={"input": "standard"})
    list(fit(config, open_dataset(config.data, quiet=True), tmp_path / "run"))
    run = Run.open(tmp_path / "run")
    rows = load_rows(run, "test")
    assert as_images(rows[:5], run).shape == (5, *shape)
    drawn = dict(pictures_of(run, "test"))
    assert ("traversal" in drawn) == (columns == 9)


def test_everything_of_a_speech_run_lands_in_its_own_folder(speech_run: Run) -> None:
    evaluate(speech_run, split="test")
    folder = speech_run.path / "evaluation" / "test"
    drawn = {"spectrogram.png", "codes.png", "atoms.png", "dictionary.png", "learning.png"}
    sounds = {"original.wav", "reconstruction.wav"}
    assert {path.name for path in folder.iterdir()} == TABLES | drawn | sounds | {"summary.json"}
    data = speech_run.config.data
    assert isinstance(data, SpeechData)
    first = audio.load_recording(Path(data.path) / "test" / "cat" / "0.wav", data)
    assert {soundfile.info(folder / name).frames for name in sounds} == {len(first)}
    with pytest.raises(Refusal, match="not empty"):
        evaluate(speech_run, split="test")


def test_everything_of_a_run_on_images_lands_where_it_is_wanted(
    image_run: Run, tmp_path: Path
) -> None:
    (tmp_path / "there").touch()
    judgement = evaluate(image_run, tmp_path, force=True)
    drawn = {f"{name}.png" for name in ("traversal", "interpolation", "conditional", "encodings")}
    assert {path.name for path in tmp_path.iterdir()} == DRAWN | drawn | {"there"}
    assert judgement.summary["images"] == 40


@pytest.mark.slow
def test_an_evaluation_leaves_nothing_of_the_one_that_it_replaces(
    speech_run: Run, image_run: Run, bars_run: Run, tmp_path: Path
) -> None:
    def names(run: Run, folder: Path) -> set[str]:
        evaluate(run, folder, force=True, progress=False)
        return {path.name for path in folder.iterdir()}

    (tmp_path / "shared").mkdir()
    for name in ("mine.txt", "dictionary.png"):
        (tmp_path / "shared" / name).touch()
    assert "dictionary.png" in names(bars_run, tmp_path / "shared"), "it was not an evaluation's"
    for run in (speech_run, image_run, bars_run):
        alone = names(run, tmp_path / run.path.name)
        assert names(run, tmp_path / "shared") == alone | {"mine.txt"}


@pytest.mark.slow
def test_an_evaluation_that_is_refused_leaves_the_earlier_one(
    bars_run: Run, tmp_path: Path
) -> None:
    evaluate(bars_run, tmp_path, progress=False)
    before = {path.name for path in tmp_path.iterdir()}
    asked = copy(bars_run)
    asked.config = asked.config.with_("eval", metrics=("mig",))
    with pytest.raises(Refusal):
        evaluate(asked, tmp_path, force=True, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_everything_of_a_run_with_binary_latents_is_drawn_and_judged(
    bars_run: Run, tmp_path: Path
) -> None:
    judgement = evaluate(bars_run, tmp_path, split="all")
    assert {path.name for path in tmp_path.iterdir()} == DRAWN
    assert judgement.summary["images"] == 40


def test_windows_of_pictures_and_sounds_are_judged_by_their_error(
    window_run: Run, tmp_path: Path
) -> None:
    judgement = evaluate(window_run, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == DRAWN
    rows = open_dataset(window_run.config.data).splits["train"]
    with torch.no_grad():
        q = window_run.posterior(torch.from_numpy(rows), torch.arange(len(rows)))
        states, weight = q.points(0, None)
        decoded = np.einsum("bs,bsd->bd", weight.numpy(), window_run.model.decode(states).numpy())
    assert judgement.summary["windows"] == len(rows)
    assert judgement.summary["squared_error"] == pytest.approx(
        float(np.square(decoded - rows).mean()), rel=1e-4
    )
    assert not judgement.summary.keys() & {"pesq_wb", "stoi", "si_sdr", "isd", "images"}


def test_parts_are_drawn_as_what_a_latent_adds(bars_run: Run, tmp_path: Path) -> None:
    drawn = dict(pictures_of(bars_run, "test"))["atoms"]()
    assert isinstance(bars_run.model, TVAE)
    pi = bars_run.model.pi.numpy()
    rows = load_rows(bars_run, "test")
    states = bars_run.encode(rows[order(0, 0, len(rows))])[:CONTEXTS].round()
    parts = added(bars_run.decode, states, np.arange(5))
    (axes,) = drawn.axes
    shown = np.asarray(axes.images[0].get_array())
    for name, latent in zip(axes.texts[::2], np.argsort(-pi), strict=True):
        assert name.get_text() == f"{latent}: {pi[latent]:.2g}"
        x, y = name.get_position()
        under = shown[int(np.ceil(y)) :, int(x - 0.5) : int(x - 0.5) + 2][:2]
        part = parts[latent].reshape(2, 2)
        np.testing.assert_allclose(under, part / np.abs(part).max(), atol=1e-5)


def test_windows_are_seen_as_they_were_cut(window_run: Run) -> None:
    data = window_run.config.data
    assert isinstance(data, PatchData)
    array = signals.read_signal(Path(data.path)).values
    cut = Grid(array.shape, data.window).cut(array.astype(np.float32))
    corner = array[np.ix_(*map(np.arange, data.window))]
    np.testing.assert_array_equal(as_images(cut, window_run)[0], corner.astype(np.float32))
    window_run.shape, known = (), window_run.shape  # as in a run from before it was written down
    np.testing.assert_array_equal(as_images(cut, window_run)[0], corner.astype(np.float32))
    window_run.shape = known
