"""What the documentation shows, works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distvae.tune.reading import load_space

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
def test_the_fifth_model_of_the_guide_trains_and_encodes(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 75
    (tmp_path / "laplace.py").write_text(code)
    settings = {"DISTVAE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    environment = {k: v for k, v in os.environ.items() if k != "DISTVAE_DATA"} | settings
    done = subprocess.run(
        [sys.executable, "laplace.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bounds = [float(found) for found in re.findall(r"epoch \d: (-?[\d.]+)", done.stdout)]
    assert len(bounds) == 3
    assert bounds[-1] > bounds[0]
    assert re.search(r"\(\d+, 16\)", done.stdout)


def test_the_space_of_the_guide_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "sweeps.md").read_text(), re.DOTALL)
    (tmp_path / "guide.yaml").write_text(text)
    space = load_space(str(tmp_path / "guide.yaml"))
    assert (space.search, space.trials, space.seeds) == ("nsga2", 60, 2)
    assert space.base.train.epochs == 30
