"""Pictures of trials, drawn by the processes that have trained them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from distvae.tune.stacks.process import Orders
from distvae.tune.trial import TrialRun


def draw_in_processes(
    connections: Sequence[Connection], runs: Sequence[TrialRun], stop: Callable[[], object]
) -> None:
    """Have waiting processes draw the pictures of runs, each process one run at a time.

    What a process that dies was to draw is left out, and so is all that comes after a stop.
    """
    left, free, busy = list(runs), list(connections), []
    while True:
        while left and free and not stop():
            connection = free.pop()
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.send(Orders(draw=left.pop(0)))
                busy.append(connection)
        if not busy:
            return
        for ready in wait(busy):
            assert isinstance(ready, Connection)
            busy.remove(ready)
            with suppress(EOFError, ConnectionResetError):
                ready.recv()
                free.append(ready)
