"""Time how two workers of one machine sum a gradient, in each way, beside an Adam step."""

import os
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from distvae.bench.output import Output
from distvae.bench.timing import time_call
from distvae.machines.session.ray_head import free_port
from distvae.system.loopback import HOST
from distvae.train.team import LocalTeam, join_team

WORKERS = 2
WARM_UP = 10
"""Calls that are not counted."""
CASES = {"big": (512, 512, 144), "s64": (64, 64, 64)}
"""Widths of the decoders for House: states, hidden layer, data."""


def bench_team(steps: int, output: Output) -> None:
    """Time the sum of a gradient over two workers, for each case."""
    settings = {"workers": WORKERS, "steps": steps}
    for name, widths in CASES.items():
        figures = measure_team(widths, steps)
        output.show({"case": name, **settings, **figures}, _describe_sums(name, figures))
        output.keep(f"team-{name}", figures, settings)


def _describe_sums(name: str, f: dict[str, float]) -> str:
    return (
        f"{name}: {f['parameters']:,.0f} parameters summed by two workers: in shared memory"
        f" {f['beside_us']:.0f} us, over gloo {f['gloo_us']:.0f} us, a barrier"
        f" {f['barrier_us']:.1f} us; Adam {f['adam_us']:.0f} us"
    )


def measure_team(widths: tuple[int, ...], steps: int) -> dict[str, float]:
    """Return median microseconds, measured in new processes."""
    port = free_port()
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as processes:
        workers = [processes.submit(run_worker, k, port, widths, steps) for k in range(WORKERS)]
        return workers[0].result()


def run_worker(rank: int, port: int, widths: tuple[int, ...], steps: int) -> dict[str, float]:
    """Return the times that one worker measures."""
    place = {"RANK": rank, "WORLD_SIZE": WORKERS, "MASTER_ADDR": HOST, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    torch.set_num_threads(1)
    team = join_team()
    assert isinstance(team, LocalTeam), "two processes of one Linux machine share memory"
    parameters = _decoder(widths)
    gradient = [parameter.grad for parameter in parameters if parameter.grad is not None]
    adam = torch.optim.Adam(parameters, fused=True)
    times = {
        "adam_us": _median_us(adam.step, steps),
        "barrier_us": _median_us(team.barrier, steps),
        "beside_us": _median_us(lambda: team.sum(gradient), steps),
        "gloo_us": _median_us(lambda: team.network.sum(gradient), steps),
    }
    team.close()
    return {"parameters": sum(map(Tensor.numel, gradient))} | times


def _decoder(widths: tuple[int, ...]) -> list[nn.Parameter]:
    """Return the parameters of a decoder, with gradients of zero, which any sum leaves at zero."""
    parameters: list[nn.Parameter] = []
    for width, following in pairwise(widths):
        parameters += nn.Linear(width, following).parameters()
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    return parameters


def _median_us(function: Callable[[], object], count: int) -> float:
    """Return the microseconds of one call, after a warm-up."""
    seconds = [time_call(function) for _ in range(WARM_UP + count)]
    return 1e6 * statistics.median(seconds[WARM_UP:])
