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
from distvae.files.refusal import Refusal
from distvae.reproduce.compare import compare_rows, write_comparison
from distvae.reproduce.rows import SCALES, Scale, read_rows
from distvae.reproduce.run import Reproduction, Work, started_rows
from distvae.reproduce.table import TABLES, Entry, Source, locate, read_table, table_names
from distvae.tune.folder import SWEEP_FILE, describe_sweep, refuse_other_sweep
from distvae.tune.results import Result, rank
from distvae.tune.space import ROW, Space
from distvae.tune.study import OptunaStudy
from distvae.tune.sweep import SweepOptions
from distvae.tune.trial import Trials, run_trial
from tests.report.reader import Page, trials
from tests.slowly import slow

HOUSE = Source("House", {"house256.png": {}, "other/*.tif": {"data.stride": 2}})


def published(name: str) -> dict[str, dict[str, str]]:
    """Return the published figures of a table as a spreadsheet would read them."""
    path = TABLES / f"{name}.csv"
    if not path.exists():
        return {}
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {row["row"]: row for row in csv.DictReader(lines)}


@pytest.mark.parametrize(
    "name", ["bars", *slow(*(name for name in table_names() if name != "bars"))]
)
def test_every_row_is_a_configuration(name: str) -> None:
    for scale in SCALES:
        table = read_table(name, scale)
        assert table.trained
        assert table.cost() > 0
        for entry in (*table.trained, *table.peers):
            entry.config()
            assert not entry.data or entry.data in table.data


@pytest.mark.parametrize("name", table_names())
def test_all_that_was_published_is_shown_and_no_row_is_there_twice(name: str) -> None:
    table = read_table(name)
    names = [entry.name for entry in table.entries]
    assert len(set(names)) == len(names)
    parsed = {entry.name: entry for entry in table.entries if entry.published}
    for row, figures in published(name).items():
        entry = parsed[row]
        spreads = {f"{figure}_spread": spread for figure, spread in entry.spread.items()}
        written = {key: float(value) for key, value in figures.items() if key != "row" and value}
        assert {**entry.published, **spreads} == written


def test_a_row_that_is_not_there_is_named() -> None:
    with pytest.raises(Refusal, match=r"--only: no row tvae-26; did you mean 'tvae-2?5'"):
        read_table("house").only(["tvae-26"])


@pytest.mark.parametrize("place", ["images"])
def test_data_is_found_in_a_folder_and_in_one_below(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "house256.png").write_bytes(b"")
    assert locate("house", HOUSE, str(tmp_path)) == {
        "data.path": str(tmp_path / place / "house256.png")
    }


def test_data_that_is_not_there_is_named_with_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISTVAE_DATA", raising=False)
    with pytest.raises(Refusal, match=r"--data: not given.*house \(House\)"):
        locate("house", HOUSE, "")
    with pytest.raises(
        Refusal, match=r"holds no house \(House\): house256.png or other/\*.tif expected"
    ):
        locate("house", HOUSE, str(tmp_path))


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


def obtained(work: Work, out: Path) -> None:
    """Write what a sweep leaves behind, without Ray."""
    space = work.space().pinned({"train.threads": 1})
    out.mkdir(parents=True)
    (out / SWEEP_FILE).write_text(json.dumps(describe_sweep(space)))
    study = OptunaStudy(space, out)
    while setting := study.next_trial():
        *_, last = run_trial(Trials(space, out / "trials"), *setting)
        study.record_result(
            Result(setting.number, setting.values, "finished", figures=last["figures"])
        )
    assert {result.values[ROW] for result in rank(study.results, space.metrics)} == {
        "fitness",
        "exact",
    }


def of(*rows: str) -> Space:
    """Return the space of some rows of bars."""
    return Work(read_table("bars", "day").only([*rows]), {}).space()


def test_rows_that_come_later_are_tried_once_beside_the_rows_of_before(tmp_path: Path) -> None:
    few = OptunaStudy(of("exact", "random"), tmp_path)
    first = few.next_trial()
    more = OptunaStudy(of("fitness", "random", "exact"), tmp_path)
    tried = list(iter(more.next_trial, None))
    assert first is not None
    assert tried[0] == first
    assert [setting.number for setting in tried] == [1, 2, 3]
    assert first.values[ROW] == "random"
    assert {setting.values[ROW] for setting in tried} == {"random", "exact", "fitness"}


def test_a_folder_that_goes_on_keeps_the_rows_it_has(tmp_path: Path) -> None:
    (tmp_path / SWEEP_FILE).write_text(json.dumps(describe_sweep(of("exact", "random"))))
    assert started_rows(tmp_path) == ["random", "exact"]
    refuse_other_sweep(of("exact", "random", "fitness"), tmp_path)
    with pytest.raises(Refusal, match="has a row random, which is not asked for"):
        refuse_other_sweep(of("exact", "fitness"), tmp_path)
    other = of("exact", "random").pinned({"train.epochs": 7})
    with pytest.raises(Refusal, match=r"row random.train.epochs|row exact.train.epochs"):
        refuse_other_sweep(other, tmp_path)


@pytest.fixture(scope="module", autouse=True)
def nowhere() -> Iterator[None]:
    """Use an MLflow server that refuses connections."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small table whose rows are finished, with two seeds each."""
    out = tmp_path_factory.mktemp("table") / "out"
    obtained(small(seeds=2), out)
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
    comparison = json.loads(write_comparison(list(lines.values()), tmp_path).read_text())
    assert comparison[0].keys() >= {
        "row",
        "published",
        "obtained",
        "difference",
        "commit",
        "seconds",
    }


@pytest.mark.slow
def test_the_page_of_a_table_holds_what_was_obtained_against_what_was_published(out: Path) -> None:
    page = Page(report.write(out).read_text())
    (row,) = [row for row in trials(page.tables) if row["row"] == "exact"]
    assert float(row["bound_published"]) == 1.5
    obtained = float(row["bound"].partition(" ")[0])
    assert float(row["bound_difference"].partition(" ")[0]) == pytest.approx(
        obtained - 1.5, rel=1e-3
    )
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
    assert "scale full: 4 models" in done.stdout
    assert not list(tmp_path.iterdir())
