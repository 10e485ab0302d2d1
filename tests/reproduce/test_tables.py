"""Published tables: every row is a valid configuration, finds its data, and is compared with what
was published.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distvae import report
from distvae.cli import app
from distvae.cli.compare import print_comparison
from distvae.files.refusal import Refusal
from distvae.reproduce.rows import SCALES, Scale, read_rows
from distvae.reproduce.run import Reproduction, Work, started_rows
from distvae.reproduce.table import (
    TABLES,
    Entry,
    Line,
    Source,
    compare_rows,
    locate,
    read_table,
    table_names,
    write_comparison,
)
from distvae.tune.folder import SWEEP_FILE, describe_sweep, refuse_other_sweep
from distvae.tune.results import Result
from distvae.tune.space import ROW, Space
from distvae.tune.study import OptunaStudy
from distvae.tune.sweep import SweepOptions
from distvae.tune.trial import Trials, run_trial
from tests.report.reader import Page, trials
from tests.slowly import slow


@pytest.mark.parametrize(
    "name", ["bars", *slow(*(name for name in table_names() if name != "bars"))]
)
def test_every_row_is_a_configuration_with_all_that_was_published(name: str) -> None:
    for scale in SCALES:
        table = read_table(name, scale)
        assert table.trained
        assert table.cost() > 0
        for entry in (*table.trained, *table.baselines):
            entry.config()
            assert not entry.data or entry.data in table.data
    names = [entry.name for entry in table.entries]
    assert len(set(names)) == len(names)
    parsed = {entry.name: entry for entry in table.entries if entry.published}
    path = TABLES / f"{name}.csv"
    lines = path.read_text().splitlines() if path.exists() else []
    for figures in csv.DictReader(line for line in lines if not line.startswith("#")):
        entry = parsed[figures.pop("row")]
        spreads = {f"{figure}_spread": spread for figure, spread in entry.spread.items()}
        written = {key: float(value) for key, value in figures.items() if value}
        assert {**entry.published, **spreads} == written


def test_data_is_found_in_a_folder_or_below_and_otherwise_named_with_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISTVAE_DATA", raising=False)
    house = Source("House", {"house256.png": {}, "other/*.tif": {"data.stride": 2}})
    with pytest.raises(Refusal, match=r"--data: not given.*house \(House\)"):
        locate("house", house, "")
    with pytest.raises(
        Refusal, match=r"holds no house \(House\): house256.png or other/\*.tif expected"
    ):
        locate("house", house, str(tmp_path))
    (picture := tmp_path / "images" / "house256.png").parent.mkdir()
    picture.touch()
    assert locate("house", house, str(tmp_path)) == {"data.path": str(picture)}


def test_rows_whose_data_is_not_there_are_left_out_and_named(tmp_path: Path) -> None:
    table = read_table("vsc-pictures")
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").touch()
    work = Work.of(table, str(tmp_path))
    assert [entry.name for entry in work.table.trained] == [
        e.name for e in table.trained if e.data == "mnist"
    ]
    (line,) = work.missing
    assert line.startswith("left out: celeba-vsc, celeba-vsc-flat: ")
    assert "https://mmlab.ie.cuhk.edu.hk" in line
    with pytest.raises(Refusal, match="holds no celeba"):
        Work.of(table.only(["celeba-*"]), str(tmp_path))
    assert not Work.of(table.only(["mnist-*"]), str(tmp_path)).missing
    with pytest.raises(Refusal, match=r"--only: no row mnist-vcs; did you mean 'mnist-vsc"):
        table.only(["mnist-vcs"])


def small(scale: Scale = "smoke", seeds: int = 1) -> Work:
    """Return a table of bars with next to no training."""
    table = read_table("bars", scale).only(["fitness", "exact"])
    entries = [
        replace(e, settings={**e.settings, "train.epochs": 2}, published={"bound": 1.5})
        for e in table.trained
    ]
    return Work(
        replace(table, entries=(*entries, Entry("quoted", published={"bound": 9.0})), seeds=seeds),
        {},
    )


def of(*rows: str) -> Space:
    """Return the space of some rows of bars."""
    return Work(read_table("bars", "day").only([*rows]), {}).space()


def test_rows_that_come_later_are_tried_once_and_the_rows_of_before_are_kept(
    tmp_path: Path,
) -> None:
    (tmp_path / SWEEP_FILE).write_text(json.dumps(describe_sweep(of("exact", "random"))))
    first = OptunaStudy(of("exact", "random"), tmp_path).next_trial()
    assert started_rows(tmp_path) == ["random", "exact"]
    every = of("exact", "random", "fitness")
    refuse_other_sweep(every, tmp_path)
    tried = list(iter(OptunaStudy(every, tmp_path).next_trial, None))
    assert first is not None
    assert tried[0] == first
    assert [setting.number for setting in tried] == [1, 2, 3]
    assert first.values[ROW] == "random"
    assert {setting.values[ROW] for setting in tried} == {"random", "exact", "fitness"}
    with pytest.raises(Refusal, match="has a row random, which is not asked for"):
        refuse_other_sweep(of("exact", "fitness"), tmp_path)
    with pytest.raises(Refusal, match=r"row random.train.epochs|row exact.train.epochs"):
        refuse_other_sweep(of("exact", "random").pinned({"train.epochs": 7}), tmp_path)


@pytest.fixture(scope="module", autouse=True)
def nowhere() -> Iterator[None]:
    """Use an MLflow server that refuses connections."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small table whose rows are finished, with two seeds each, which was
    made without Ray.
    """
    out = tmp_path_factory.mktemp("table")
    space = small(seeds=2).space().pinned({"train.threads": 1})
    (out / SWEEP_FILE).write_text(json.dumps(describe_sweep(space)))
    study = OptunaStudy(space, out)
    while setting := study.next_trial():
        *_, last = run_trial(Trials(space, out / "trials"), *setting)
        study.record_result(
            Result(setting.number, setting.values, "finished", figures=last["figures"])
        )
    return out


@pytest.mark.slow
def test_rows_that_finish_are_kept_and_held_against_what_was_published(
    out: Path, tmp_path: Path
) -> None:
    work = small(seeds=2)
    assert not Reproduction(work, out, tmp_path / "rows").keep_finished(work.space())
    rows = read_rows(tmp_path / "rows", "bars")
    assert [row.name for row in rows] == ["exact-s0", "exact-s1", "fitness-s0", "fitness-s1"]
    bounds = [row.figures["bound"] for row in rows[:2]]
    lines = {(line.row, line.figure): line for line in compare_rows(work.table, tmp_path / "rows")}
    exact = lines["exact", "bound"]
    assert exact.obtained == pytest.approx(sum(bounds) / 2)
    assert exact.spread == pytest.approx(abs(bounds[0] - bounds[1]) / 2)
    assert exact.difference == pytest.approx(sum(bounds) / 2 - 1.5)
    assert (exact.seeds, exact.scale, exact.epochs) == (2, "smoke", 2)
    assert (lines["quoted", "bound"].published, lines["quoted", "bound"].obtained) == (9.0, None)
    written = json.loads(write_comparison(list(lines.values()), tmp_path).read_text())
    assert written[0].keys() >= {"row", "published", "obtained", "difference", "commit", "seconds"}
    page = Page(report.write(out).read_text())
    (row,) = [row for row in trials(page.tables) if row["row"] == "exact"]
    assert float(row["bound_published"]) == 1.5
    found = [row[name].partition(" ")[0] for name in ("bound", "bound_difference")]
    assert found == [f"{value:.1f}" for value in (exact.obtained, exact.difference)]
    assert "How close do the rows of bars come to the published figures" in page
    assert "distvae reproduce bars --scale smoke" in page
    assert "Which parameters matter" not in page


@pytest.mark.slow
def test_a_row_of_another_scale_stays_unless_it_is_to_be_replaced(
    out: Path, tmp_path: Path
) -> None:
    smoke, day = small(seeds=2), small("day", seeds=2)
    path = tmp_path / "bars.jsonl"
    assert not Reproduction(day, out, tmp_path).keep_finished(day.space())
    before = path.read_bytes()
    left = Reproduction(smoke, out, tmp_path).keep_finished(smoke.space())
    assert sorted(left) == ["exact-s0", "exact-s1", "fitness-s0", "fitness-s1"]
    assert path.read_bytes() == before
    assert not Reproduction(smoke, out, tmp_path, options=SweepOptions(force=True)).keep_finished(
        smoke.space()
    )
    assert {row.scale for row in read_rows(tmp_path, "bars")} == {"smoke"}


def test_a_plan_looks_for_no_data_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTVAE_DATA", raising=False)
    done = CliRunner().invoke(app, ["reproduce", "house", "--plan", "--only", "tvae-*"])
    assert done.exit_code == 0
    assert "scale full: 7 models" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_comparison_has_no_empty_columns_and_says_that_smoke_compares_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = read_table("bars", "smoke")
    line = Line("exact", "recovered", None, 0.0, 0.25, None, 1, "smoke", 5, 3.0, "abc")
    print_comparison([line], table, None)
    head, row, meant, note, _ = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "row",
        "figure",
        "obtained",
        "seeds",
        "epochs",
        "time",
        "scale",
        "commit",
    ]
    assert row.split() == ["exact", "recovered", "0.250", "1", "5", "0:03", "smoke", "abc"]
    assert meant.startswith("recovered: share of the true causes")
    assert "no figure compares" in note
    print_comparison([replace(line, published=0.2, scale="full")], table, None)
    head, row, _ = capsys.readouterr().out.splitlines()
    assert row.split()[2:5] == ["0.2", "0.250", "+0.050"]
