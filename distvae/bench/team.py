"""What it costs two workers of one machine to add up a gradient, each way, beside the Adam step
that follows.
"""

import json
import os
import socket
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from distvae.bench.row import keep_row
from distvae.train.team import LocalTeam, join_team

WORKERS = 2
CASES = {"big": (512, 512, 144), "s64": (64, 64, 64)}
"""Widths of the decoders for House: states, hidden layer, data."""


def report(steps: int, as_json: bool, keep: Path | None) -> None:
    """Print what each case takes, and keep it where wanted."""
    how = {"workers": WORKERS, "steps": steps}
    for name, widths in CASES.items():
        figures = measure(widths, steps)
        print(
            json.dumps({"case": name} | how | figures) if as_json else _told(name, figures),
            flush=True,
        )
        if keep:
            keep_row(keep, f"team-{name}", figures, how)


def _told(name: str, f: dict[str, float]) -> str:
    sums = (
        f"beside {f['beside_us']:.0f} us, over gloo {f['gloo_us']:.0f} us, a barrier"
        f" {f['barrier_us']:.1f} us"
    )
    return (
        f"{name}: {f['parameters']:,.0f} parameters added up by two workers: {sums}; Adam"
        f" {f['adam_us']:.0f} us"
    )


def measure(widths: tuple[int, ...], steps: int) -> dict[str, float]:
    """Median microseconds, in fresh processes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as fresh:
        told = [fresh.submit(work, rank, port, widths, steps) for rank in range(WORKERS)]
        return told[0].result()


def work(rank: int, port: int, widths: tuple[int, ...], steps: int) -> dict[str, float]:
    """What one worker finds."""
    place = {"RANK": rank, "WORLD_SIZE": WORKERS, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    torch.set_num_threads(1)
    team = join_team()
    assert isinstance(team, LocalTeam), "two processes of one Linux machine share memory"
    parameters = _decoder(widths)
    gradient = [parameter.grad for parameter in parameters if parameter.grad is not None]
    adam = torch.optim.Adam(parameters, fused=True)
    times = {
        "adam_us": _median(adam.step, steps),
        "barrier_us": _median(team.barrier, steps),
        "beside_us": _median(lambda: team.sum(gradient), steps),
        "gloo_us": _median(lambda: team.together.sum(gradient), steps),
    }
    team.close()
    return {"parameters": sum(map(Tensor.numel, gradient))} | times


def _decoder(widths: tuple[int, ...]) -> list[nn.Parameter]:
    """The parameters of its layers, with gradients of zero, which stay so when added up."""
    parameters = [
        parameter for a, b in pairwise(widths) for parameter in nn.Linear(a, b).parameters()
    ]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    return parameters


def _median(function: Callable[[], object], count: int) -> float:
    """Microseconds of one call, after some that are not counted."""
    seconds = []
    for _ in range(10 + count):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return 1e6 * statistics.median(seconds[10:])
