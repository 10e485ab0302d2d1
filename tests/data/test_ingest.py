"""Ingest, beside NumPy's sorting and reductions of the same rows."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.data import ingest as ingesting
from distvae.data.ingest import Division, ingest
from distvae.data.tables import Table
from distvae.files import storage
from distvae.files.refusal import Refusal
from distvae.numerics.noise import order
from tests.called import Called
from tests.data.tables import WAYS, Floats, columns, files, in_places, numbered, opened, stored

FINITE = ~np.uint32(1 << 23)  # a bit of the exponent: without it no float is infinite


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def bits(x: Floats) -> list[bytes]:
    return [row.tobytes() for row in x]


@settings(max_examples=12)
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


@settings(max_examples=8)
@given(
    st.integers(3, 90),
    st.lists(st.tuples(st.integers(1, 89), st.sampled_from(sorted(WAYS))), max_size=3),
    st.integers(1, 100),
    st.integers(4, 40),
)
def test_rows_and_seed_alone_decide_on_the_files(
    count: int, cuts: list[tuple[int, str]], block: int, per_file: int
) -> None:
    """Not how the rows are kept, how many are read together, or when."""
    x, division = numbered(count), Division(0.2, 0.2, 5, per_file)
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        whole, wide = stored(folder, x, name="whole"), stored(folder, numbered(count, 8))
        ingest([whole], folder / "once", division)
        ingest([wide], folder / "wide", division)
        ingest([whole], folder / "seed", Division(0.2, 0.2, 6, per_file))
        patch.setattr(ingesting, "BLOCK", 4 * 3 * block)
        ingest([whole], folder / "again", division)
        ends = sorted({min(cut, count) for cut, _ in cuts} - {count})
        ways = [way for _, way in cuts] + ["plain.npy"]
        parts = zip(np.split(x, ends), ways, strict=False)
        sources = [stored(folder, part, way, str(k)) for k, (part, way) in enumerate(parts)]
        ingest(sources, folder / "parts", division)
        once, parted = content(folder / "once"), content(folder / "parts")
        assert content(folder / "again") == once
        for file in ("rows.json", "facts.json"):  # the digest is also of the names of sources
            del once[file], parted[file]
        assert parted == once
        places = in_places(folder / "once")[:, 0]
        np.testing.assert_array_equal(in_places(folder / "wide")[:, 0], places)
        assert count < 20 or (in_places(folder / "seed")[:, 0] != places).any()
        assert opened(folder / "seed").digest != opened(folder / "once").digest


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@settings(max_examples=8)
@given(st.integers(3, 90), st.sampled_from([0, 0.3]), st.sampled_from([0, 2]), st.integers(4, 40))
def test_recorded_facts_are_those_of_numpy(
    count: int, gaps: float, low: float, per_file: int
) -> None:
    chance = np.random.default_rng(count)
    x = chance.exponential(size=(count, 3)).astype(np.float32) - np.float32(low)
    x[chance.random(x.shape) < gaps] = np.nan
    x[:, 2] = 5
    with TemporaryDirectory() as name:
        folder = Path(name)
        ingest([stored(folder, x)], folder / "out", Division(0.2, 0.2, 0, per_file))
        facts = json.loads((folder / "out" / "facts.json").read_bytes())["splits"]
        for split, found in facts.items():
            y = np.concatenate(files(folder / "out", split)).astype(np.float64)
            assert (found["rows"], found["missing"]) == (len(y), np.isnan(y).sum())
            assert found["values"]["count"] == (~np.isnan(y)).sum(0).tolist()
            frame = pandas.DataFrame(y)  # leaves out what is missing
            for key, expected in {"low": frame.min(), "high": frame.max()}.items():
                np.testing.assert_array_equal(np.array(found[key], float), expected)
            moments = {"mean": frame.mean(), "variance": frame.var(ddof=0)}
            for key, expected in moments.items():
                values = np.array(found["values"][key], float)
                np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)
            assert (found["logarithms"] is None) == bool((y < 0).any())


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


def test_the_command_says_what_it_made_and_how_to_go_on(call: Called, tmp_path: Path) -> None:
    for name in "ab":
        stored(tmp_path, numbered(200), name=name)
    code, out, err = call(
        "ingest", "aplain.npy", "bplain.npy", "made", "--val", "0.1", "--test", "0"
    )
    size = sum(path.stat().st_size for path in (tmp_path / "made").glob("*.arrow"))
    assert (code, err) == (0, "")
    assert out.startswith(
        f"made: 400 rows (360 train, 40 val) of 3 values, {size:,} bytes; next: distvae train "
    )
    command = out.rpartition("next: distvae ")[2].strip()
    small = "model.latent=4 model.limit=2 train.epochs=1 train.batch=100"
    assert call(*f"{command} {small} --no-track --no-evaluate".split())[0] == 0
    assert call("ingest", "aplain.npy", "made", "--force", "--quiet") == (0, "", "")
    assert len(in_places(tmp_path / "made")) == 200
    kept = {"aplain.npy", "bplain.npy", "made", "runs"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def words(path: Path, rows: list[list[float] | None]) -> None:
    feather.write_feather(pa.table({"x": rows}), path)


def cut_short(path: Path, way: str) -> None:
    WAYS[way](path, numbered(500))
    path.write_bytes(path.read_bytes()[:-100])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "cube.npy": (
        lambda p: np.save(p, np.zeros((3, 3, 3))),
        "float64 of shape (3, 3, 3); (rows, values)",
    ),
    "complex.npy": (lambda p: np.save(p, np.zeros((3, 3), complex)), "complex128 of shape"),
    "objects.npy": (
        lambda p: np.save(p, np.array([[None]]), allow_pickle=True),
        "Python objects",
    ),
    "none.npy": (lambda p: np.save(p, np.zeros((0, 3))), "0 rows of 3 values"),
    "wide.npy": (lambda p: np.save(p, np.zeros((3, 4))), "rows of 4 values; 3 expected"),
    "large.npy": (
        lambda p: np.save(p, np.diag([0, 0, 1e300])),
        "row 2 is infinite, or too large",
    ),
    "large.parquet": (
        lambda p: pq.write_table(pa.table({n: [1.0, 1e39] for n in "abc"}), p),
        "row 1 is infinite",
    ),
    "names.parquet": (
        lambda p: pq.write_table(pa.table({"a": [1], "who": ["x"]}), p),
        "column 'who' holds string",
    ),
    "uneven.feather": (
        lambda p: words(p, [[1, 2, 3], [4, 5, 6], [7, 8]]),
        "row 2 has 2 values; 3 expected",
    ),
    "null.feather": (lambda p: words(p, [[1, 2, 3], None]), "row 1 has 0 values; 3 expected"),
    "twice.parquet": (
        lambda p: pq.write_table(pa.Table.from_arrays([pa.array([1.0])] * 2, ["a", "a"]), p),
        "two columns are called 'a'",
    ),
    "blank.feather": (lambda p: words(p, [[], [1]]), "row 0 is an empty list, or null"),
    "text.txt": (lambda p: p.write_text("1,2,3"), "'.txt' is no table known here; .npy, "),
    "words.csv": (
        lambda p: p.write_text("who,a,b,c\nann,1,2,3\n"),
        "'who' holds string; columns of numbers, or one column of lists of numbers, expected; to"
        " take the others: data.columns='[a,b,c]', or ingest --columns",
    ),
    "odd.csv": (
        lambda p: p.write_text('who,0,"a, b",[c,no\nann,1,2,3,4\n'),
        """to take the others: data.columns='["0", "a, b", "[c", "no"]', or ingest""",
    ),
    "index.csv": (lambda p: p.write_text(",a,b,c\n0,1,2,3\n"), "column '' is an index"),
    "twice.csv": (lambda p: p.write_text("a,b,a\n1,2,3\n"), "two columns are called 'a'"),
    "late.csv": (
        lambda p: p.write_text("a,b,c\n" + "1,2,3\n" * 300_000 + "1,x,3\n"),
        "CSV conversion error to double: invalid value 'x'",
    ),
    "absent.npy": (lambda p: None, "no such file"),
    "junk.parquet": (lambda p: p.write_bytes(b"junk" * 100), "cannot be read"),
    "empty.feather": (lambda p: p.write_bytes(b""), "cannot be read"),
} | {f"cut{way}": (partial(cut_short, way=way), "cannot be read") for way in WAYS}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_cannot_be_used_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write, reason = BAD[name]
    stored(tmp_path, numbered(20))
    write(tmp_path / name)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Refusal) as refusal:
        ingest([tmp_path / "plain.npy", tmp_path / name], tmp_path / "out")
    assert str(refusal.value).startswith(f"{tmp_path / name}: ")
    assert reason in str(refusal.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("names", [True, False])
def test_a_file_of_text_is_the_table_that_pandas_wrote(
    tmp_path: Path, separator: str, names: bool
) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    x[:, 0], x[3, 1], x[30:, 0] = np.arange(40), np.nan, 0.25
    frame, path = pandas.DataFrame(x, columns=["a", "b c", "d"]), tmp_path / "table.csv"
    frame.to_csv(path, index=False, header=names, sep=separator)
    table = Table.open(path)
    assert (table.rows, table.values) == (40, 3)
    np.testing.assert_array_equal(np.concatenate([*table.blocks(7)]), x)
    if names:
        chosen = Table.open(path, ["d", "a"])
        np.testing.assert_array_equal(np.concatenate([*chosen.blocks(100)]), x[:, [2, 0]])
        with pytest.raises(Refusal, match=r"no column z; it has \['a', 'b c', 'd'\]"):
            Table.open(path, ["a", "z"])


def test_tables_whose_columns_differ_by_name_are_refused(tmp_path: Path) -> None:
    write, suffix = pq.write_table, "parquet"
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
    table = Table.open(stored(tmp_path, numbered(20)))
    blocks = table.blocks(20)
    next(blocks)
    os.utime(table.path, ns=(1, 1))
    with pytest.raises(Refusal, match=r"plain\.npy: written while it was read"):
        list(blocks)
    stored(tmp_path, numbered(20, 4))
    with pytest.raises(Refusal, match=r"plain\.npy: written while it was read"):
        next(table.blocks(20))


REFUSED = {
    "ingest plain.npy plain.npy": "plain.npy: the name of one more table",
    "ingest plain.npy file": "file: exists, and 'distvae ingest' did not make it",
    "ingest plain.npy other --force": "other: exists, and 'distvae ingest' did not make it",
    "ingest plain.npy made": "made: exists; --force replaces it",
    "ingest plain.npy file/out": "out: ",
    "ingest plain.npy out --test -0.1": "--test: -0.1",
    "ingest plain.npy out --val 0.5 --test 0.49": "nothing is left to train on of 20 rows",
    "ingest plain.npy busy": "busy: another ingest is writing it",
    "train mnist-vae data.kind=rows": "data.path: empty, and $DISTVAE_DATA is not set",
    "train mnist-vae data.kind=rows --data other": (
        "other: holds no rows.json; a folder that 'distvae ingest SOURCE..."
    ),
}


def test_what_cannot_be_done_is_refused_in_a_sentence(call: Called, tmp_path: Path) -> None:
    ingest([stored(tmp_path, numbered(20))], tmp_path / "made")
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    before = sorted(tmp_path.rglob("*"))
    for line, words in REFUSED.items():
        with FileLock(tmp_path / ".busy.lock"):
            code, out, err = call(*line.split())
        assert (code, out) == (2, "")
        assert words in err
        assert len(err.splitlines()) == 1
        assert [path for path in sorted(tmp_path.rglob("*")) if path.name != ".busy.lock"] == before


def test_an_interruption_between_two_names_keeps_the_folder_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / "out", Path.rename
    ingest([stored(tmp_path, numbered(50))], out)
    before = content(out)

    def interrupted(self: Path, target: Path) -> Path:
        if target == out and not out.exists() and "replaced" not in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ingest([stored(tmp_path, numbered(60))], out, force=True)
    assert content(out) == before


def test_what_an_ingest_did_not_make_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what is in the folder before, nor what is put there meanwhile; but what file
    managers put there is.
    """
    out, save = tmp_path / "out", storage.save_arrow
    ingest([stored(tmp_path, numbered(50))], out)
    before = content(out)
    (out / ".DS_Store").write_bytes(b"icons")
    ingest([stored(tmp_path, numbered(50))], out, force=True)
    assert content(out) == before
    later, letter = stored(tmp_path, numbered(60)), out / "letter.txt"
    letter.write_text("dear")
    with pytest.raises(Refusal, match=r"letter\.txt: 'distvae ingest' did not make it"):
        ingest([later], out, force=True)
    letter.unlink()

    def meanwhile(path: Path, rows: Floats) -> tuple[int, str]:
        letter.write_text("dear")
        return save(path, rows)

    monkeypatch.setattr(storage, "save_arrow", meanwhile)
    with pytest.raises(Refusal, match=r"letter\.txt: 'distvae ingest' did not make it"):
        ingest([later], out, force=True)
    assert content(out) == {**before, "letter.txt": b"dear"}
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_refused_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files stands in for it."""
    source = stored(tmp_path, numbered(10_000))
    with monkeypatch.context() as patch:
        full = os.statvfs_result((4096, 4096, 9, 0, 0, 0, 0, 0, 0, 255))
        patch.setattr(os, "statvfs", lambda path: full)
        with pytest.raises(Refusal, match=r"out: 10,000 rows need .* of disk"):
            ingest([source], tmp_path / "out")
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
    code = (
        "from pathlib import Path; from distvae.data.ingest import Division, ingest;"
        "from distvae.files.program import errors_reported\n"
        f"with errors_reported(): ingest([Path({str(source)!r})], Path({str(out)!r}),"
        " Division(rows_per_file=10_000))"
    )
    command = [sys.executable, "-c", code]
    # Background jobs of a shell ignore this signal.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    part = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.partial/buckets/*")):
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
from distvae.data.ingest import Division, ingest
from distvae.train.session import fit
from tests import tiny

def whole(source, out, run):
    ingest([source], out, Division(rows_per_file=10_000))
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


def test_decimals_are_numbers_and_null_is_a_missing_value(tmp_path: Path) -> None:
    values = [Decimal("1.25"), None]
    content = pa.table(
        {"a": pa.array(values, pa.decimal128(6, 2)), "b": pa.array(values, pa.decimal256(40, 4))}
    )
    pq.write_table(content, tmp_path / "a.parquet")
    feather.write_feather(content, tmp_path / "a.arrow")
    for path in tmp_path.iterdir():
        rows = np.concatenate(list(Table.open(path).blocks(64)))
        np.testing.assert_array_equal(rows, [[1.25, 1.25], [np.nan, np.nan]])


def test_a_page_of_parquet_that_has_a_checksum_is_held_against_it(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        columns(numbered(200)),
        path,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Refusal, match=r"a\.parquet: cannot be read \(.*CRC"):
        list(Table.open(path).blocks(64))
