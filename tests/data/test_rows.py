import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distvae import cli
from distvae.config import RowsData
from distvae.data import open_dataset
from distvae.data.dataset import Dataset, Stacked
from distvae.data.tables import formats, plan
from distvae.data.tables.formats import Table
from distvae.data.tables.ingest import Division, ingest
from distvae.data.tables.rows import digest
from distvae.files.refusal import Refusal
from distvae.numerics.noise import order
from distvae.train.session import fit
from tests import tiny

Floats = NDArray[np.floating]
FINITE = ~np.uint32(1 << 23)  # a bit of the exponent: without it no float is infinite


def columns(x: Floats) -> pa.Table:
    return pa.table({f"c{i}": x[:, i] for i in range(x.shape[1])})


def lists(x: Floats, length: int = -1) -> pa.Table:
    return pa.table({"x": pa.array(list(x), pa.list_(pa.from_numpy_dtype(x.dtype), length))})


WAYS: dict[str, Callable[[Path, Floats], None]] = {
    "plain.npy": np.save,
    "turned.npy": lambda path, x: np.save(path, np.asfortranarray(x)),
    "columns.parquet": lambda path, x: pq.write_table(columns(x), path, row_group_size=7),
    "lists.parquet": lambda path, x: pq.write_table(lists(x), path),
    "packed.feather": lambda path, x: feather.write_feather(lists(x), path, chunksize=5),
    "mapped.arrow": lambda path, x: feather.write_feather(
        lists(x, x.shape[1]), path, compression="uncompressed"
    ),
}
"""How a table of numbers may be kept, by a name that shows it."""


def stored(folder: Path, x: Floats, way: str = "plain.npy", name: str = "") -> Path:
    path = folder / f"{name}{way}"
    WAYS[way](path, x)
    return path


def files(folder: Path, split: str = "") -> list[NDArray[np.float32]]:
    """The rows of every file, read by pyarrow."""
    found = [
        feather.read_table(path)["row"].combine_chunks()
        for path in sorted(folder.glob(f"{split}*.arrow"))
    ]
    return [column.flatten().to_numpy().reshape(len(column), -1) for column in found]


def in_places(folder: Path) -> NDArray[np.float32]:
    """All rows in the order of their places."""
    return np.concatenate(
        [rows for split in ("train", "val", "test") for rows in files(folder, split)]
    )


def bits(x: Floats) -> list[bytes]:
    return [row.tobytes() for row in x]


def numbered(rows: int, values: int = 3) -> NDArray[np.float32]:
    """Rows that begin with their number."""
    x = np.random.default_rng(rows).normal(size=(rows, values)).astype(np.float32)
    x[:, 0] = np.arange(rows)
    return x


def opened(folder: Path) -> Dataset:
    return open_dataset(RowsData(path=str(folder)))


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(sorted(WAYS))), min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(4, 40),
    st.sampled_from([0, 0.01, 0.3]),
    st.sampled_from([0, 0.2]),
    st.integers(0, 2**32),
)
def test_every_row_is_in_one_file_once_bit_for_bit(
    sources: list[tuple[int, str]], values: int, per_file: int, val: float, test: float, seed: int
) -> None:
    rows = sum(count for count, _ in sources)
    if rows < 3:
        return
    words = np.random.default_rng(seed).integers(0, 2**32, (rows, values), np.uint32) & FINITE
    words[words % 5 == 0] = 0x7FC00123  # a NaN that says more than that
    x = words.view(np.float32)
    with TemporaryDirectory() as name:
        folder, first, paths = Path(name), 0, []
        for k, (count, way) in enumerate(sources):
            paths.append(stored(folder, x[first : first + count], way, str(k)))
            first += count
        ingest(paths, folder / "out", Division(val, test, seed, per_file))
        found = files(folder / "out")
        assert sorted(bits(np.concatenate(found))) == sorted(bits(x))
        assert max(map(len, found)) <= per_file
        splits = opened(folder / "out").splits
        held = {split: len(splits[split]) for split in splits}
    aside = {
        "val": max(1, round(val * rows)) if val else 0,
        "test": max(1, round(test * rows)) if test else 0,
    }
    train = rows - sum(aside.values())
    assert held["train"] == train
    assert held["val"] == (aside["val"] or train)
    assert held["test"] == (aside["test"] or held["val"])


