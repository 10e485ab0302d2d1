"""Ingest in several processes, killed and resumed, and what it records for training."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import FileIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distvae.config import RowsData
from distvae.data import open_dataset
from distvae.data.dataset import Dataset, LazyRows, Stacked, recorded_facts
from distvae.data.tables import arrow, formats, rows, slabs
from distvae.data.tables.ingest import Division, Execution, ingest
from distvae.data.tables.processes import KeptRefusal, start_processes
from distvae.data.tables.work import Work
from distvae.data.tables.workers import LocalProcesses
from distvae.files.refusal import Refusal
from distvae.numerics.facts import Facts
from distvae.train.session import build_trainer
from tests import tiny
from tests.data.tasks import end_at_zero
from tests.processes import started

Array = NDArray[np.float32]


def stored(folder: Path, x: Array, name: str = "a.npy") -> Path:
    np.save(folder / name, x)
    return folder / name


def made(count: int, width: int = 3) -> Array:
    return np.random.default_rng(count).exponential(size=(count, width)).astype(np.float32)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def opened(folder: Path) -> Dataset:
    return open_dataset(RowsData(path=str(folder)))


@settings(max_examples=8)
@given(
    st.integers(3, 90),
    st.lists(st.integers(1, 89), max_size=3),
    st.integers(1, 100),
    st.integers(1, 20),
    st.integers(4, 40),
)
def test_files_do_not_depend_on_how_the_rows_are_read(
    count: int, cuts: list[int], per_slab: int, per_group: int, per_file: int
) -> None:
    x, division = made(count), Division(0.2, 0.2, 5, per_file)
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        ingest([stored(folder, x, "whole.npy")], folder / "once", division)
        patch.setattr(formats, "GROUP", 4 * 3 * per_group)
        parts = [part for part in np.split(x, sorted({min(c, count) for c in cuts})) if len(part)]
        sources = [stored(folder, part, f"{k}.npy") for k, part in enumerate(parts)]
        ingest(sources, folder / "parts", division, execution=Execution(rows_per_slab=per_slab))
        first, second = content(folder / "once"), content(folder / "parts")
        for file in ("rows.json", "facts.json"):  # they name the sources
            del first[file], second[file]
        assert first == second
        for split, table in opened(folder / "parts").splits.items():
            facts = recorded_facts(table)
            assert facts is not None
            assert facts.record() == Facts.of(table[:]).record() or len(table) > per_file, split


@pytest.mark.parametrize("count", [200, 1600])
def test_each_row_is_read_once_from_its_source_and_once_from_a_slab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Of every slab a file also reads 16 bytes, which say where its rows are."""
    blocks, read = formats.Table.blocks, slabs._read
    from_sources, from_slabs = list[int](), list[int]()

    def count_rows(table: formats.Table, rows: int, groups: range) -> Iterator[Array]:
        for block in blocks(table, rows, groups):
            from_sources.append(len(block))
            yield block

    def count_bytes(stream: FileIO, place: int, array: NDArray[np.generic]) -> None:
        from_slabs.append(array.nbytes)
        read(stream, place, array)

    monkeypatch.setattr(formats.Table, "blocks", count_rows)
    monkeypatch.setattr(slabs, "_read", count_bytes)
    execution = Execution(LocalProcesses(1), rows_per_slab=40)
    ingest(
        [stored(tmp_path, made(count))],
        tmp_path / "out",
        Division(0, 0, rows_per_file=50),
        execution=execution,
    )
    assert sum(from_sources) == count
    assert sum(from_slabs) == count * (4 * 3 + 4) + 16 * (count // 40) * (count // 50)


@pytest.mark.parametrize("done", [0, 1, 3, 5, 9, 11])
def test_what_was_done_before_a_kill_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    monkeypatch.setattr(formats, "GROUP", 4 * 3 * 20)
    source, out = stored(tmp_path, made(100)), tmp_path / "out"
    execution = Execution(LocalProcesses(1), rows_per_slab=20)
    division = Division(rows_per_file=17)
    ingest([source], tmp_path / "undisturbed", division, execution=execution)
    tasks, do = list[object](), Work.do

    def count(self: Work, task: tuple[str, int]) -> int:
        if len(tasks) == done:
            raise KeptRefusal("killed")
        tasks.append(task)
        return do(self, task)  # type: ignore[arg-type]

    monkeypatch.setattr(Work, "do", count)
    with pytest.raises(Refusal, match="killed"):
        ingest([source], out, division, execution=execution)
    torn = next(tmp_path.glob(".out.partial/*.scratch")) / ".slab.torn.partial"
    torn.write_bytes(b"torn")
    done = -1
    said = ingest([source], out, division, execution=replace(execution, resume=True))
    assert len(tasks) == len(set(tasks)) == 5 + 8
    assert content(out) == content(tmp_path / "undisturbed")
    assert not list(tmp_path.glob(".*"))
    assert said == ingest([source], out, division, execution=replace(execution, resume=True))
    assert len(tasks) == 5 + 8


def test_other_sources_or_settings_do_not_go_on_with_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = stored(tmp_path, made(50)), tmp_path / "out"
    resumed = Execution(resume=True)

    def killed(self: Work, task: object) -> int:
        raise KeptRefusal("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Work, "do", killed)
        with pytest.raises(Refusal, match="killed"):
            ingest([source], out)
    with pytest.raises(Refusal, match=r"--resume: the ingest into .*out that was killed had other"):
        ingest([source], out, Division(seed=1), execution=resumed)
    ingest([source], out, execution=resumed)
    before = content(out)
    (tmp_path / "longer").mkdir()
    other, longer = stored(tmp_path, made(50), "b.npy"), stored(tmp_path / "longer", made(51))
    for sources, division in (
        ([source], Division(val=0.4)),
        ([source], Division(seed=1)),
        ([source], Division(test=0.0)),
        ([source], Division(rows_per_file=9)),
        ([other], Division()),
        ([source, other], Division()),
        ([longer], Division()),
    ):
        with pytest.raises(Refusal, match=r"--resume: .*out was made from other sources,"):
            ingest(sources, out, division, execution=resumed)
    np.save(source, np.load(source) + 1)  # as many bytes as before
    with pytest.raises(Refusal, match=r"--resume: .*out was made from other sources,"):
        ingest([source], out, execution=resumed)
    assert content(out) == before


def test_a_finished_ingest_that_was_damaged_is_replaced_by_force_alone(tmp_path: Path) -> None:
    source, out = stored(tmp_path, made(50)), tmp_path / "out"
    resumed = Execution(resume=True)
    ingest([source], out)
    before = content(out)
    (out / "facts.json").write_bytes((out / "facts.json").read_bytes()[:-20])
    with pytest.raises(Refusal, match="or is damaged; --force replaces it"):
        ingest([source], out, execution=resumed)
    ingest([source], out, force=True, execution=resumed)
    assert content(out) == before


def test_an_interruption_between_two_names_keeps_the_folder_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / "out", Path.rename
    ingest([stored(tmp_path, made(50))], out)
    before = content(out)

    def interrupted(self: Path, target: Path) -> Path:
        if target == out and not out.exists() and "replaced" not in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ingest([stored(tmp_path, made(60))], out, force=True)
    assert content(out) == before


def test_what_an_ingest_did_not_make_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what is in the folder before, nor what is put there meanwhile."""
    out, do = tmp_path / "out", Work.do
    ingest([stored(tmp_path, made(50))], out)
    before = content(out)
    later = stored(tmp_path, made(60))
    (out / "letter.txt").write_text("dear")
    with pytest.raises(Refusal, match=r"letter\.txt: 'distvae ingest' did not make it"):
        ingest([later], out, force=True)
    (out / "letter.txt").unlink()

    def meanwhile(self: Work, task: tuple[str, int]) -> int:
        (out / "letter.txt").write_text("dear")
        return do(self, task)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Work, "do", meanwhile)
        with pytest.raises(
            Refusal, match=r"letter\.txt: .* the same command with --resume goes on"
        ):
            ingest([later], out, force=True, execution=Execution(LocalProcesses(1)))
    assert content(out) == {**before, "letter.txt": b"dear"}
    (out / "letter.txt").unlink()
    ingest([later], out, force=True, execution=Execution(LocalProcesses(1), resume=True))
    assert content(out) != before
    assert not list(tmp_path.glob(".*"))


def test_what_a_file_manager_puts_into_a_folder_does_not_keep_it(tmp_path: Path) -> None:
    out, source = tmp_path / "out", stored(tmp_path, made(50))
    ingest([source], out)
    before = content(out)
    (out / ".DS_Store").write_bytes(b"icons")
    ingest([source], out, force=True)
    assert content(out) == before


def test_a_source_that_is_written_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, do = stored(tmp_path, made(50)), Work.do

    def late(self: Work, task: tuple[str, int]) -> int:
        os.utime(source, ns=(1, 1))
        return do(self, task)  # type: ignore[arg-type]

    monkeypatch.setattr(Work, "do", late)
    with pytest.raises(Refusal, match=r"a\.npy: written while it was read"):
        ingest([source], tmp_path / "out")


def test_more_rows_than_the_disk_has_room_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.statvfs_result((4096, 4096, 9, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(Refusal, match=r"out: 50 rows need .* of disk"):
        ingest([stored(tmp_path, made(50))], tmp_path / "out")


@pytest.mark.long
def test_processes_answer_and_refuse_and_their_death_is_told() -> None:
    with start_processes(end_at_zero, 2) as pool:
        assert sorted(pool.results([3, 1, 2])) == [1, 2, 3]
        with pytest.raises(Refusal, match="a negative number"):
            list(pool.results([1, -1]))
        with pytest.raises(Refusal, match="one of them was killed"):
            list(pool.results([1, 0]))


KILLED = """
import sys
from pathlib import Path
from distvae.data.tables.ingest import Division, Execution, ingest
from distvae.data.tables.workers import LocalProcesses
if __name__ == "__main__":
    processes, resume = LocalProcesses(int(sys.argv[3])), "resume" in sys.argv
    execution = Execution(processes, resume, rows_per_slab=20_000)
    folder = Path(sys.argv[1])
    ingest([folder / "a.npy"], folder / sys.argv[2], Division(rows_per_file=9000),
           execution=execution)
"""


@pytest.mark.long
@pytest.mark.parametrize("until", ["slab-*", "*.json"])
def test_a_killed_ingest_goes_on_and_ends_as_an_undisturbed_one(tmp_path: Path, until: str) -> None:
    stored(tmp_path, made(400_000, 16))
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(tmp_path)]
    with started([*command, "out", "2"], stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: len(list(tmp_path.glob(f".out.partial/*.scratch/{until}"))) > 2)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    subprocess.run([*command, "out", "2", "resume"], check=True)
    subprocess.run([*command, "undisturbed", "1"], check=True)
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")
    assert not list(tmp_path.glob(".*"))


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "nothing in a minute"
        time.sleep(0.002)


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


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("model", SETTINGS)
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


def test_a_floor_of_its_own_is_prepared_from_the_rows(tmp_path: Path) -> None:
    dataset = ingested(tmp_path, 0.0)
    x = dataset.splits["train"][:].astype(np.float64)
    trainer = build_trainer(tiny.config(estep={"floor": 1e-3}), dataset)
    shift = trainer.estep.state_dict()["shift"].numpy()
    np.testing.assert_allclose(shift, np.log(x + 1e-3).mean(0), rtol=1e-5)


def test_values_that_no_density_has_are_refused_by_their_facts(tmp_path: Path) -> None:
    ingest([stored(tmp_path, made(50) - 1)], tmp_path / "out")
    with pytest.raises(Refusal, match=r"a value of -0\.9.* in split 'train' of out"):
        build_trainer(tiny.config(), opened(tmp_path / "out"))


def test_large_data_is_opened_file_by_file_when_a_row_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHECKED_AT_ONCE", 0)
    ingest([stored(tmp_path, made(60))], tmp_path / "out", Division(0, 0, rows_per_file=20))
    damaged = tmp_path / "out" / "train-00002.arrow"
    altered = bytearray(damaged.read_bytes())
    altered[altered.index(arrow.read_arrow(damaged)[4].tobytes())] ^= 1
    damaged.write_bytes(altered)
    train = opened(tmp_path / "out").splits["train"]
    assert isinstance(train, Stacked)
    train[np.array([3, 25])]
    assert [part.mapped is not None for part in map(as_file, train.parts)] == [True, True, False]
    for _ in range(2):
        with pytest.raises(Refusal, match=r"train-00002\.arrow: altered or damaged"):
            train[np.array([45])]


def as_file(part: object) -> rows.FileRows:
    assert isinstance(part, rows.FileRows)
    assert isinstance(part, LazyRows)
    return part
