"""Codes of recordings and pictures in Parquet files, and draws from the prior."""

from pathlib import Path

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_array
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from distvae.cli.use import with_data
from distvae.data import labels_of, open_dataset
from distvae.files.refusal import Refusal
from distvae.models.posteriors import Gaussian
from distvae.tasks.codes import encode, sample
from distvae.tasks.evaluate import score_run
from distvae.train.run import Run
from distvae.train.session import fit
from tests import tiny
from tests.called import Called


def test_codes_of_recordings_come_back_frame_by_frame(speech_run: Run, tmp_path: Path) -> None:
    target = tmp_path / "codes.parquet"
    count = encode(speech_run, speech_run.config.data, target)
    dataset = open_dataset(speech_run.config.data, quiet=True)
    table = pq.read_table(target)
    assert count == len(table) == sum(map(len, dataset.splits.values()))
    assert table.column_names == ["file", "speaker", "split", "frame", "code"]
    frame = table.to_pandas()
    dan = frame[frame["file"] == "test/dan/0.wav"]
    (rows,) = [rows for recording, rows in dataset.rows("test") if recording.speaker == "dan"]
    np.testing.assert_array_equal(dan["frame"], np.arange(len(dan)))
    expected = speech_run.encode(dataset.splits["test"][rows])
    np.testing.assert_array_equal(np.stack(dan["code"]), expected)


def test_active_codes_have_zeros_and_are_scored_with_them(speech_run: Run, tmp_path: Path) -> None:
    target = tmp_path / "codes.parquet"
    encode(speech_run, speech_run.config.data, target, split="test", active=True)
    found = pq.read_table(target)
    dataset = open_dataset(speech_run.config.data, quiet=True)
    q = speech_run.posterior(torch.tensor(dataset.splits["test"][:]))
    assert isinstance(q, Gaussian)
    active = torch.where(q.nats() > 0.5, q.mean, 0.0).detach()
    sizes = (active != 0).sum(1)
    assert 0 < sizes.double().mean() < active.shape[1]
    if "code" in found.column_names:
        np.testing.assert_allclose(np.stack(found["code"].to_numpy()), active, rtol=1e-5)
    else:
        assert [len(value) for value in found["code_values"].to_pylist()] == sizes.tolist()
    frames = speech_run.config.with_("eval", latent="active", metrics=("si_sdr",), processes=1)
    speech_run.config, config = frames, speech_run.config
    try:
        rows = score_run(speech_run, "test", progress=False).files
    finally:
        speech_run.config = config
    assert rows is not None
    counted = [(active[place] != 0).sum(1).double().mean() for _, place in dataset.rows("test")]
    assert rows["active"].tolist() == pytest.approx(torch.stack(counted).tolist())


def test_codes_of_images_carry_their_labels(image_run: Run, tmp_path: Path) -> None:
    encode(image_run, image_run.config.data, tmp_path / "codes.parquet", split="test")
    frame = pq.read_table(tmp_path / "codes.parquet").to_pandas()
    labels = labels_of(image_run.config.data)
    assert labels is not None
    np.testing.assert_array_equal(frame["label"], labels["test"])
    images = open_dataset(image_run.config.data, quiet=True).splits["test"][:]
    np.testing.assert_array_equal(np.stack(frame["code"]), image_run.encode(images))


