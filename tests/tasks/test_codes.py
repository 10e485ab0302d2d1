import gzip
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from distvae.cli.use import with_data
from distvae.config import ImageData
from distvae.data import labels_of, open_dataset
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain
from distvae.tasks.codes import encode, encode_file, sample
from distvae.train.run import Run
from distvae.train.session import fit
from tests import tiny
from tests.called import Called


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


@pytest.mark.slow
def test_spectra_may_be_as_librosa_has_them(speech_run: Run) -> None:
    """The power of a wave (bins, frames) has the same codes as its single frames."""
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


@pytest.fixture
def of_pictures(tmp_path: Path) -> Run:
    """Train a run on eight pictures: five to train on, two to test on."""
    random = np.random.default_rng(0)
    for name in "abcdefgh":
        _save_noise(tmp_path / "trained" / f"{name}.png", random)
    data = {"kind": "images", "path": str(tmp_path / "trained"), "sizes": [5, 2], "holdout": 2}
    config = tiny.config(data=data, model={"likelihood": "bernoulli"})
    list(fit(config, open_dataset(config.data, quiet=True), tmp_path / "run"))
    return Run.open(tmp_path / "run")


@pytest.mark.parametrize("splits", [[""], ["test"], ["train", "val"]])
def test_a_folder_of_pictures_needs_no_split_to_be_coded(
    of_pictures: Run, splits: list[str], tmp_path: Path
) -> None:
    """Neither held out nor drawn as in training: even one picture is enough."""
    run, other, target = of_pictures, tmp_path / "other", tmp_path / "codes.parquet"
    for split in splits:
        _save_noise(other / split / "new.png", np.random.default_rng(1))
    assert encode(run, with_data(run.config, str(other), run.info).data, target) == len(splits)
    table = pq.read_table(target)
    assert table["split"].to_pylist() == [split or "test" for split in splits]
    assert table["file"].to_pylist() == [f"{split}/new.png".lstrip("/") for split in splits]
    trained = with_data(run.config, str(tmp_path / "trained"), run.info).data
    assert encode(run, trained, target, force=True) == 7


def test_each_code_is_that_of_the_picture_beside_it(of_pictures: Run, tmp_path: Path) -> None:
    """The pictures are drawn into three splits, so they are not in the order of their names."""
    encode(of_pictures, of_pictures.config.data, tmp_path / "codes.parquet")
    table = pq.read_table(tmp_path / "codes.parquet")
    assert table.column_names == ["file", "split", "row", "code"]
    files = table["file"].to_pylist()
    assert len(set(files)) == 7
    assert files != sorted(files)
    for file, code in zip(files, table["code"].to_pylist(), strict=True):
        alone = of_pictures.encode(tmp_path / "trained" / file)
        np.testing.assert_allclose([code], alone, rtol=1e-5)


def test_one_picture_is_coded_by_itself(of_pictures: Run, tmp_path: Path, call: Called) -> None:
    picture, target = tmp_path / "trained" / "c.png", tmp_path / "codes.parquet"
    words = ["encode", str(of_pictures.path), str(picture), "-o", str(target)]
    assert call(*words)[0] == 0
    table = pq.read_table(target)
    assert table["file"].to_pylist() == ["c.png"]
    np.testing.assert_array_equal(table["code"].to_pylist(), of_pictures.encode(picture))
    status, _, error = call(*words, "--split", "test", "--force")
    assert (status, "--split: 'test', but" in error) == (2, True)


def test_one_recording_is_coded_frame_by_frame(speech_run: Run, tmp_path: Path) -> None:
    recording = open_dataset(speech_run.config.data).root / "test" / "dan" / "0.wav"
    rows = encode_file(speech_run, recording, tmp_path / "codes.parquet")
    table = pq.read_table(tmp_path / "codes.parquet")
    assert table.column_names == ["file", "frame", "code"]
    assert table["file"].to_pylist() == ["0.wav"] * rows
    assert table["frame"].to_pylist() == [*range(rows)]
    np.testing.assert_array_equal(table["code"].to_pylist(), speech_run.encode(recording))


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
    (tmp_path / "val").rename(tmp_path / "train")
    with pytest.raises(Refusal, match="no image in split 'val'"):
        next(fit(config, open_dataset(data), tmp_path / "run", recipe="tiny"))


@pytest.mark.parametrize(
    ("assigned", "counts"),
    [
        ({}, [0, 0, 8]),
        ({"colour": "grey"}, [0, 0, 8]),
        ({"sizes": [4, 3]}, [2, 2, 3]),
        ({"test": 0.5, "sizes": None}, [2, 2, 4]),
        ({"split": "auto", "holdout": 1}, [4, 1, 2]),
    ],
)
def test_other_data_are_divided_as_asked_and_not_at_all_unless_asked(
    of_pictures: Run, tmp_path: Path, assigned: dict[str, Plain], counts: list[int]
) -> None:
    for name in "ijklmnop":
        _save_noise(tmp_path / "other" / f"{name}.png", np.random.default_rng(ord(name)))
    other = with_data(of_pictures.config, str(tmp_path / "other"), of_pictures.info, [*assigned])
    splits = open_dataset(other.with_("data", **assigned).data, quiet=True).splits
    assert [len(splits[name]) for name in ("train", "val", "test")] == counts


