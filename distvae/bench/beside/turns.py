"""Time several programs that take turns, each in a process of its own with its own settings."""

import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from typing import NamedTuple, Self

import torch

from distvae.bench.timing import spread
from distvae.bench.tvae import PRODUCT, fastest_product
from distvae.files.refusal import Refusal

SCORE = -1
"""The number of a turn that scores what was trained, and does not train."""
PATIENCE = 5
"""Seconds that a process has to end by itself."""


class Trained(NamedTuple):
    """Time and figures of one program in one turn."""

    rows: int
    """Rows that it trained on."""
    bound: float = math.nan
    """Mean lower bound of their log-likelihood in nats, where it is known; or the score."""


Turn = Callable[[int], Trained]
"""Train for the turn of this number."""
Start = Callable[[], Turn]
"""Prepare the training, in the process that will take the turns."""


def warm_up(start: Start) -> Turn:
    """Prepare a training, and take a turn that is not timed."""
    turn = start()
    turn(0)
    return turn


class Timed(NamedTuple):
    """A turn and its seconds."""

    rows: int
    bound: float
    cpu: float
    """Processor time of all threads."""
    wall: float


class Seat:
    """A process that prepares a training, and takes a turn when asked."""

    def __init__(self, start: Start) -> None:
        context = get_context("spawn")
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(other_end, start), daemon=True)
        self.process.start()
        other_end.close()

    def __enter__(self) -> Self:
        self._receive()
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()  # the process ends when it sees this, unless it is busy
        self.process.join(PATIENCE)
        self.process.terminate()
        self.process.join()

    def take_turn(self, number: int) -> Timed:
        """Take a turn, and return how long it took."""
        self.connection.send(number)
        answer = self._receive()
        assert isinstance(answer, Timed)
        return answer

    def _receive(self) -> object:
        """Return the answer of the process. Raise the error that it met, if it met one."""
        try:
            answer: object = self.connection.recv()
        except EOFError:
            raise Refusal("--beside: a process of the benchmark was killed") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(connection: Connection, start: Start) -> None:
    """Prepare the training and take turns, until the connection is closed.

    Ctrl-C is for the process at the other end, which closes the connection then.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with redirect_stdout(sys.stderr):
            turn = start()
            connection.send("ready")
            while True:
                connection.send(_time_turn(turn, connection.recv()))
    except EOFError:
        return
    except Exception as error:
        connection.send(error)


def _time_turn(turn: Turn, number: int) -> Timed:
    cpu, wall = time.process_time(), time.perf_counter()
    trained = turn(number)
    return Timed(*trained, time.process_time() - cpu, time.perf_counter() - wall)


class Turns(NamedTuple):
    """The turns of a peer, of this program, and of matrix products."""

    peer: list[Timed]
    ours: list[Timed]
    products: list[Timed]


def take_turns(ours: Start, peer: Start, threads: int, count: int) -> Turns:
    """Let both take so many turns, with a matrix product after each; who is first alternates.

    Ours is prepared before the peer.
    """
    turns = Turns([], [], [])
    with ExitStack() as stack:
        our_seat = stack.enter_context(Seat(ours))
        peer_seat = stack.enter_context(Seat(peer))
        products = stack.enter_context(Seat(partial(_start_products, threads)))
        for number in range(count):
            pair = [(peer_seat, turns.peer), (our_seat, turns.ours)]
            for seat, times in pair if number % 2 == 0 else reversed(pair):
                times.append(seat.take_turn(number))
            turns.products.append(products.take_turn(number))
    return turns


def _start_products(threads: int) -> Turn:
    """Return matrix products, which show what the processor can do."""
    torch.set_num_threads(threads)
    product = fastest_product(time.perf_counter)

    def multiply(number: int) -> Trained:
        product()
        return Trained(0)

    return multiply


def compare(turns: Turns, all_rows: int, threads: int) -> dict[str, float]:
    """Return the seconds of an epoch of so many rows, and how many times faster ours is.

    One thread is judged by its processor time, which other processes disturb less, and several
    threads by wall-clock time. The figures of the other clock have its name before theirs. Each
    ratio is that of two turns one after the other.
    """
    clock, other = ("cpu", "wall") if threads == 1 else ("wall", "cpu")
    figures: dict[str, float] = {"all_rows": all_rows}
    figures |= _epochs(turns, all_rows, clock)
    for name, value in _epochs(turns, all_rows, other).items():
        figures[f"{other}_{name}"] = value
    figures["gflops"] = 2e-9 * PRODUCT**3 / min(_seconds(turns.products, clock))
    for name, taken in (("peer", turns.peer), ("ours", turns.ours)):
        bounds = [turn.bound for turn in taken if math.isfinite(turn.bound)]
        if bounds:
            figures[f"{name}_bound"] = median(bounds)
    return figures


def _epochs(turns: Turns, all_rows: int, clock: str) -> dict[str, float]:
    """Return the seconds of an epoch by a clock, and their ratios."""
    seconds = {}
    for name, taken in (("peer", turns.peer), ("ours", turns.ours)):
        rows = [turn.rows for turn in taken]
        times = _seconds(taken, clock)
        seconds[name] = [all_rows * s / n for s, n in zip(times, rows, strict=True)]
    ratios = [a / b for a, b in zip(seconds["peer"], seconds["ours"], strict=True)]
    spreads = {"peer_s": seconds["peer"], "ours_s": seconds["ours"], "speedup": ratios}
    return dict(spread(spreads))


def _seconds(turns: Sequence[Timed], clock: str) -> list[float]:
    return [turn.cpu if clock == "cpu" else turn.wall for turn in turns]