def test_the_order_depends_on_seed_and_number_of_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = numbered(200)
    parts = [
        stored(tmp_path, part, way) for part, way in zip(np.split(x, [3, 120]), WAYS, strict=False)
    ]
    whole, other = (
        stored(tmp_path, x, name="whole"),
        stored(tmp_path, numbered(200, 8), name="other"),
    )
    monkeypatch.setattr(formats, "GROUP", 4 * 3 * 11)
    ingest([whole], tmp_path / "one", Division(rows_per_file=50))
    monkeypatch.setattr(plan, "BLOCK", 4 * 3 * 7)
    ingest(parts, tmp_path / "parts", Division(rows_per_file=50))
    ingest([other], tmp_path / "other", Division(val=0, test=0.5, rows_per_file=9))
    ingest([whole], tmp_path / "seed", Division(seed=1))
    first = in_places(tmp_path / "one")
    assert bits(in_places(tmp_path / "parts")) == bits(first)
    np.testing.assert_array_equal(in_places(tmp_path / "other")[:, 0], first[:, 0])
    assert (in_places(tmp_path / "seed")[:, 0] != first[:, 0]).mean() > 0.9


def test_the_same_rows_give_the_same_digest_and_others_another(tmp_path: Path) -> None:
    x = numbered(50)
    made = [x, x, x + 1, x]
    for k, rows in enumerate(made):
        (tmp_path / str(k)).mkdir()
        ingest([stored(tmp_path / str(k), rows)], tmp_path / str(k) / "out", Division(seed=k // 3))
    digests = [opened(tmp_path / str(k) / "out").digest for k in range(4)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_rows_sorted_by_class_are_mixed_in_every_file_and_every_batch(tmp_path: Path) -> None:
    """Also in training under the same seed: its first epoch must not visit the rows in their former
    order.
    """
    classes = np.arange(20_000, dtype=np.float32)[:, None] // 2000
    ingest([stored(tmp_path, classes)], tmp_path / "out", Division(0, 0, rows_per_file=2000))
    x = opened(tmp_path / "out").splits["train"]
    batches = order(0, 0, 20_000).reshape(10, 2000)
    for rows in [*files(tmp_path / "out"), *(x[batch] for batch in batches)]:
        counts = np.bincount(rows[:, 0].astype(int), minlength=10)
        # In standard deviations of chance.
        assert np.abs(counts - 200).max() < 5 * np.sqrt(2000 * 0.1 * 0.9)


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=5).filter(any),
    st.slices(30),
    st.lists(st.integers(0, 10**6), max_size=60),
)
def test_several_tables_behave_as_their_concatenation(
    lengths: list[int], cut: slice, places: list[int]
) -> None:
    parts = [
        np.random.default_rng(k).random((length, 3), np.float32) for k, length in enumerate(lengths)
    ]
    stacked, whole = Stacked(parts), np.concatenate(parts)
    numbers = np.array(places, np.int64) % len(whole)
    assert (len(stacked), stacked.shape, stacked.dtype, stacked.ndim) == (
        len(whole),
        whole.shape,
        whole.dtype,
        2,
    )
    for rows in (cut, numbers, slice(None)):
        assert stacked[rows].shape == whole[rows].shape
        np.testing.assert_array_equal(stacked[rows], whole[rows])
    for outside in (-1, len(whole)):
        with pytest.raises(IndexError):
            stacked[np.array([0, outside])]


@pytest.mark.parametrize("per_file", [7, 1000])
def test_rows_are_mapped_and_not_read(tmp_path: Path, per_file: int) -> None:
    ingest([stored(tmp_path, numbered(60))], tmp_path / "out", Division(rows_per_file=per_file))
    before = pa.total_allocated_bytes()
    train = opened(tmp_path / "out").splits["train"]
    assert pa.total_allocated_bytes() == before
    for part in train.parts if isinstance(train, Stacked) else [train]:
        assert not part[:].flags.owndata
        assert not part[:].flags.writeable


MODELS: dict[str, dict[str, dict[str, Any]]] = {
    # With the usual floor, recorded facts take the place of these rows, and agree to rounding.
    "an encoder": {"estep": {"floor": 1e-9}},
    "a search": {
        "model": {"kind": "tvae", "latent": 6},
        "estep": {"kind": "evolution", "states": 8},
    },
}


@pytest.mark.parametrize("model", MODELS)
def test_training_equals_that_on_the_same_rows_in_memory(tmp_path: Path, model: str) -> None:
    splits = tiny.dataset(120).splits
    source = stored(tmp_path, np.concatenate([splits[split][:] for split in splits]))
    ingest([source], tmp_path / "out", Division(0.2, 0.2, rows_per_file=11))
    mapped = opened(tmp_path / "out")
    assert isinstance(mapped.splits["train"], Stacked)
    held = {split: np.concatenate(files(tmp_path / "out", split)) for split in mapped.splits}
    config = tiny.config(**MODELS[model])
    for name, dataset in {"mapped": mapped, "held": replace(mapped, splits=held)}.items():
        list(fit(config, dataset, tmp_path / name))
    final = [
        json.loads((tmp_path / name / "last.json").read_text())["sha256"]
        for name in ("mapped", "held")
    ]
    assert final[0] == final[1]


def test_missing_values_stay_missing_and_are_told_of(tmp_path: Path) -> None:
    x = numbered(40).astype(np.float64)
    x[3, 1] = np.nan
    gaps = pa.table({"a": x[:, 0], "b": pa.array(x[:, 1], from_pandas=True), "c": x[:, 2]})
    pq.write_table(gaps, tmp_path / "gaps.parquet")
    assert "some missing" in ingest([tmp_path / "gaps.parquet"], tmp_path / "out")
    rows = in_places(tmp_path / "out")
    np.testing.assert_array_equal(rows[np.argsort(rows[:, 0])], x.astype(np.float32))
    assert json.loads((tmp_path / "out" / "rows.json").read_text())["missing"] is True


def test_whole_numbers_and_truth_values_are_numbers(tmp_path: Path) -> None:
    mixed = pa.table(
        {"a": np.arange(9), "b": np.arange(9) % 2 == 0, "c": np.arange(9, dtype=np.float16)}
    )
    feather.write_feather(mixed, tmp_path / "mixed.feather")
    np.save(tmp_path / "bytes.npy", np.full((4, 3), 200, np.uint8))
    ingest([tmp_path / "mixed.feather", tmp_path / "bytes.npy"], tmp_path / "out")
    rows = in_places(tmp_path / "out")
    expected = [[k, k % 2 == 0, k] for k in range(9)] + [[200] * 3] * 4
    assert sorted(map(tuple, rows.tolist())) == sorted(
        map(tuple, np.array(expected, float).tolist())
    )


Said = tuple[int, str, str]


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], Said]:
    """Runs a command in an empty folder: its exit code, and what it said."""

    def run(line: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["distvae", *line.split()])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return (int(left.value.code or 0), *capsys.readouterr())

    monkeypatch.chdir(tmp_path)
    return run


