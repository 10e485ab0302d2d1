"""Two sweeps on one page: which trials are on a front, what it covers and what it loses, against
counting of others.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume

from distvae import report
from distvae.files.refusal import Refusal
from distvae.report.reading import Sweep, read_results
from distvae.report.tradeoffs import Plane
from distvae.train.session import fit
from distvae.tune.results import Result
from tests import tiny
from tests.report import folders as sweeps
from tests.report.reader import Page, Rows, markdown_tables, rows

At = tuple[float, float]


def better(number: int, values: dict[str, Any]) -> Result:
    """Trials of another sweep, of which some are better and some worse."""
    return replace(sweeps.judged(number + 100, values), number=number)


def misspelt(number: int, values: dict[str, Any]) -> Result:
    """Trials without a figure of the other sweep, but with one of nearly that name."""
    return Result(number, values, "finished", 1, -1.0, {"hoyer": 0.5, "squared_eror": 1.0})


def on_data(folder: Path, seed: int = 0) -> None:
    """Let the first trial of a sweep have seen data."""
    list(fit(tiny.config(train={"epochs": 1}), tiny.dataset(seed=seed), folder / "trials" / "1"))


@dataclass(frozen=True)
class Two:
    """A sweep by two figures, and one that was ranked by one of them alone."""

    ours: Path
    theirs: Path

    @classmethod
    def made(cls, root: Path, **other: Any) -> "Two":
        two = cls(root / "ours", root / "theirs")
        sweeps.without_a_ledger(two.ours, trials=8)
        sweeps.without_a_ledger(
            two.theirs, better, trials=7, **{"metrics": {"hoyer": "max"}} | other
        )
        on_data(two.ours)
        on_data(two.theirs)
        return two


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    return Two.made(tmp_path_factory.mktemp("two"))


def losses(folder: Path) -> list[At]:
    """Squared error and minus Hoyer of every trial, both to be small."""
    by_number = json.loads((folder / "results.json").read_text())["trials"]
    return [(trial["figures"]["squared_error"], -trial["figures"]["hoyer"]) for trial in by_number]


def beats(one: At, other: At) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def best(points: Sequence[At]) -> list[At]:
    return [point for point in points if not any(beats(other, point) for other in points)]


def table(tables: list[list[list[str]]]) -> Rows:
    (found,) = [rows(each) for each in tables if each and each[0][0] == "sweep"]
    return found


def test_both_fronts_are_told_from_one_reference(two: Two) -> None:
    page = report.write(two.ours, against=two.theirs)
    shown, twin = Page(page.read_text()), page.with_suffix(".md").read_text()
    ours, theirs = losses(two.ours), losses(two.theirs)
    reference = np.array([max(error for error, _ in best(ours) + best(theirs)), 0.0])
    text = " ".join(" ".join(shown.words).split())
    found = re.search(
        r"squared_error (\S+) \(the worst on either front\) and hoyer 0 "
        r"\(the worst possible\); more",
        text,
    )
    assert found
    assert float(found[1]) == pytest.approx(reference[0], rel=1e-3)
    for tables in (shown.tables, markdown_tables(twin)):
        for row, one, other in zip(table(tables), (ours, theirs), (theirs, ours), strict=True):
            lost = sum(any(beats(at, point) for at in best(other)) for point in best(one))
            area = compute_hypervolume(
                np.array([at for at in one if at[0] <= reference[0]]), reference
            )
            assert (row["trials"], row["on its front"]) == (str(len(one)), str(len(best(one))))
            assert float(row["hypervolume"]) == pytest.approx(area, rel=1e-3)
            assert row["of its front, beaten by the other's"].startswith(
                f"{lost} of {len(best(one))} "
            )
    assert "was not ranked by squared_error" in shown
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_a_front_loses_nothing_to_itself(two: Two) -> None:
    page = Page(report.write(two.ours, against=two.ours).read_text())
    assert "cover the same area" in page
    assert [
        row["of its front, beaten by the other's"].partition(" ")[0] for row in table(page.tables)
    ] == ["0", "0"]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ("s1", "s2", ("s1", "s2")),
        ("here/s1", "there/s1", ("here/s1", "there/s1")),
        ("s1", "s1", ("tiny (this one)", "tiny (the same one)")),
    ],
)
def test_sweeps_of_one_space_are_called_by_their_folders(
    ours: str, theirs: str, expected: tuple[str, str], tmp_path: Path
) -> None:
    for name in {ours, theirs}:
        (tmp_path / name).mkdir(parents=True)
        sweeps.without_a_ledger(tmp_path / name, trials=3)
        on_data(tmp_path / name)
    page = Page(report.write(tmp_path / ours, against=tmp_path / theirs).read_text())
    names = [row["sweep"] for row in table(page.tables)]
    assert [name.endswith(end) for name, end in zip(names, expected, strict=True)] == [True, True]
    assert len({*names}) == 2


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"pesq_wb": "max", "effective_atoms": "min"}, (1.0, -7.0)),
        ({"pesq_wb": "min", "hoyer": "max"}, (-4.65, 0.0)),
        ({"isd": "min", "stoi": "min"}, (-9.0, -1.0)),
    ],
)
def test_the_reference_is_as_bad_as_can_be_or_the_worst_there_is(
    folder: Path, metrics: dict[str, str], expected: At
) -> None:
    figures = {"pesq_wb": 2.0, "effective_atoms": 7.0, "hoyer": 0.3, "stoi": 0.9, "isd": 9.0}
    sweeps.without_a_ledger(folder, trials=2)
    sweep = read_results(folder)
    assert isinstance(sweep, Sweep)
    sweep = replace(sweep, facts={**sweep.facts, "metrics": metrics})
    for trial, share in zip(sweep.trials, (1.0, 0.5), strict=True):
        trial.result.figures.update({name: value * share for name, value in figures.items()})
    plane = Plane.of(sweep)
    assert plane.reference(plane.dots(sweep)) == expected


@pytest.mark.slow
def test_what_does_not_compare_is_refused_by_name(two: Two, tmp_path: Path) -> None:
    other = tmp_path / "other"

    def refused(what: str, source: Path = two.ours) -> None:
        with pytest.raises(Refusal, match=what):
            report.write(source, tmp_path / "page.html", against=other)

    sweeps.trained(other)
    refused(r"other: a run; two sweeps expected")
    sweeps.without_a_ledger(
        other, lambda number, values: Result(number, values, "failed", cause="no"), trials=1
    )
    refused("other: squared_error and hoyer are compared, and no trial has both")
    sweeps.without_a_ledger(other, misspelt, metrics={"hoyer": "max"})
    refused("no squared_error; did you mean 'squared_eror'")
    other = tmp_path / "elsewhere"
    sweeps.without_a_ledger(other)
    refused("elsewhere: it contains no run; trials whose run.json files name the same digest")
    on_data(other, seed=1)
    refused(
        "elsewhere: found on other data .tiny, digest tiny-100-1. than .*ours .tiny, digest"
        " tiny-100-0."
    )
    refused("ranked by hoyer alone; two figures expected", two.theirs)
    other = tmp_path / "tested"
    sweeps.without_a_ledger(other)
    facts = json.loads((other / "sweep.json").read_text())
    (other / "sweep.json").write_text(json.dumps(facts | {"split": "test"}))
    on_data(other)
    refused("tested: its figures are of the split test, those of .*ours of val; one split expected")
