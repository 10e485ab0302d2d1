"""Waiting for machines makes an autoscaler bring them, and no longer than they are waited for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_machines_that_are_waited_for_come_from_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.cluster.growing", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0.0, 2.0, 4.0, 0.0]