def test_the_command_says_what_it_made_and_how_to_go_on(
    call: Callable[[str], Said], tmp_path: Path
) -> None:
    for name in "ab":
        stored(tmp_path, numbered(1000), name=name)
    code, out, err = call("ingest aplain.npy bplain.npy made --val 0.1 --test 0")
    size = sum(path.stat().st_size for path in (tmp_path / "made").glob("*.arrow"))
    assert (code, err) == (0, "")
    assert out.startswith(
        f"made: 2,000 rows (1,800 train, 200 val) of 3 values, {size:,} bytes; next: distvae train "
    )
    command = out.rpartition("next: distvae ")[2].strip()
    small = (
        "model.latent=2 model.hidden=[4] estep.hidden=[4] train.epochs=1 train.batch=100 --no-track"
        " --no-evaluate"
    )
    assert call(f"{command} {small}")[0] == 0
    assert call("ingest aplain.npy made --force --quiet") == (0, "", "")
    assert len(in_places(tmp_path / "made")) == 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "aplain.npy",
        "bplain.npy",
        "made",
        "runs",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["mnist-vae model.likelihood=gaussian", "bars", "speech-sdm"])
def test_runs_on_rows_with_gaps_are_judged_and_encoded(
    call: Callable[[str], Said], tmp_path: Path, recipe: str
) -> None:
    x = np.random.default_rng(0).exponential(size=(300, 12)).astype(np.float32)
    x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    ingest([stored(tmp_path, x)], tmp_path / "out", Division(0.2, 0.2))
    code, out, _ = call(
        f"train {recipe} data.kind=rows --data out --out run train.epochs=1 --no-track"
    )
    assert code == 0
    assert all(np.isfinite(float(line.split()[1])) for line in out.splitlines())
    assert call("encode run out -o codes.parquet")[0] == 0
    codes = np.stack(pq.read_table("codes.parquet").to_pandas()["code"])
    assert len(codes) == 300
    assert np.isfinite(codes).all()