def test_data_that_were_moved_are_read_in_the_order_of_before(
    of_pictures: Run, tmp_path: Path
) -> None:
    run, target = of_pictures, tmp_path / "codes.parquet"
    before = run.encode(str(tmp_path / "trained"))
    moved = (tmp_path / "trained").rename(tmp_path / "moved")
    np.testing.assert_array_equal(run.encode(str(moved)), before)
    data = with_data(run.config, str(moved), run.info).data
    assert encode(run, data, target, split="test") == 2


def test_a_path_that_does_not_exist_is_refused_as_such(of_pictures: Run) -> None:
    with pytest.raises(Refusal, match="absent: no such file or folder"):
        of_pictures.encode("absent")


def test_a_file_that_does_not_exist_is_not_taken_for_a_folder(
    of_pictures: Run, tmp_path: Path, call: Called
) -> None:
    target = tmp_path / "codes.parquet"
    code, _, error = call("encode", str(of_pictures.path), "absent.png", "-o", str(target))
    assert (code, error) == (2, "distvae: absent.png: no such file or folder\n")
    assert not target.exists()


def test_codes_name_a_recipe_without_its_folders(of_pictures: Run, tmp_path: Path) -> None:
    config, recipe = of_pictures.config, tmp_path / "private" / "mine.yaml"
    list(fit(config, open_dataset(config.data), tmp_path / "named", recipe=str(recipe)))
    encode(Run.open(tmp_path / "named"), config.data, tmp_path / "codes.parquet")
    metadata = pq.read_schema(tmp_path / "codes.parquet").metadata
    assert metadata[b"distvae.recipe"] == b"mine"


def test_other_recordings_need_no_split_and_none_is_drawn(
    speech_run: Run, speech: Path, tmp_path: Path
) -> None:
    for number, file in enumerate(sorted(speech.rglob("*.wav"))):
        (tmp_path / "other").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "other" / f"{number}.wav")
    data = with_data(speech_run.config, str(tmp_path / "other"), speech_run.info).data
    rows = encode(speech_run, data, tmp_path / "codes.parquet")
    assert {*pq.read_table(tmp_path / "codes.parquet")["split"].to_pylist()} == {"test"}
    assert rows == len(speech_run.encode(str(tmp_path / "other")))
    own = with_data(speech_run.config, str(speech), speech_run.info).data
    assert own == speech_run.config.data
    shutil.copytree(speech, tmp_path / "copy")
    moved = with_data(speech_run.config, str(tmp_path / "copy"), speech_run.info).data
    assert moved == replace(own, path=str(tmp_path / "copy"))


def test_of_other_idx_files_none_are_held_out(image_run: Run, images: Path, tmp_path: Path) -> None:
    for file in images.glob("*-images-*"):
        content = bytearray(gzip.decompress(file.read_bytes()))
        content[-1] ^= 1
        (tmp_path / file.name).write_bytes(gzip.compress(content))
    data = with_data(image_run.config, str(tmp_path), image_run.info).data
    assert {name: len(rows) for name, rows in open_dataset(data).splits.items()} == {
        "train": 96,
        "val": 0,
        "test": 40,
    }


def test_all_images_of_an_archive_are_reconstructed(of_pictures: Run, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 5), np.uint8)
    np.savez(tmp_path / "other.npz", x_train=images[:4], x_test=images[4:])
    np.testing.assert_array_equal(
        of_pictures.reconstruct(str(tmp_path / "other.npz")),
        of_pictures.reconstruct(images).reshape(7, -1),
    )


def test_masked_images_of_bytes_are_scaled(of_pictures: Run) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)
    np.testing.assert_array_equal(
        of_pictures.encode(np.ma.masked_array(images)), of_pictures.encode(images)
    )


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


def test_the_code_of_a_row_does_not_depend_on_its_place(bars_run: Run) -> None:
    rows = open_dataset(bars_run.config.data, quiet=True).splits["test"][:]
    whole, turned = bars_run.encode(rows), bars_run.encode(rows[::-1])
    # On some processors the last digits of a product depend on the place in it, and so do those of
    # codes. Where they do not, codes are the same to the bit.
    states = torch.cartesian_prod(*[torch.arange(2.0)] * 5)
    with torch.no_grad():
        turned_product = bars_run.model.decode(states.flip(0)).flip(0)
        exact = torch.equal(turned_product, bars_run.model.decode(states))
    alike = partial(np.testing.assert_allclose, rtol=0 if exact else 1e-6, atol=0)
    alike(turned[::-1], whole)
    alike(bars_run.encode(rows[7:8]), whole[7:8])
    alike(bars_run.reconstruct(rows)[3:4], bars_run.reconstruct(rows[3:4]))


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
