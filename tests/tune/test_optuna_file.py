"""The file of trials that a sweep keeps, read by Optuna and served by its dashboard."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from distvae.tune.optuna_study import OptunaStudy
from distvae.tune.results import Result
from tests.ports import answers, free_port
from tests.processes import started
from tests.tune.sweeps import opened_study
from tests.tune.test_optuna_study import end, space


@pytest.fixture
def ended(tmp_path: Path) -> tuple[str, dict[int, dict[str, Any]]]:
    """The address of a sweep's file, and the settings of its trials; the third failed."""
    explored, settings = space(trials=4), {}
    study = OptunaStudy(explored, tmp_path)
    while trial := study.next_trial():
        settings[trial.number] = dict(trial.values)
        if trial.number == 3:
            study.record_result(Result(3, settings[3], "failed", cause="diverged"))
        else:
            end(study, trial.number, settings[trial.number])
    return f"sqlite:///{tmp_path / 'optuna.db'}", settings


def errors(settings: dict[int, dict[str, Any]]) -> dict[int, float]:
    """What the trials that finished are worth, as `figures` has it."""
    return {
        number: abs(values["model.latent"] - 4) + values.get("model.alpha", 0.3)
        for number, values in settings.items()
        if number != 3
    }


def test_optuna_loads_the_study(ended: tuple[str, dict[int, dict[str, Any]]]) -> None:
    storage, settings = ended
    with opened_study(storage) as study:
        assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
        assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2 + [
            "FAIL",
            "COMPLETE",
        ]
        found = {trial.number + 1: trial for trial in study.trials}
        assert {number: trial.user_attrs["values"] for number, trial in found.items()} == settings
        assert {number: found[number].values[0] for number in errors(settings)} == errors(settings)
        assert found[3].user_attrs["result"]["cause"] == "diverged"
        frame = study.trials_dataframe(attrs=("number", "params", "values", "state"))
        assert list(frame["params_model.latent"]) == [
            str(values["model.latent"]) for values in settings.values()
        ]


@pytest.fixture
def served(ended: tuple[str, dict[int, dict[str, Any]]]) -> Iterator[str]:
    """The address of a dashboard of the file, on this machine alone."""
    pytest.importorskip("optuna_dashboard", reason="no optuna-dashboard here")
    port = free_port()
    program = Path(sys.executable).with_name("optuna-dashboard")
    words = [str(program), ended[0], "--port", str(port), "--server", "wsgiref", "--quiet"]
    with started(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until something listens at a port, while the process lives."""
    while True:
        assert process.poll() is None, process.communicate()[1].decode()
        if answers(port):
            return
        time.sleep(0.1)


def asked(url: str) -> Any:
    """The answer of a server, as JSON."""
    with urlopen(url, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_the_dashboard_of_optuna_shows_the_study(
    served: str, ended: tuple[str, dict[int, dict[str, Any]]]
) -> None:
    (study,) = asked(f"{served}/api/studies")["study_summaries"]
    assert (study["study_name"], study["directions"]) == ("sweep", ["minimize", "maximize"])
    trials = asked(f"{served}/api/studies/{study['study_id']}?after=0")["trials"]
    assert [trial["state"] for trial in trials] == ["Complete", "Complete", "Fail", "Complete"]
    for trial in trials:
        shown = {each["name"]: each["param_external_value"] for each in trial["params"]}
        values = ended[1][trial["number"] + 1]
        assert shown == {name: str(value) for name, value in values.items()}
        if trial["state"] == "Complete":
            assert trial["values"][0] == errors(ended[1])[trial["number"] + 1]
    with pytest.raises(URLError):
        urlopen(f"{served}/api/studies/999", timeout=30)