def words(path: Path, rows: list[list[float] | None]) -> None:
    feather.write_feather(pa.table({"x": rows}), path)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "cube.npy": (
        lambda p: np.save(p, np.zeros((3, 3, 3))),
        "float64 of shape (3, 3, 3); (rows, values)",
    ),
    "complex.npy": (lambda p: np.save(p, np.zeros((3, 3), complex)), "complex128 of shape"),
    "objects.npy": (lambda p: np.save(p, np.array([[None]]), allow_pickle=True), "Python objects"),
    "none.npy": (lambda p: np.save(p, np.zeros((0, 3))), "0 rows of 3 values"),
    "thin.npy": (lambda p: np.save(p, np.zeros((3, 0))), "3 rows of 0 values"),
    "wide.npy": (lambda p: np.save(p, np.zeros((3, 4))), "rows of 4 values; 3 expected"),
    "infinite.npy": (
        lambda p: np.save(p, np.where(np.eye(9, 3) * [0, 1, 0] == 1, -np.inf, 0)),
        "row 1 is infinite",
    ),
    "large.npy": (lambda p: np.save(p, np.diag([0, 0, 1e300])), "row 2 is infinite, or too large"),
    "large.parquet": (
        lambda p: pq.write_table(pa.table({n: [1.0, 1e39] for n in "abc"}), p),
        "row 1 is infinite",
    ),
    "names.parquet": (
        lambda p: pq.write_table(pa.table({"a": [1], "who": ["x"]}), p),
        "column 'who' holds string",
    ),
    "lists.feather": (
        lambda p: words(p, [["a", "b"]]),  # type: ignore[list-item]
        "column 'x' holds string",
    ),
    "uneven.feather": (
        lambda p: words(p, [[1, 2, 3], [4, 5, 6], [7, 8]]),
        "row 2 has 2 values; 3 expected",
    ),
    "null.feather": (lambda p: words(p, [[1, 2, 3], None]), "row 1 has 0 values; 3 expected"),
    "empty.arrow": (lambda p: words(p, []), "column 'x' holds null"),
    "text.csv": (lambda p: p.write_text("1,2,3"), "'.csv' is no table known here; .npy, "),
    "absent.npy": (lambda p: None, "no such file"),
    "folder.npy": (lambda p: p.mkdir(), "a folder; a table of numbers expected"),
} | {
    f"junk{k}{suffix}": (lambda p, content=content: p.write_bytes(content), "cannot be read")
    for suffix in (".npy", ".parquet", ".arrow", ".feather")
    for k, content in enumerate([b"", b"junk" * 100])
}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_cannot_be_used_is_refused_by_name(
    call: Callable[[str], Said], tmp_path: Path, name: str
) -> None:
    write, reason = BAD[name]
    stored(tmp_path, numbered(20))
    write(tmp_path / name)
    before = sorted(tmp_path.iterdir())
    code, out, err = call(f"ingest plain.npy {name} out")
    assert (code, out) == (2, "")
    assert f"{name}: " in err
    assert reason in err
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
def test_tables_whose_columns_differ_by_name_are_refused(tmp_path: Path, suffix: str) -> None:
    write = pq.write_table if suffix == "parquet" else feather.write_feather
    content = columns(numbered(20))
    paths = [tmp_path / f"{name}.{suffix}" for name in ("first", "same", "turned", "renamed")]
    write(content, paths[0])
    write(content, paths[1])
    write(content.select(["c2", "c0", "c1"]), paths[2])
    write(content.rename_columns(["c0", "other", "c2"]), paths[3])
    array, out = stored(tmp_path, numbered(20)), tmp_path / "out"
    ingest([array, *paths[:2], stored(tmp_path, numbered(20), "lists.parquet")], out)
    assert len(in_places(out)) == 80
    told = {
        paths[2]: "columns ['c2', 'c0', 'c1']; ['c0', 'c1', 'c2'] expected",
        paths[3]: "columns ['other']; ['c1'] expected",
    }
    for path, words in told.items():
        with pytest.raises(Refusal) as refusal:
            ingest([array, paths[0], path], tmp_path / "refused")
        assert f"{path}: {words} in their places, as {paths[0]} has" in str(refusal.value)