def test_codes_with_zeros_are_written_without_them(tmp_path: Path) -> None:
    sections = {"data": {"kind": "bars"}, "model": {"kind": "ssc"}, "estep": {"kind": "selection"}}
    config = tiny.config(**sections)
    dataset = open_dataset(config.data, quiet=True)
    list(fit(config, dataset, tmp_path / "run"))
    run = Run.open(tmp_path / "run")
    encode(run, config.data, tmp_path / "codes.parquet", split="train")
    table = pq.read_table(tmp_path / "codes.parquet")
    assert table.column_names == ["split", "row", "code_indices", "code_values"]
    index, value = (table[name].combine_chunks() for name in ("code_indices", "code_values"))
    shape = len(table), int(table.schema.metadata[b"distvae.code_size"])
    parts = value.values.to_numpy(), index.values.to_numpy(), index.offsets.to_numpy()
    found = csr_array(parts, shape=shape)
    dense = run.encode(dataset.splits["train"])
    np.testing.assert_array_equal(found.todense(), dense)
    assert 0 < len(value.values) == np.count_nonzero(dense) < dense.size


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eight pictures in `trained`, and a run on them by a recipe in `private`: five
    to train on, two to test on.
    """
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in "abcdefgh":
        _save_noise(root / "trained" / f"{name}.png", random)
    data = {"kind": "images", "path": str(root / "trained"), "sizes": [5, 2], "holdout": 2}
    config = tiny.config(data=data, model={"likelihood": "bernoulli"})
    recipe = str(root / "private" / "mine.yaml")
    list(fit(config, open_dataset(config.data, quiet=True), root / "run", recipe=recipe))
    return root


@pytest.mark.parametrize("splits", [[""], ["train", "val"]])
def test_a_folder_of_pictures_needs_no_split_to_be_coded(
    folder: Path, splits: list[str], tmp_path: Path
) -> None:
    """Neither held out nor drawn as in training: even one picture is enough."""
    run, other, target = Run.open(folder / "run"), tmp_path / "other", tmp_path / "codes.parquet"
    for split in splits:
        _save_noise(other / split / "new.png", np.random.default_rng(1))
    assert encode(run, with_data(run.config, str(other), run.info).data, target) == len(splits)
    table = pq.read_table(target)
    assert table["split"].to_pylist() == [split or "test" for split in splits]
    assert table["file"].to_pylist() == [f"{split}/new.png".lstrip("/") for split in splits]


def test_each_code_is_that_of_the_picture_beside_it_and_names_no_folder_of_the_recipe(
    folder: Path, tmp_path: Path
) -> None:
    """The pictures are drawn into three splits, so they are not in the order of their names."""
    run = Run.open(folder / "run")
    encode(run, run.config.data, tmp_path / "codes.parquet")
    table = pq.read_table(tmp_path / "codes.parquet")
    assert table.schema.metadata[b"distvae.recipe"] == b"mine"
    assert table.column_names == ["file", "split", "row", "code"]
    files = table["file"].to_pylist()
    assert len(set(files)) == 7
    assert files != sorted(files)
    for file, code in zip(files, table["code"].to_pylist(), strict=True):
        alone = run.encode(folder / "trained" / file)
        np.testing.assert_allclose([code], alone, rtol=1e-5)


def test_one_picture_is_coded_by_itself_and_bad_words_are_refused(
    folder: Path, speech_run: Run, tmp_path: Path, call: Called
) -> None:
    picture, target = folder / "trained" / "c.png", tmp_path / "codes.parquet"
    run = str(folder / "run")
    code, _, error = call("encode", run, "absent.png", "-o", str(target))
    assert (code, error) == (2, "distvae: absent.png: no such file or folder\n")
    assert not target.exists()
    words = ["encode", run, str(picture), "-o", str(target)]
    assert call(*words)[0] == 0
    table = pq.read_table(target)
    assert table["file"].to_pylist() == ["c.png"]
    codes = Run.open(folder / "run").encode(picture)
    np.testing.assert_array_equal(table["code"].to_pylist(), codes)
    status, _, error = call(*words, "--split", "test", "--force")
    assert (status, "--split: 'test', but" in error) == (2, True)
    bad = [
        ("codes.parquet", "all", "--force"),
        ("a.csv", "all", "parquet"),
        ("a.parquet", "x", "'x'"),
    ]
    for name, split, reason in bad:
        with pytest.raises(Refusal, match=reason):
            encode(speech_run, speech_run.config.data, tmp_path / name, split)
    assert [path.name for path in tmp_path.iterdir()] == ["codes.parquet"]


def _save_noise(path: Path, random: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 256, (4, 5), np.uint8)).save(path)


@pytest.mark.slow
def test_draws_from_the_prior_are_a_function_of_the_seed(
    speech_run: Run, image_run: Run, tmp_path: Path
) -> None:
    for name, seed in {"a": 0, "b": 0, "c": 1}.items():
        sample(image_run, tmp_path / f"{name}.png", count=4, seed=seed)
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    with pytest.raises(Refusal, match="--force"):
        sample(image_run, tmp_path / "a.png")
    for run in (image_run, speech_run):
        sample(run, tmp_path / "a.png", count=4, force=True)
        assert np.load(tmp_path / "a.npy").shape == (4, run.dims)
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_is_trained_on_and_coded_in_its_own_order(tmp_path: Path, call: Called) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    frame = pandas.DataFrame(x, columns=["a", "b", "c"]).assign(name="word")
    table, other = tmp_path / "table.csv", tmp_path / "other.parquet"
    frame.to_csv(table, index=False)
    frame[["name", "c", "b", "a"]].iloc[::-1].to_parquet(other, index=False)
    run, codes, turned = (tmp_path / name for name in ("run", "codes.parquet", "turned.parquet"))
    words = ["train", "table", "--data", str(table), "--out", str(run), "--no-track"]
    code, _, error = call(*words, "train.epochs=2")
    assert (code, "data.columns='[a,b,c]'" in error) == (2, True)
    small = ["model.latent=4", "model.limit=2", "model.cycles=0"]
    assert call(*words, "train.epochs=2", "data.columns=[a,b,c]", *small)[0] == 0
    assert call("encode", str(run), str(table), "-o", str(codes))[0] == 0
    assert call("encode", str(run), str(other), "-o", str(turned))[0] == 0
    found = pq.read_table(codes)
    assert found.column_names == ["file", "row", "code_indices", "code_values"]
    assert found["row"].to_pylist() == list(range(60))
    expected = Run.open(run).encode(x)
    for path, wanted in (codes, expected), (turned, expected[::-1]):
        values = pq.read_table(path)["code_values"].to_pylist()
        assert np.concatenate(values).tolist() == wanted[wanted != 0].tolist()
    assert Run.open(run).config.data.path == str(table)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "components", "values"), [("digits", 24, 6), ("cancer", 8, 4)])
def test_codes_of_tables_need_fewer_values_than_components(
    name: str, components: int, values: int, tmp_path: Path, call: Called
) -> None:
    table = {"digits": load_digits, "cancer": load_breast_cancer}[name]().data.astype(np.float32)
    np.save(tmp_path / "table.npy", table)
    run = tmp_path / "run"
    words = ["--data", str(tmp_path / "table.npy"), "--out", str(run), "--no-track"]
    assert call("train", "table", *words, "--no-evaluate")[0] == 0
    trained, varies = Run.open(run), table.std(0) > 0
    codes = trained.encode(table)
    error = np.square(trained.decode(codes) - table)[:, varies].mean(0) / table.var(0)[varies]
    standard = StandardScaler().fit_transform(table)
    ratio = PCA(components).fit(standard).explained_variance_ratio_.sum()
    assert 1 - error.mean() > ratio, "the figures of docs/data.md"
    assert (codes != 0).sum(1).mean() < values
