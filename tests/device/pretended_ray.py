"""A Ray whose actors are in this process: what travels is pickled, and answers come later."""

import pickle
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from distvae.machines.shards import ShardActor, actor_name

OWNER = "owner"


class RayError(Exception):
    """An error of Ray, or of the function that it called."""

    cause: Exception | None = None


class GetTimeoutError(RayError):
    """An answer has not come."""


@dataclass(frozen=True)
class Answer:
    """An answer that is on its way, or the error in its place."""

    sent: bytes
    error: RayError | None = None


@dataclass(frozen=True)
class Remote:
    """A method of an actor."""

    actor: "Actor"
    name: str

    def remote(self, *arguments: Any) -> Answer:
        """Call the method with copies of the arguments."""
        if self.actor.silent:
            return Answer(b"", GetTimeoutError())
        try:
            method = getattr(self.actor.shard, self.name)
            return Answer(pickle.dumps(method(*pickle.loads(pickle.dumps(arguments)))))
        except (KeyError, OSError) as error:
            failed = RayError()
            failed.cause = error
            return Answer(b"", failed)


class Actor:
    """An actor whose process may be lost or silent, and may start anew."""

    def __init__(self, mapped: str | None = None) -> None:
        self.shard, self.silent = ShardActor(mapped), False

    def lose(self) -> None:
        """Forget everything, as a new process does."""
        self.shard, self.silent = ShardActor(), False

    def __getattr__(self, name: str) -> Remote:
        return Remote(self, name)


def pretend(monkeypatch: pytest.MonkeyPatch) -> dict[str, Actor]:
    """Replace Ray by the pretended Ray. Return its actors by machine, at first none."""
    actors: dict[str, Actor] = {}

    def get(answer: Answer, timeout: float) -> Any:
        if answer.error:
            raise answer.error
        return pickle.loads(answer.sent)

    def get_actor(name: str) -> Actor:
        found = {actor_name(OWNER, machine): actor for machine, actor in actors.items()}
        if name not in found:
            raise ValueError(name)
        return found[name]

    ray: Any = ModuleType("ray")
    ray.get, ray.get_actor = get, get_actor
    ray.put = lambda value: value
    ray.wait = lambda answers, num_returns, timeout: (answers, [])
    ray.kill = lambda actor, no_restart: actor.lose()
    ray.util = ModuleType("ray.util")
    ray.util.list_named_actors = lambda: [actor_name(OWNER, machine) for machine in actors]
    ray.exceptions = ModuleType("ray.exceptions")
    ray.exceptions.RayError, ray.exceptions.GetTimeoutError = RayError, GetTimeoutError
    for module in (ray, ray.util, ray.exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return actors
