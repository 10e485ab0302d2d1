"""Predict the seconds of an epoch on many workers from measured constants, and check it.

The constants of a model are the seconds of a step by its rows, of a search by its rows, and of the
end of an epoch, all on one thread; how much slower they are while another process computes; and the
bytes of every sum of an epoch. The constants of a network are the delay and the bandwidth of sums
over two processes of this machine. W workers in a ring take W - 1 times the delay for a sum, and
2 (W - 1) / W times its bytes. The end of an epoch is not divided.

Options replace measured constants by those of another device or network. `--check` trains with 1, 2
and 4 processes and prints their seconds beside the prediction. In a network namespace
(`unshare -rn`), `tc qdisc add dev lo root netem rate 1gbit delay 5ms` makes the network slow.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, multiprocessing

from benchmarks.output import keep, parser_of, show
from benchmarks.workers import Subject, subjects
from distvae.estep import assemble
from distvae.interface import prepare
from distvae.train.batches import split_rows
from distvae.train.loop import Trainer
from distvae.train.session import agree_on_arithmetic
from distvae.train.team import ALONE, CPU, Alone, Team, join_team

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128)
CHECKED = (1, 2, 4)
SUMMED = (1_000, 30_000, 300_000, 3_000_000)
"""Numbers of four bytes that are summed over two processes."""
SUMS, PRODUCTS, WIDTH = 100, 4, 256
"""Sums of each size, and the matrix products between them, about a millisecond."""
EPOCHS = 4
"""Epochs that are timed after a first one, which warms up."""


@dataclass(frozen=True)
class Network:
    """The seconds of a sum over two workers are a delay, and bytes by a bandwidth."""

    delay: float
    bandwidth: float

    def seconds(self, size: float, workers: int) -> float:
        """Return the seconds of a sum of some bytes over workers in a ring."""
        steps = workers - 1
        return steps * self.delay + 2 * steps / workers * size / self.bandwidth


@dataclass(frozen=True)
class Constants:
    """What an epoch of a model costs."""

    batch: int
    step_s: float
    """Seconds of a step, without those of its rows."""
    row_s: float
    """Seconds of a step for each row."""
    search_s: float
    """Seconds of a search for each row."""
    end_s: float
    """Seconds at the end of an epoch."""
    busy: float
    """How much slower all this is while another process computes."""
    sums: int
    """Sums of a step over all workers; 0 if sums are exchanged once an epoch."""
    size: float
    """Bytes of these sums."""

    def seconds(self, rows: float, workers: int, network: Network, local_steps: int = 1) -> float:
        """Return the seconds of an epoch. Averages have parameters and two moments."""
        steps = rows / self.batch
        computed = steps * (self.step_s + self.row_s * self.batch / workers)
        computed += rows * self.search_s / workers + self.end_s
        exchanges = self.sums * steps / local_steps if self.sums else 1
        size = self.size * (1 if local_steps == 1 else 3)
        waited = exchanges * network.seconds(size, workers)
        return computed * (self.busy if workers > 1 else 1) + waited


class Counting(Alone):
    """A team of one worker that notes the bytes of every sum."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Note the bytes."""
        self.sizes.append(sum(each.numel() * each.itemsize for each in tensors))


def trainer_of(subject: Subject, team: Team, batch: int | None = None) -> Trainer:
    """Return a trainer as one worker of a team."""
    config = subject.config.with_("train", batch=batch or subject.config.train.batch)
    agree_on_arithmetic(config.train, CPU, team).apply()
    rows = subject.data
    model, estep = assemble(config, rows.shape[1])
    held = split_rows(config, len(rows), team.size).held(team.rank, team.size)
    for part in (model, estep):
        prepare(part, [torch.from_numpy(rows)], held, config.train.seed)
    return Trainer(config.train, model, estep, rows, rows[: config.train.batch], team, CPU)


def epochs_of(trainer: Trainer) -> Iterator[tuple[float, float, float]]:
    """Yield the seconds of epochs after the first: in all, in training, and in searches."""
    run = trainer.run()
    next(run)
    for _ in range(EPOCHS):
        began, epoch = time.perf_counter(), next(run)
        whole = time.perf_counter() - began
        trained = len(trainer.train) / epoch.rows_per_second
        yield whole, trained, epoch.details.get("estep_seconds", 0.0)


