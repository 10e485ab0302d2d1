"""Populations of small TVAEs: generation by generation, killed anywhere, and from whose state."""

import json
from collections import Counter
from collections.abc import Generator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from distvae.data import open_dataset
from distvae.track import Sending, Store
from distvae.track.record import read_record
from distvae.train.run import Run, read_info
from distvae.train.schedule import Rates
from distvae.train.session import build_trainer, fit
from distvae.tune.display import SweepDisplay
from distvae.tune.judgments import read_judgments
from distvae.tune.optuna_study import OptunaStudy
from distvae.tune.recorder import Recorder
from distvae.tune.results import EndedEpoch, Result
from distvae.tune.space import Space
from distvae.tune.space_files import read_space
from distvae.tune.trial import Report, Trials, run_trial
from distvae.tune.validation import validate_space

TREE: dict[str, Any] = {
    "base": "bars",
    "fixed": {
        "data.rows": 40,
        "train.epochs": 6,
        "train.batch": 20,
        "train.threads": 1,
        "train.device": "cpu",
        "estep.states": 8,
        "estep.sweeps": 2,
        "eval.processes": 1,
    },
    "metrics": {"squared_error": "min"},
    "trials": 4,
    "search": "random",
    "scheduler": "population",
    "judge": {"interval": 2, "sample": 20},
    "axes": [
        {"key": "train.rate", "float": [1e-3, 1e-1], "log": True},
        {"key": "estep.children", "int": [1, 4]},
        {"key": "train.seed", "choice": [0, 1]},
    ],
}


@pytest.fixture(scope="module")
def space() -> Space:
    read = read_space("tiny", TREE)
    validate_space(read)
    return read


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLflow server that refuses at once."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def recorder_of(space: Space, out: Path) -> Recorder:
    """What a sweep in a folder has recorded, as after a start of its process."""
    trials, display = Trials(space, out / "trials"), SweepDisplay(space, quiet=True)
    sending = Sending(Store.find(out), out)
    recorder = Recorder(trials, OptunaStudy(space, out), display, sending, lambda: False)
    display.ended_before(recorder.study.results)
    return recorder


def reports(recorder: Recorder) -> Generator[None, None, None]:
    """Run trials one after the other, and yield after each report, before it is recorded."""
    while trial := recorder.next_trial():
        recorder.started(trial.number, trial.values)
        for report in run_trial(recorder.trials, *trial):
            yield
            if "epoch" in report:
                recorder.trained(trial.number, [EndedEpoch(report["epoch"], report["bound"])])
            else:
                recorder.ended(trial.number, report, "")


def outcome(result: Result) -> tuple[Any, ...]:
    """What a sweep found of a trial, without its time."""
    lineage = result.parent, result.parent_epoch
    return result.values, result.state, result.epoch, result.cause, lineage, result.figures


def finish(space: Space, out: Path, kill_after: int | None = None) -> dict[int, tuple[Any, ...]]:
    """Run a sweep to its end, each time until it is killed after so many reports."""
    while True:
        recorder = recorder_of(space, out)
        done, running = recorder.study.is_done, reports(recorder)
        reported = len([*islice(running, kill_after)])
        assert not (done and reported)
        if reported != kill_after:
            assert OptunaStudy(space, out).is_done
            return {number: outcome(each) for number, each in recorder.display.results.items()}
        running.close()


@pytest.fixture(scope="module")
def whole(
    space: Space, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[int, tuple[Any, ...]]]:
    """A sweep that nothing disturbs, and what it found."""
    out = tmp_path_factory.mktemp("whole")
    return out, finish(space, out)


@pytest.mark.slow
@pytest.mark.parametrize("reports_until_killed", [7])
def test_a_population_that_is_killed_again_and_again_equals_an_undisturbed_one(
    reports_until_killed: int,
    space: Space,
    whole: tuple[Path, dict[int, tuple[Any, ...]]],
    tmp_path: Path,
) -> None:
    """Killed during an epoch, a judgment, a change of generations or an evaluation."""
    out, expected = whole
    assert finish(space, tmp_path, reports_until_killed) == expected
    for trial in expected:
        folders = [each / "trials" / str(trial) for each in (out, tmp_path)]
        judged, again = map(read_judgments, folders)
        assert judged == again


