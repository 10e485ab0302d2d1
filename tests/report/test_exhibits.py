"""Which trials a page shows, and what their exhibits say."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae import report
from distvae.report.exhibits import exhibits
from distvae.report.reading import RunResults, Sweep, Trial
from distvae.tune.pictures import MAX_TRIALS
from distvae.tune.results import Directions, Result, rank
from tests.report import folders as sweeps
from tests.report.reader import Page, trials

METRICS: Directions = {"squared_error": "min", "hoyer": "max"}
FIGURES = st.fixed_dictionaries({name: st.integers(0, 9).map(float) for name in METRICS})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    """An evaluated run with a picture and sounds."""
    folder = tmp_path_factory.mktemp("run")
    sweeps.put_evaluation(folder)
    return RunResults(folder, {}, [], [], {"val": {}})


def sweep_of(figures: list[dict[str, float]], run: RunResults) -> Sweep:
    """A sweep whose trials ended with these figures, all of them with the same run."""
    results = [Result(n, {}, "finished", figures=each) for n, each in enumerate(figures)]
    ranked = [Trial(result, [run]) for result in rank(results, METRICS)]
    return Sweep(Path("sweep"), {"metrics": METRICS}, ranked, True, [])


@given(st.lists(FIGURES, min_size=1, max_size=40))
def test_the_best_the_worst_and_the_front_come_first(
    run: RunResults, figures: list[dict[str, float]]
) -> None:
    sweep = sweep_of(figures, run)
    order = [trial.result.number for trial in sweep.finished]
    shown = list(exhibits(sweep))
    front = {trial.result.number for trial in sweep.finished if trial.result.unbeaten}
    assert len(shown) == min(len(order), MAX_TRIALS)
    assert shown == [number for number in order if number in shown]
    assert {order[0], order[-1]} <= set(shown)
    if len(front) <= MAX_TRIALS - 2:
        assert front <= set(shown)
    else:
        assert set(shown) <= {*front, order[0], order[-1]}


def test_rows_and_points_of_shown_trials_are_links_to_their_exhibits(folder: Path) -> None:
    first, second, *_ = sweeps.without_a_ledger(folder)
    for result in (first, second):
        sweeps.trained(folder / "trials" / str(result.number))
        sweeps.put_evaluation(folder / "trials" / str(result.number))
    page = Page(report.write(folder).read_text())
    targets = [f"#trial-{result.number}" for result in (first, second)]
    links = [attributes for tag, attributes in page.tags if tag == "a"]
    for target in targets:
        labels = [link["aria-label"] for link in links if link["href"] == target]
        assert labels == [f"Trial {target.removeprefix('#trial-')}"] * 3
        assert target.removeprefix("#") in [attributes.get("id") for _, attributes in page.tags]
    linked = {link["href"] for link in links if (link["href"] or "").startswith("#trial-")}
    assert linked == set(targets)
    assert "The page has 2 of the 6 trials that finished" in page
    assert len(trials(page.tables)) == 6
