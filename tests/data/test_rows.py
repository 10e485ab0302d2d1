"""Folders of rows: opened, damaged, and trained on."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.config import RowsData
from distvae.data import folders, open_dataset, rows
from distvae.data.dataset import Dataset, Stacked
from distvae.data.ingest import Division, digest, ingest
from distvae.files.refusal import Refusal
from distvae.files.storage import read_arrow
from distvae.train.session import build_trainer, fit
from tests import tiny
from tests.called import Called
from tests.data.tables import files, numbered, opened, stored

OLD = Path(__file__).parents[1] / "golden" / "rows-0.2.0"
"""40 rows that version 0.2.0 ingested, of which every seventh lacks a value."""


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_folder_of_version_0_2_0_opens_and_trains(tmp_path: Path) -> None:
    data = opened(shutil.copytree(OLD, tmp_path / "old"))
    for split, count in {"train": 24, "val": 8, "test": 8}.items():
        np.testing.assert_array_equal(data.splits[split][:], np.concatenate(files(OLD, split)))
        assert len(data.splits[split]) == count
    config = tiny.config(model={"likelihood": "gaussian"}, estep={"input": "standard"})
    assert np.isfinite([epoch.val_bound for epoch in fit(config, data, tmp_path / "run")]).all()


@settings(max_examples=25)
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
    for chosen in (cut, numbers, slice(None)):
        assert stacked[chosen].shape == whole[chosen].shape
        np.testing.assert_array_equal(stacked[chosen], whole[chosen])
    for outside in (-1, len(whole)):
        with pytest.raises(IndexError):
            stacked[np.array([0, outside])]


MODELS: dict[str, dict[str, dict[str, Any]]] = {
    # With the usual floor, recorded facts take the place of these rows, and agree to rounding.
    "an encoder": {"estep": {"floor": 1e-9}},
    "a search": {
        "model": {"kind": "tvae", "latent": 6},
        "estep": {"kind": "evolution", "states": 8},
    },
}


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["bars", "speech-sdm"])
def test_runs_on_rows_with_gaps_are_judged_and_encoded(
    call: Called, tmp_path: Path, recipe: str
) -> None:
    x = np.random.default_rng(0).exponential(size=(300, 12)).astype(np.float32)
    x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    ingest([stored(tmp_path, x)], tmp_path / "out", Division(0.2, 0.2))
    words = f"train {recipe} data.kind=rows --data out --out run train.epochs=1 --no-track"
    code, out, _ = call(*words.split())
    assert code == 0
    *figures, after = out.splitlines()
    assert all(np.isfinite(float(line.split()[1])) for line in figures)
    assert after.startswith("next: distvae encode run ")
    assert call("encode", "run", "out", "-o", "codes.parquet")[0] == 0
    codes = np.stack(pq.read_table("codes.parquet").to_pandas()["code"])
    assert len(codes) == 300
    assert np.isfinite(codes).all()


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


def test_a_folder_that_is_not_as_it_was_made_is_refused_by_name(
    call: Called, tmp_path: Path
) -> None:
    made = small(tmp_path)
    for damage, (spoil, reason) in DAMAGE.items():
        copy = shutil.copytree(made, tmp_path / damage)
        spoil(copy)
        with pytest.raises(Refusal) as refusal:
            opened(copy)
        assert reason in str(refusal.value)
    code, out, err = call("train", "mnist-vae", "data.kind=rows", "--data", "missing")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "train-00001.arrow: missing" in err


SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "an encoder": {},
    "an encoder of logarithms": {"estep": {"input": "log"}},
    "a search": {"model": {"kind": "tvae", "latent": 6}, "estep": {"kind": "evolution"}},
}


def ingested(folder: Path, gaps: float) -> Dataset:
    """Powers, ingested into many files."""
    x = tiny.dataset(120).splits["train"][:].copy()
    x[np.random.default_rng(1).random(x.shape) < gaps] = np.nan
    ingest([stored(folder, x)], folder / "out", Division(0.2, 0.2, rows_per_file=11))
    return opened(folder / "out")


@pytest.mark.parametrize(
    ("model", "gaps"),
    [("an encoder", 0.0), ("an encoder of logarithms", 0.2), ("a search", 0.2)],
)
def test_training_is_prepared_from_facts_as_from_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, gaps: float
) -> None:
    known = ingested(tmp_path, gaps)
    (tmp_path / "out" / "facts.json").unlink()
    unknown, config = opened(tmp_path / "out"), tiny.config(**SETTINGS[model])
    by_rows = build_trainer(config, unknown)
    with monkeypatch.context() as patch:
        patch.setattr(rows.FileRows, "__getitem__", pytest.fail)
        by_facts = build_trainer(config, known)
    assert by_facts.range == by_rows.range
    assert by_facts.reader.may_be_missing == by_rows.reader.may_be_missing == (gaps > 0)
    for one, other in ((by_facts.model, by_rows.model), (by_facts.estep, by_rows.estep)):
        for name, value in other.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], value, rtol=1e-6, atol=1e-6)


def small(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", np.arange(60, dtype=np.float32).reshape(20, 3))
    ingest([tmp_path / "a.npy"], tmp_path / "made", Division(rows_per_file=8))
    return tmp_path / "made"


def test_a_flipped_bit_is_seen_even_after_rows_were_seen_whole_or_when_a_row_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small(tmp_path)
    opened(made)
    path = made / "train-00001.arrow"
    content = bytearray(path.read_bytes())
    content[content.index(read_arrow(path)[4].tobytes())] ^= 1
    path.write_bytes(content)
    words = r"train-00001\.arrow: altered or damaged: its checksum is not the one"
    with pytest.raises(Refusal, match=words):
        opened(made)
    monkeypatch.setattr(rows, "CHECKED_AT_ONCE", 0)  # as of large data
    train = opened(made).splits["train"]
    train[np.array([3])]
    for _ in range(2):
        with pytest.raises(Refusal, match=words):
            train[np.array([12])]


def test_rows_are_read_for_their_checksums_once_and_never_where_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen, digest = small(tmp_path), list[Path](), folders.digest

    def counted(path: Path) -> str:
        seen.append(path)
        return digest(path)

    monkeypatch.setattr(folders, "digest", counted)
    before = opened(made).digest
    assert not seen
    made = made.rename(tmp_path / "rows")
    monkeypatch.setenv("DISTVAE_DATA", str(tmp_path))
    for _ in range(3):
        moved = open_dataset(RowsData())
    assert (moved.digest, moved.origin) == (before, str(made))
    assert len(seen) == len(list(made.glob("*.arrow")))


@pytest.mark.parametrize("facts", [{}, {"rows": "of others"}, {"splits": {}}])
def test_damaged_facts_are_refused(tmp_path: Path, facts: dict[str, object]) -> None:
    made = small(tmp_path)
    content = json.loads((made / "facts.json").read_bytes())
    (made / "facts.json").write_text(json.dumps(content | facts) if facts else "{}")
    with pytest.raises(Refusal, match=r"facts\.json: altered or damaged, or of other rows"):
        open_dataset(RowsData(path=str(made)))


WRONG: dict[str, object] = {
    "values": "3",
    "splits": {"val": []},
    "splits ": {"train": []},
    "splits  ": {"train": [{"file": "train-00000.arrow"}]},
    "splits   ": {"train": [{"file": "../a.npy", "rows": 1, "bytes": 1, "sha256": ""}]},
    "splits    ": [["train"]],
}


def test_a_manifest_with_a_wrong_field_is_refused(tmp_path: Path) -> None:
    made = small(tmp_path)
    whole = (made / "rows.json").read_text()
    for field, value in WRONG.items():
        (made / "rows.json").write_text(whole)
        altered(made / "rows.json", **{field.strip(): value})
        message = r"rows\.json: altered or damaged: lacks a field, or one is wrong"
        with pytest.raises(Refusal, match=message):
            opened(made)
