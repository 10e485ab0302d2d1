"""Run folders that version 0.1.0 made still open, evaluate and resume."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from distvae.tasks.evaluate import score_run
from distvae.train.run import Run
from tests.called import Called

RUNS = Path(__file__).parents[1] / "golden" / "runs-0.1.0"
SMALL = "model.latent=4 model.hidden=[4] estep.hidden=[4] eval.metrics=[stoi]"
SETTINGS = {
    "bars": "data.rows=64 train.epochs=3 estep.states=16",
    "speech": f"train.epochs=3 train.schedule=constant {SMALL}",
}
RECIPES = {"bars": "bars", "speech": "speech-sdm"}
TOLERANCES = {"bars": 1e-4, "speech": 1e-3}
EVALUATED: dict[str, dict[str, float]] = {
    "bars": {
        "objective": -17.00090789794922,
        "squared_error": 0.46421775221824646,
        "hoyer": 0.7854104042053223,
    },
    "speech": {
        "stoi": 0.5701507334281307,
        "hoyer": 0.21572473049163818,
        "effective_atoms": 3.191925287246704,
    },
}
"""The metrics of these runs in version 0.1.0."""
RESUMED: dict[str, dict[str, float]] = {
    "bars": {"train_objective": -17.045896530151367, "val_objective": -16.639141082763672},
    "speech": {"train_objective": -4778.553492194822, "val_objective": -4152.326962809917},
}
"""The third epoch, when version 0.1.0 resumed them."""


def agree(found: Mapping[str, float], expected: Mapping[str, float], name: str) -> None:
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=TOLERANCES[name]), key


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_an_old_run_opens_evaluates_and_resumes(name: str, tmp_path: Path, call: Called) -> None:
    copy = shutil.copytree(RUNS / name, tmp_path / name)
    run = Run.open(copy)
    assert len(run.epochs()) == 2
    agree(score_run(run).summary, EVALUATED[name], name)
    words = f"train {RECIPES[name]} {SETTINGS[name]} train.bits=any --out {copy}"
    code, _, error = call(*words.split(), "--no-track", "--no-evaluate", "--resume")
    assert code == 0, error
    *_, last = (json.loads(line) for line in (copy / "epochs.jsonl").read_text().splitlines())
    assert last["epoch"] == 3
    agree(last, RESUMED[name], name)
