import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distvae.commands.evaluate import with_data
from distvae.config import ImageData, from_dict
from distvae.data import labels_of, open_dataset
from distvae.files.refusal import Refusal
from distvae.tasks.codes import encode, sample
from distvae.train.run import Run
from distvae.train.session import fit


def test_codes_of_recordings_come_back_frame_by_frame(speech_run: Run, tmp_path: Path) -> None:
    target = tmp_path / "codes.parquet"
    rows = encode(speech_run, speech_run.config.data, target)
    dataset = open_dataset(speech_run.config.data)
    table = pq.read_table(target)
    assert rows == len(table) == sum(map(len, dataset.splits.values()))
    assert table.column_names == ["file", "speaker", "split", "frame", "code"]
    frame = table.to_pandas()
    dan = frame[frame["file"] == "test/dan/0.wav"]
    (rows_of_dan,) = [
        rows for recording, rows in dataset.rows("test") if recording.speaker == "dan"
    ]
    np.testing.assert_array_equal(dan["frame"], np.arange(len(dan)))
    np.testing.assert_array_equal(
        np.stack(dan["code"]), speech_run.encode(dataset.splits["test"][rows_of_dan])
    )


def test_spectra_may_be_as_librosa_has_them(speech_run: Run) -> None:
    """Power (bins, frames) of a wave; that of its frames one by one has the codes to expect."""
    import librosa

    wave = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    spectra = np.square(np.abs(librosa.stft(wave, n_fft=512, hop_length=128)))
    codes = speech_run.encode(spectra, bins_first=True)
    assert codes.shape == (speech_run.model.code_size, spectra.shape[1])
    power = speech_run.decode(codes, bins_first=True)
    assert power.shape == spectra.shape
    for frame in (0, 7, spectra.shape[1] - 1):
        code = speech_run.encode(spectra[:, frame][None])
        np.testing.assert_allclose(codes[:, frame], code[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(power[:, frame], speech_run.decode(code)[0], rtol=1e-4)


def test_the_file_says_which_run_coded_it(speech_run: Run, tmp_path: Path) -> None:
    encode(speech_run, speech_run.config.data, tmp_path / "codes.parquet", split="val")
    metadata = pq.read_schema(tmp_path / "codes.parquet").metadata
    assert metadata[b"distvae.recipe"] == b"tiny"
    assert metadata[b"distvae.run"].decode() == speech_run.info["config_sha256"]


def test_codes_of_images_carry_their_labels(image_run: Run, tmp_path: Path) -> None:
    encode(image_run, image_run.config.data, tmp_path / "codes.parquet", split="test")
    frame = pq.read_table(tmp_path / "codes.parquet").to_pandas()
    labels = labels_of(image_run.config.data)
    assert labels is not None
    np.testing.assert_array_equal(frame["label"], labels["test"])
    images = open_dataset(image_run.config.data).splits["test"][:]
    np.testing.assert_array_equal(np.stack(frame["code"]), image_run.encode(images))


@pytest.mark.parametrize("splits", [[""], ["test"], ["train", "val"]])
def test_a_folder_of_pictures_needs_no_split_to_be_coded(splits: list[str], tmp_path: Path) -> None:
    """Neither held out nor drawn as in training: even one picture is enough."""
    random = np.random.default_rng(0)
    trained, other = tmp_path / "trained", tmp_path / "other"
    for name in "abcdefgh":
        _save_noise(trained / f"{name}.png", random)
    for split in splits:
        _save_noise(other / split / "new.png", random)
    tree = {
        "data": {"kind": "images", "path": str(trained), "sizes": [5, 2], "holdout": 2},
        "model": {"latent": 2, "hidden": [3], "likelihood": "bernoulli"},
        "estep": {"hidden": [3], "input": "raw"},
        "train": {"epochs": 1, "batch": 4, "device": "cpu"},
    }
    config = from_dict(tree)
    for _ in fit(config, open_dataset(config.data, quiet=True), tmp_path / "run", recipe="tiny"):
        pass
    run = Run.open(tmp_path / "run")
    target = tmp_path / "codes.parquet"
    assert encode(run, with_data(run.config, str(other), run.info).data, target) == len(splits)
    table = pq.read_table(target)
    assert table["split"].to_pylist() == [split or "test" for split in splits]
    assert encode(run, with_data(run.config, str(trained), run.info).data, target, force=True) == 7
    moved = trained.rename(tmp_path / "moved")
    data = with_data(run.config, str(moved), run.info).data
    assert encode(run, data, target, split="test", force=True) == 2


def test_an_empty_split_is_neither_judged_nor_trained_on(image_run: Run, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in "abc":
        _save_noise(tmp_path / "val" / f"{name}.png", random)
    data = ImageData(path=str(tmp_path), split="loose")
    dataset = open_dataset(data)
    assert dataset.split_names("all") == ["val"]
    for split in ("test", "train"):
        with pytest.raises(Refusal, match=f"no image in split '{split}'; val or all expected"):
            dataset.split_names(split)
    config = replace(image_run.config, data=data)
    with pytest.raises(Refusal, match="no image in split 'train'"):
        next(fit(config, dataset, tmp_path / "run", recipe="tiny"))


def test_idx_files_without_labels_are_coded(image_run: Run, images: Path, tmp_path: Path) -> None:
    for file in images.glob("*-images-*"):
        shutil.copy(file, tmp_path)
    data = with_data(image_run.config, str(tmp_path), image_run.info).data
    rows = encode(image_run, data, tmp_path / "codes.parquet")
    assert rows == 96 + 40
    assert "label" not in pq.read_table(tmp_path / "codes.parquet").column_names


def _save_noise(path: Path, random: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 256, (4, 5), np.uint8)).save(path)


def test_rows_that_all_splits_share_are_coded_once(bars_run: Run, tmp_path: Path) -> None:
    assert encode(bars_run, bars_run.config.data, tmp_path / "codes.parquet") == 40
    frame = pq.read_table(tmp_path / "codes.parquet").to_pandas()
    images = open_dataset(bars_run.config.data).splits["train"][:]
    np.testing.assert_array_equal(np.stack(frame["code"]), bars_run.encode(images))


def test_an_existing_file_a_wrong_suffix_and_an_unknown_split_are_refused(
    speech_run: Run, tmp_path: Path
) -> None:
    (tmp_path / "there.parquet").touch()
    for name, split, reason in (
        ("there.parquet", "all", "--force"),
        ("a.csv", "all", "parquet"),
        ("a.parquet", "x", "'x'"),
    ):
        with pytest.raises(Refusal, match=reason):
            encode(speech_run, speech_run.config.data, tmp_path / name, split)
    assert [path.name for path in tmp_path.iterdir()] == ["there.parquet"]


def test_windows_are_drawn_from_the_prior(window_run: Run, tmp_path: Path) -> None:
    sample(window_run, tmp_path / "a.png", count=5)
    assert np.load(tmp_path / "a.npy").shape == (5, window_run.dims)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_draws_from_the_prior_are_a_function_of_the_seed(
    speech_run: Run, image_run: Run, tmp_path: Path
) -> None:
    for run in (speech_run, image_run):
        for name, seed in {"a": 0, "b": 0, "c": 1}.items():
            sample(run, tmp_path / f"{name}.png", count=4, seed=seed, force=True)
        a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
        assert a.shape == (4, run.dims)
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(Refusal, match="--force"):
        sample(image_run, tmp_path / "a.png")