def test_an_index_that_pandas_wrote_is_refused(tmp_path: Path) -> None:
    frame, path = pandas.DataFrame({"a": [0.5, 1.5, 2.5, 3.5]}), tmp_path / "a.parquet"
    frame[frame["a"] != 2.5].to_parquet(path)
    with pytest.raises(Refusal, match=r"a\.parquet: column '__index_level_0__' .*index=False"):
        Table.open(path)
    frame[frame["a"] != 2.5].to_parquet(path, index=False)
    assert Table.open(path).values == 1
    named = frame.assign(customer=[7, 3, 9, 10]).set_index("customer")
    named.to_parquet(path)
    with pytest.raises(Refusal, match=r"a\.parquet: column 'customer' is an index"):
        Table.open(path)
    named.reset_index().to_parquet(path)
    assert Table.open(path).values == 2


def test_a_table_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    table = Table.open(stored(tmp_path, numbered(20), "lists.parquet"))
    stored(tmp_path, numbered(21), "lists.parquet")
    with pytest.raises(Refusal, match=r"lists.parquet: 20 rows at first, 21 when read"):
        list(table.blocks(8))


@pytest.mark.parametrize("way", WAYS)
def test_a_table_that_was_cut_short_is_refused_by_name(
    call: Callable[[str], Said], tmp_path: Path, way: str
) -> None:
    path = stored(tmp_path, numbered(500))
    path = stored(tmp_path, numbered(500), way)
    path.write_bytes(path.read_bytes()[:-100])
    code, _, err = call(f"ingest {way} out")
    assert (code, f"{way}: cannot be read" in err) == (2, True)
    assert not (tmp_path / "out").exists()


REFUSED = {
    "ingest plain.npy plain.npy": "plain.npy: the name of one more table",
    "ingest plain.npy file": "file: exists, and 'distvae ingest' did not make it",
    "ingest plain.npy other --force": "other: exists, and 'distvae ingest' did not make it",
    "ingest plain.npy made": "made: exists; --force replaces it",
    "ingest plain.npy file/out": "out: ",
    "ingest plain.npy out --val 1": "--val: 1; at least 0 and less than 1 expected",
    "ingest plain.npy out --test -0.1": "--test: -0.1",
    "ingest plain.npy out --val 0.5 --test 0.5": "--val + --test: 1;",
    "ingest plain.npy out --val 0.5 --test 0.49": "nothing is left to train on of 20 rows",
    "ingest plain.npy busy": "busy: another ingest is writing it",
    "train mnist-vae data.kind=rows": "data.path: empty, and $DISTVAE_DATA is not set",
    "train mnist-vae data.kind=rows --data other": (
        "other: holds no rows.json; a folder that 'distvae ingest SOURCE..."
    ),
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    call: Callable[[str], Said], tmp_path: Path, line: str
) -> None:
    ingest([stored(tmp_path, numbered(20))], tmp_path / "made")
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    before = sorted(tmp_path.rglob("*"))
    with FileLock(tmp_path / ".busy.lock"):
        code, out, err = call(line)
    assert (code, out) == (2, "")
    assert REFUSED[line] in err
    assert len(err.splitlines()) == 1
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != ".busy.lock"] == before


def altered(path: Path, **facts: Any) -> None:
    """Change what a manifest says, its digest made to fit."""
    said = json.loads(path.read_text()) | facts
    path.write_text(json.dumps(said | {"digest": digest(said)}))