def measure(subject: Subject) -> Constants:
    """Measure the constants of a model, with its batch and half of it."""
    rows, batch, seconds = len(subject.data), subject.config.train.batch, []
    for size in (batch // 2, batch):
        times = np.median([*epochs_of(trainer_of(subject, ALONE, size))], axis=0)
        whole, trained, searched = times.tolist()
        seconds.append((trained - searched) / (rows / size))
    row = max((seconds[1] - seconds[0]) / (batch - batch // 2), 0.0)
    trainer = trainer_of(subject, team := Counting())
    next(trainer.run())
    large = [size for size in team.sizes if size >= max(team.sizes) / 2]
    every_step = len(large) >= trainer.batches
    apart = in_processes(2, subject, together=False)
    return Constants(
        batch=batch,
        step_s=max(seconds[1] - row * batch, 0.0),
        row_s=row,
        search_s=searched / rows,
        end_s=whole - trained,
        busy=max(apart / whole, 1.0),
        sums=round(len(large) / trainer.batches) if every_step else 0,
        size=median(large),
    )


def measure_network() -> Network:
    """Measure sums over two processes."""
    return Network(*_spawned(_sums, 2, ()))


def in_processes(workers: int, subject: Subject, together: bool = True) -> float:
    """Return the median seconds of an epoch in several processes, as one team or each alone."""
    return float(_spawned(_train, workers, (subject, together))[0])


def _sums(team: Team) -> list[float]:
    """Time sums between short computations, because workers that compute do not arrive together."""
    torch.set_num_threads(1)
    seconds, factor = [], torch.rand(WIDTH, WIDTH)
    for count in SUMMED:
        numbers, times = torch.zeros(count), []
        for _ in range(SUMS):
            for _ in range(PRODUCTS):
                factor @ factor
            began = time.perf_counter()
            team.sum([numbers])
            times.append(time.perf_counter() - began)
        seconds.append(median(times))
    slope, delay = np.polyfit(4 * np.array(SUMMED), seconds, 1, w=1 / np.array(seconds))
    return [max(float(delay), 0.0), float(1 / slope)]


def _train(team: Team, subject: Subject, together: bool) -> list[float]:
    trainer = trainer_of(subject, team if together else ALONE)
    return [median(whole for whole, _, _ in epochs_of(trainer))]


def _spawned(
    work: Callable[..., list[float]], workers: int, arguments: tuple[object, ...]
) -> list[float]:
    """Return what the first of several processes computes as a team."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        team = [
            pool.submit(_member, rank, workers, port, work, arguments) for rank in range(workers)
        ]
        first, *_ = [member.result() for member in team]
    return first


def _member(
    rank: int,
    workers: int,
    port: int,
    work: Callable[..., list[float]],
    arguments: tuple[object, ...],
) -> list[float]:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(workers), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    team = join_team()
    found = work(team, *arguments)
    team.barrier()
    team.close()
    return found


def describe(constants: Constants, network: Network, rows: float, local: int) -> Iterator[str]:
    """Yield a line for each number of workers, and where more workers stop to pay."""
    c = constants
    yield (
        f"  step {1e6 * c.step_s:.0f} us and {1e6 * c.row_s:.1f} us a row, search"
        f" {1e6 * c.search_s:.1f} us a row, end {c.end_s:.2f} s, {c.busy:.2f} times as long beside"
        f" another; {c.size / 1e6:.2f} MB {'a step' if c.sums else 'an epoch'};"
        f" sums {1e3 * network.delay:.2f} ms and {network.bandwidth / 1e9:.2f} GB/s"
    )
    one, best = c.seconds(rows, 1, network), (1, 0.0)
    for workers in WORKERS:
        gains = [one / c.seconds(rows, workers, network, steps) for steps in (1, local)]
        yield f"  {workers:4} workers: {gains[0]:6.2f} times, averages {gains[1]:6.2f}"
        best = max(best, (workers, gains[0]), key=lambda pair: pair[1])
    yield f"  exact sums pay up to {best[0]} workers"


def main() -> None:
    """Run as a program."""
    parser = parser_of("scale", __doc__)
    parser.add_argument("cases", nargs="+", metavar="CASE", help="cases of benchmarks.workers")
    parser.add_argument("--picture", type=Path, help="a grey picture; a drawn one without")
    parser.add_argument("--rows", type=int, default=8192, help="rows that are measured")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step")
    parser.add_argument("--predicted-rows", type=float, help="rows that are predicted")
    parser.add_argument("--local-steps", type=int, default=64, help="steps between averages")
    for name, unit in (("step", "us of a step"), ("row", "us of a step for each of its rows")):
        parser.add_argument(f"--{name}", type=float, help=f"{unit}, of another device")
    parser.add_argument("--search", type=float, help="us of a search for a row, of another device")
    parser.add_argument("--delay", type=float, help="us of a sum, of another network")
    parser.add_argument("--gbit", type=float, help="gigabits per second of another network")
    parser.add_argument("--check", action="store_true", help="train with 1, 2 and 4 processes")
    parsed = parser.parse_args()
    network = measure_network()
    if parsed.delay is not None:
        network = replace(network, delay=parsed.delay / 1e6)
    if parsed.gbit is not None:
        network = replace(network, bandwidth=parsed.gbit * 1e9 / 8)
    rows = parsed.predicted_rows or parsed.rows
    for name, subject in subjects(parsed.picture, parsed.rows, parsed.batch):
        if name not in parsed.cases:
            continue
        constants = measure(subject)
        for field in ("step", "row", "search"):
            if (given := getattr(parsed, field)) is not None:
                constants = replace(constants, **{f"{field}_s": given / 1e6, "busy": 1.0})
        figures = {f"constant_{key}": float(value) for key, value in asdict(constants).items()}
        figures |= {f"network_{key}": value for key, value in asdict(network).items()}
        lines = [name, *describe(constants, network, rows, parsed.local_steps)]
        for workers in CHECKED if parsed.check else ():
            share = max(workers / (os.cpu_count() or 1), 1.0)  # of a core that two workers need
            crowded = replace(constants, busy=share * constants.busy)
            for steps in (1, parsed.local_steps) if constants.sums and workers > 1 else (1,):
                predicted = crowded.seconds(parsed.rows, workers, network, steps)
                own = subject.config.with_("train", local_steps=0 if steps == 1 else steps)
                trained = in_processes(workers, subject._replace(config=own))
                key = f"{workers}_s" if steps == 1 else f"{workers}_averages_s"
                figures |= {f"predicted_{key}": predicted, f"trained_{key}": trained}
                way = "" if steps == 1 else f", averages every {steps} steps"
                told = f"predicted {predicted:.2f} s, took {trained:.2f} s"
                lines.append(f"  {workers} workers{way}: {told}")
        settings = {"rows": parsed.rows, "batch": parsed.batch, "predicted_rows": rows}
        show(parsed, {"case": name, **settings, **figures}, "\n".join(lines))
        keep(parsed, f"scale-{name}-batch-{parsed.batch}", figures, settings)


if __name__ == "__main__":
    main()
