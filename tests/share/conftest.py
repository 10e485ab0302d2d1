"""Finished runs to give to others."""

import json
import shutil
from pathlib import Path

import pytest

RUNS = Path(__file__).parents[1] / "golden" / "runs-0.1.0"
FIGURES = {"pesq_wb": 2.5, "pesq_wb_std": 0.25, "hoyer": 0.5, "stoi": None}


@pytest.fixture(params=["bars", "speech"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder of a run that was evaluated."""
    folder = tmp_path / "trained here" / str(request.param)
    shutil.copytree(RUNS / folder.name, folder)
    (folder / "evaluation" / "test").mkdir(parents=True)
    (folder / "evaluation" / "test" / "summary.json").write_text(json.dumps(FIGURES))
    return folder