def without_footer(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (
        lambda made: (made / "train-00001.arrow").unlink(),
        "train-00001.arrow: missing; rows.json names it",
    ),
    "short": (
        lambda made: os.truncate(made / "val-00000.arrow", 300),
        "val-00000.arrow: altered, or not copied whole",
    ),
    "longer": (
        lambda made: os.truncate(made / "test-00000.arrow", 9999),
        "test-00000.arrow: altered",
    ),
    "junk": (
        lambda made: without_footer(made / "train-00000.arrow"),
        "train-00000.arrow: cannot be read",
    ),
    "extra": (
        lambda made: stored(made, numbered(3), "mapped.arrow"),
        "mapped.arrow: in no list of rows.json",
    ),
    "manifest": (
        lambda made: (made / "rows.json").write_text("{"),
        "rows.json: altered or damaged: not the JSON",
    ),
    "list": (
        lambda made: (made / "rows.json").write_text("[]"),
        "rows.json: altered or damaged: not the JSON",
    ),
    "version": (
        lambda made: altered(made / "rows.json", version=2),
        "rows.json: of format 2, and this distvae reads 1",
    ),
    "width": (
        lambda made: altered(made / "rows.json", values=4),
        "train-00000.arrow: (8, 3) rows and values; (8, 4)",
    ),
    "edited": (
        lambda made: (made / "rows.json").write_text(
            (made / "rows.json").read_text().replace('"seed": 0', '"seed": 1')
        ),
        "rows.json: altered or damaged",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_folder_that_is_not_as_it_was_made_is_refused_by_name(
    call: Callable[[str], Said], tmp_path: Path, damage: str
) -> None:
    ingest([stored(tmp_path, numbered(20))], tmp_path / "made", Division(rows_per_file=8))
    spoil, reason = DAMAGE[damage]
    spoil(tmp_path / "made")
    code, out, err = call("train mnist-vae data.kind=rows --data made")
    assert (code, out) == (2, "")
    assert reason in err
    assert len(err.splitlines()) == 1


def test_how_many_values_rows_have_is_not_known_without_their_folder() -> None:
    with pytest.raises(Refusal, match="as many values as their folder says"):
        assert RowsData().dims


def test_a_moved_folder_is_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest([stored(tmp_path, numbered(30))], tmp_path / "here")
    before = opened(tmp_path / "here").digest
    (tmp_path / "here").rename(tmp_path / "rows")
    monkeypatch.setenv("DISTVAE_DATA", str(tmp_path))
    assert open_dataset(RowsData()).digest == before
    assert open_dataset(RowsData()).origin == str(tmp_path / "rows")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """A limit on the size of files stands in for it."""
    source = stored(tmp_path, numbered(10_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(Refusal, match=r"out: .*; a disk with room"):
            ingest([source], tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGKILL]
)
def test_an_interrupted_ingest_makes_nothing_and_the_next_one_clears_up(
    tmp_path: Path, number: signal.Signals
) -> None:
    source, out = stored(tmp_path, np.ones((2_000_000, 16), np.float32)), tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "distvae",
        "ingest",
        str(source),
        str(out),
        "--rows-per-file",
        "10000",
    ]
    # Background jobs of a shell ignore this signal.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    part = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.partial/*.scratch/*")):
        assert time.monotonic() < deadline, "nothing in a minute"
        time.sleep(0.002)
    part.send_signal(number)
    _, err = part.communicate()
    assert part.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in err
    assert not out.exists()
    assert (tmp_path / ".out.partial").exists() == (number == signal.SIGKILL)
    ingest([stored(tmp_path, numbered(50), name="small")], out)
    assert len(in_places(out)) == 50
    assert not list(tmp_path.glob(".*"))


LIMITED = """
import json, resource, sys
from pathlib import Path
import numpy as np
from distvae.config import RowsData
from distvae.data import open_dataset
from distvae.data.tables.ingest import Division, Execution, ingest
from distvae.data.tables.workers import LocalProcesses
from distvae.train.session import fit
from tests import tiny

def whole(source, out, run):
    slabs = Execution(LocalProcesses(1), rows_per_slab=10_000)
    ingest([source], out, Division(rows_per_file=10_000), execution=slabs)
    dataset = open_dataset(RowsData(path=str(out)))
    epochs = fit(tiny.config(train={"epochs": 1, "batch": 1000}), dataset, run)
    return [epoch.val_bound for epoch in epochs]

def taken():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData"))

folder = Path(sys.argv[1])
# libraries take what they take once
whole(folder / "small.npy", folder / "small", folder / "first")
size = (folder / "large.npy").stat().st_size
resource.setrlimit(resource.RLIMIT_DATA, (taken() + size // 4,) * 2)
try:
    np.ones(size // 2, np.uint8)
except MemoryError:
    print(json.dumps(whole(folder / "large.npy", folder / "large", folder / "second")))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux limits what a process holds by this"
)
def test_data_larger_than_memory_is_ingested_and_trained_on(tmp_path: Path) -> None:
    """A quarter of the data's size is all that the process may take; half of it is refused to
    it.
    """
    for name, rows in {"small": 100_000, "large": 1_000_000}.items():
        array = np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.float32, (rows, 128))
        for block in np.split(array, 10):
            block[:] = np.random.default_rng(rows).exponential(size=block.shape)
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert np.isfinite(json.loads(done.stdout)).all()
