"""`distvae runs`, as it is typed."""

from pathlib import Path

import pytest

from tests.called import Called
from tests.track.records import tracker


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record one trial of a sweep."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    sweep = tracker(tmp_path / "runs", "sweep")
    record = tracker(tmp_path / "runs", "sweep/trials/1", tmp_path / "runs" / "sweep")
    record.figures({"hoyer": 0.5})
    for each in (record, sweep):
        each.close()


@pytest.mark.slow
@pytest.mark.usefixtures("trial")
def test_trials_that_match_are_told_where_only_runs_are_listed(call: Called) -> None:
    where = ("--where", "metrics.hoyer > 0.4 and params.model.kind = 'vae'")
    code, out, _ = call("runs", *where)
    assert code == 0
    assert out.splitlines()[-1] == "none of these, but 1 trial (--kind trial)"
    _, out, _ = call("runs", "--kind", "trial", *where)
    assert "none of these" not in out
    assert "finished" in out.lower()


@pytest.mark.slow
@pytest.mark.usefixtures("trial")
def test_where_nothing_matches_no_other_kind_is_told(call: Called) -> None:
    assert "none of these" not in call("runs", "--where", "metrics.hoyer > 0.9")[1]


def test_the_example_of_the_help_lists_trials(call: Called) -> None:
    assert "--kind trial --where" in " ".join(call("runs", "--help")[1].replace("│", " ").split())
