"""Processes that do tasks for this one, and end with it, however it ends."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar, cast

from distvae.files.refusal import Refusal

Task = TypeVar("Task")
Result = TypeVar("Result")


class KeptRefusal(Refusal):
    """A refusal after which work that was done is kept, for `--resume`."""


class Processes(Generic[Task, Result]):
    """So many processes that call one function, or with one process this one."""

    def __init__(self, function: Callable[[Task], Result], connections: list[Connection]) -> None:
        self.function, self.connections = function, connections

    def results(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the results of all tasks as they come."""
        if not self.connections:
            yield from map(self.function, tasks)
            return
        waiting = list(reversed(tasks))
        busy = []
        for connection in self.connections[: len(tasks)]:
            connection.send(waiting.pop())
            busy.append(connection)
        while busy:
            for connection in cast(list[Connection], wait(busy)):
                result = _received(connection)
                if waiting:
                    connection.send(waiting.pop())
                else:
                    busy.remove(connection)
                yield cast(Result, result)


def _received(connection: Connection) -> object:
    """Return what a process answers, or raise what it raised."""
    try:
        answer = connection.recv()
    except (EOFError, OSError) as error:
        raise KeptRefusal(
            "--processes: one of them was killed, perhaps for its memory; fewer processes expected,"
            " with --resume to keep what is done"
        ) from error
    if isinstance(answer, Exception):
        raise answer
    return answer


@contextmanager
def start_processes(
    function: Callable[[Task], Result], count: int
) -> Iterator[Processes[Task, Result]]:
    """Yield so many processes, which end when the block does. One process is this one."""
    with ExitStack() as stack:
        connections = []
        for _ in range(count if count > 1 else 0):
            connections.append(stack.enter_context(_process(function)))
        yield Processes(function, connections)


@contextmanager
def _process(function: Callable[[Task], Result]) -> Iterator[Connection]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.terminate()
        process.join()


def _serve(connection: Connection, function: Callable[[Task], Result]) -> None:
    """Do tasks until the process that sends them has closed its end, or is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other one is interrupted too, and ends this
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        answer = answered(function, task)
        try:
            connection.send(answer)
        except OSError:
            return


def answered(function: Callable[[Task], Result], task: Task) -> Result | Exception:
    """Return what a function returns or raises, as something that another process can be sent."""
    try:
        return function(task)
    except (Refusal, OSError, MemoryError) as error:
        return error
    except Exception as error:  # others may not be possible to send
        return RuntimeError(f"{type(error).__name__}: {error}")
