"""Ray follows the file for AWS: a head on demand, spot workers, and only ssh open."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.pins import ROOT


@pytest.mark.long
def test_an_account_is_prepared_and_machines_start(tmp_path: Path) -> None:
    pytest.importorskip("moto", reason="moto, which plays an account at AWS, is not installed")
    command = [
        sys.executable,
        "-m",
        "tests.cluster.account",
        str(ROOT / "cluster" / "aws.yaml"),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cloud_state = json.loads(done.stdout.splitlines()[-1])
    assert cloud_state["machines"] == {
        "head": ["m7i.xlarge", "on demand", "distvae"],
        "cpu": ["c7i.8xlarge", "spot", "distvae"],
        "gpu": ["g6.2xlarge", "spot", "distvae"],
    }
    assert cloud_state["open"] == [22]
    assert cloud_state["resources"] == {"head": [0, 0], "cpu": [16, 0], "gpu": [8, 1]}
    assert cloud_state["keys"] == ["ray-autoscaler_eu-central-1.pem"]
