"""Teams: all workers get the same bits, equal to NumPy's sums, and notice when one ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distvae.files.refusal import Refusal
from distvae.train.team import (
    ALONE,
    Team,
    WorkerLost,
    _rendezvous,
    join_team,
)
from tests.train.crew import Crew, crew_of

Arrays = list[NDArray[Any]]


def summed(team: Team, arrays: Arrays) -> Arrays:
    tensors = [torch.from_numpy(array.copy()) for array in arrays]
    team.sum(tensors)
    return [tensor.numpy() for tensor in tensors]


def draws(seed: int, size: int, shapes: list[tuple[int, ...]]) -> list[Arrays]:
    """Return arrays for each worker, over many magnitudes, single and double in turns."""
    random = np.random.default_rng(seed)
    types = (np.float32, np.float64)
    return [
        [
            np.asarray(random.normal(size=s) * 10 ** random.uniform(-6, 6, s), types[i % 2])
            for i, s in enumerate(shapes)
        ]
        for _ in range(size)
    ]


def bits(arrays: Arrays) -> list[bytes]:
    return [array.tobytes() for array in arrays]


LARGE = [(512, 512), (512,), (512, 144), (0,), ()]


@pytest.mark.slow
def test_sums_are_right_and_equal_on_all_workers_and_in_every_run(crew: Crew) -> None:
    given = draws(0, crew.size, LARGE)
    first, *others = crew.all(summed, given)
    for total, *parts in zip(first, *given, strict=True):
        exact = np.sum(np.stack(parts).astype(np.longdouble), 0)
        scale = np.sum(np.abs(np.stack(parts)), 0, dtype=np.longdouble)
        assert np.all(np.abs(total - exact) <= 2 * np.finfo(total.dtype).eps * scale)
    for again in [*others, *crew.all(summed, given)]:
        assert bits(again) == bits(first)
    counts = [[np.array([2**60 + rank, -rank])] for rank in range(crew.size)]
    exact = np.sum(counts, 0)  # in integers
    assert all(np.array_equal(total, exact) for total in crew.all(summed, counts))


def gradients(team: Team) -> tuple[Any, Any]:
    """Sum a gradient that is a transposed view, in place."""
    place = torch.zeros(3, 2)
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    weight.grad = place.T
    place += torch.arange(6.0).reshape(3, 2) + team.rank
    team.sum([weight.grad])
    return place.numpy(), weight.grad.data_ptr() == place.data_ptr()


@pytest.mark.slow
def test_a_strided_gradient_is_summed_in_its_place(crew: Crew) -> None:
    ranks = sum(range(crew.size))
    for place, same in crew.all(gradients):
        assert same
        assert np.array_equal(place, crew.size * np.arange(6.0).reshape(3, 2) + ranks)


def interleaved(team: Team, rounds: int) -> list[float]:
    """Sum tensors of growing size, with and without a barrier between."""
    values = []
    for i in range(rounds):
        value = torch.full((1 + 37 * (i % 50),), float(i + team.rank))
        team.sum([value])
        if i % 3 == team.rank:
            time.sleep(1e-4)
        if i % 2:
            team.barrier()
        values += value.unique().tolist()
    return values


def passed(team: Team, seconds: float) -> tuple[float, float]:
    time.sleep(seconds)
    came = time.monotonic()
    team.barrier()
    return came, time.monotonic()


def gathered(team: Team, value: Any) -> list[Any]:
    return team.gather(value)


@pytest.mark.slow
def test_no_call_meets_the_remains_of_another(crew: Crew) -> None:
    size, rounds = crew.size, 100
    expected = [float(size * i + sum(range(size))) for i in range(rounds)]
    assert crew.all(interleaved, [rounds] * size) == [expected] * size
    came, went = zip(*crew.all(passed, [0.05 * rank for rank in range(size)]), strict=True)
    assert min(went) >= max(came), "nobody passes a barrier before all have come"
    values = [{"rank": rank, "text": "x" * rank} for rank in range(size)]
    assert crew.all(gathered, values) == [values] * size


def stopped(team: Team, how: str) -> None:
    """Kill one worker after a sum, and let the remaining workers continue."""
    team.sum([torch.ones(1000)])
    if team.rank != 1:
        team.sum([torch.ones(1000)])
    else:
        os.kill(os.getpid(), getattr(signal, how))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_missed_by_the_others() -> None:
    size = 3
    with crew_of(size) as crew:
        crew.all(gathered, [*range(size)])
        crew.tell(stopped, ["SIGKILL"] * size)
        others = [rank for rank in range(size) if rank != 1]
        assert all(isinstance(error, WorkerLost) for error in crew.answers(others))


def test_one_worker_is_its_own_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team, value = join_team(), torch.randn(3)
    before = value.clone()
    team.sum([value])
    team.barrier()
    assert (team, team.rank, team.size, team.gather("here")) == (ALONE, 0, 1, ["here"])
    assert torch.equal(value, before)


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Refusal, match="not RANK, MASTER_ADDR, MASTER_PORT"):
        join_team()


@pytest.mark.parametrize("host", ["203.0.113.1", "127.0.1.1"], ids=["another", "this by its name"])
def test_machines_listen_where_others_reach_them(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker is on the master's machine, which /etc/hosts may say is 127.0.1.1."""
    environment = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_PORT": "1"}
    for name, value in (environment | {"MASTER_ADDR": host}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "unset")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    with _rendezvous():
        chosen = os.environ.get("GLOO_SOCKET_IFNAME")
    route = Path("/proc/net/route").read_text().splitlines()[1:]
    assert chosen == next(
        (line.split()[0] for line in route if line.split()[1] == "00000000"), None
    )


SCRIPT = """
import torch
from distvae.train.team import join_team
team = join_team()
value = torch.tensor([team.rank + 1.0])
team.sum([value])
# at once, or two workers write into one line
print(f"{type(team).__name__} {int(value)}\\n", end="", flush=True)
team.close()
"""


@pytest.mark.slow
def test_torchrun_sets_up_a_team(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "script.py",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["Workers 3"] * 2
