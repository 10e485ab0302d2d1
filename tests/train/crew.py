"""Processes that each hold one worker of a team and do what a test tells them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from distvae.train.team import WorkerLost, join_team
from tests.ports import free_port

IMPORTED = ("distvae.train.session", "pytest", "hypothesis.strategies")
"""The modules that tests import. They are imported once before workers are forked, not in each
worker.
"""


def serve(pipe: Connection, rank: int, size: int, port: int) -> None:
    """Run a worker that does as it is told and answers with the results."""
    os.environ |= {
        "RANK": f"{rank}",
        "WORLD_SIZE": f"{size}",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": f"{port}",
    }
    torch.set_num_threads(1)
    team = join_team()
    pipe.send(team.size == size)
    while (order := pipe.recv()) is not None:
        act, values = order
        try:
            pipe.send(act(team, *values))
        except WorkerLost as error:
            pipe.send(error)
    team.close()


class Crew:
    """Processes that each hold one worker of a team."""

    def __init__(self, size: int) -> None:
        context, port = get_context("forkserver"), free_port()
        context.set_forkserver_preload([*IMPORTED, __name__])
        self.size, ends = size, [context.Pipe() for _ in range(size)]
        self.pipes = [ours for ours, _ in ends]
        self.processes = [
            context.Process(target=serve, args=(theirs, rank, size, port), daemon=True)
            for rank, (_, theirs) in enumerate(ends)
        ]
        for process in self.processes:
            process.start()
        for _, theirs in ends:
            theirs.close()
        assert self.answers() == [True] * size

    def tell(self, act: Callable[..., Any], *values: list[Any]) -> None:
        """Call a function in every worker, with values of its own."""
        for rank, pipe in enumerate(self.pipes):
            pipe.send((act, [value[rank] for value in values]))

    def answers(self, ranks: list[int] | None = None) -> list[Any]:
        return [self.pipes[rank].recv() for rank in (range(self.size) if ranks is None else ranks)]

    def all(self, act: Callable[..., Any], *values: list[Any]) -> list[Any]:
        self.tell(act, *values)
        return self.answers()

    def dismiss(self) -> None:
        for pipe in self.pipes:
            with suppress(BrokenPipeError):  # of a worker that has ended
                pipe.send(None)
        for process in self.processes:
            process.join(20)
            process.kill()


@contextmanager
def crew_of(size: int) -> Iterator[Crew]:
    crew = Crew(size)
    try:
        yield crew
    finally:
        crew.dismiss()