@pytest.mark.slow
def test_a_population_goes_on_with_those_that_did_not_fail(space: Space, tmp_path: Path) -> None:
    """Three of four fail at once, and the sweep is killed before the next generation."""
    recorder = recorder_of(space, tmp_path)
    for _ in range(4):
        trial = recorder.next_trial()
        assert trial is not None
        recorder.started(trial.number, trial.values)
        last: Report = {"failure": "diverged"}
        if trial.number == 4:
            *_, last = run_trial(recorder.trials, *trial)
        recorder.ended(trial.number, last, "")
    assert not OptunaStudy(space, tmp_path).is_done
    found = finish(space, tmp_path)
    states = Counter(state for _, state, *_ in found.values())
    assert states == {"finished": 3, "failed": 3}


def test_a_population_is_given_up_when_all_of_its_members_have_failed(
    space: Space, tmp_path: Path
) -> None:
    recorder = recorder_of(space, tmp_path)
    numbers = []
    while trial := recorder.next_trial():
        assert not recorder.study.all_failed
        recorder.started(trial.number, trial.values)
        recorder.ended(trial.number, {"failure": "diverged"}, "")
        numbers.append(trial.number)
    assert numbers == [1, 2, 3, 4]
    assert recorder.study.all_failed
    assert OptunaStudy(space, tmp_path).is_done


@pytest.mark.long
def test_a_branch_that_was_recorded_and_not_made_is_made_when_the_sweep_goes_on(
    space: Space,
    whole: tuple[Path, dict[int, tuple[Any, ...]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("distvae.tune.generations.branch", killed)
        with pytest.raises(KeyboardInterrupt):
            finish(space, tmp_path)
    assert not (tmp_path / "trials" / "5").exists()
    assert finish(space, tmp_path) == whole[1]


@pytest.mark.slow
def test_a_population_keeps_its_size_and_says_whence_each_trial_came(
    space: Space, whole: tuple[Path, dict[int, tuple[Any, ...]]]
) -> None:
    out, found = whole
    states = {number: each[1] for number, each in found.items()}
    assert len(found) == space.count == 6
    assert list(states.values()).count("finished") == 4
    for number in (5, 6):
        lineage = read_info(out / "trials" / str(number))["lineage"]
        assert lineage["epoch"] == 2 * (number - 4)
        assert found[number][4] == (lineage["parent"], lineage["epoch"])
        assert states[lineage["replaces"]] == "halted"
        assert f"by {number}, of {lineage['parent']}" in found[lineage["replaces"]][3]
        worths = {
            each.name: judged[lineage["epoch"]]
            for each in (out / "trials").iterdir()
            if lineage["epoch"] in (judged := read_judgments(each))
        }
        assert len(worths) == 4
        assert worths[str(lineage["parent"])] == min(worths.values())
        assert worths[str(lineage["replaces"])] == max(worths.values())
    for number, state in states.items():
        status = read_record(out / "trials" / str(number))["status"]
        assert status == ("KILLED" if state == "halted" else "FINISHED")


@pytest.mark.slow
def test_a_branch_goes_on_from_the_weights_moments_and_populations_of_its_better(
    space: Space, whole: tuple[Path, dict[int, tuple[Any, ...]]]
) -> None:
    """Its first bound is that of its better, trained in one piece, with the branch's settings."""
    out, found = whole
    values, (better, epoch) = found[5][0], found[5][4]
    before, after = space.config(found[better][0]), space.config(values)
    dataset = open_dataset(before.data)
    trainer = build_trainer(before, dataset)
    assert len([*islice(trainer.run(), epoch)]) == epoch
    trainer.config, trainer.rates = after.train, Rates(after.train, trainer.batches, trainer.device)
    estep: Any = trainer.estep
    estep.config = after.estep
    expected = next(trainer.run())
    first = json.loads((out / "trials" / "5" / "epochs.jsonl").read_text().splitlines()[0])
    assert (first["epoch"], first["val_bound"]) == (epoch + 1, expected.val_bound)


@pytest.mark.slow
def test_a_branch_opens_and_resumes_as_any_run(
    space: Space, whole: tuple[Path, dict[int, tuple[Any, ...]]]
) -> None:
    out, found = whole
    folder = out / "trials" / "6"
    run = Run.open(folder)
    assert run.facts["epoch"] > found[6][4][1]
    config = run.config.with_("train", epochs=8)
    epochs = [*fit(config, open_dataset(config.data), folder, resume=True)]
    assert [epoch.epoch for epoch in epochs] == [7, 8]
