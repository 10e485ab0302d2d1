"""On several machines no worker's keeper is on its own machine."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.ray_cluster import cluster
from tests.train.commands import PLAIN, command


@pytest.mark.long
def test_each_worker_has_its_keeper_on_another_machine(tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe = ["bars", "data.rows=400", "train.epochs=2"]
    with cluster(2, 1) as machines:
        words = command(PLAIN, recipe, out, "--workers", "3", "--address", machines.address)
        subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    event, *_ = map(json.loads, (out / "events.jsonl").read_text().splitlines())
    assert sum(event["rows"]) == 400
    by_machine = sorted(event["machines"].count(name) for name in set(event["machines"]))
    assert by_machine == [1, 2]
    beside = [
        worker == keeper for worker, keeper in zip(event["machines"], event["copies"], strict=True)
    ]
    # Three keepers in turn on two machines leave one of the two workers there no other choice.
    assert sum(beside) <= 1
