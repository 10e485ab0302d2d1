"""Shards in this process, spoken to as Ray speaks to actors: what travels is pickled, and answers
come later.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from distvae.config import Config, Truncation
from distvae.estep.shard import Shard
from distvae.files.memory import available_memory
from distvae.machines.shards import ShardedStore, Shards
from distvae.models.population import words_of
from distvae.numerics.lanes import Lanes

OWN = ("status", "memory_request")
"""What an actor knows beside its shard."""


@dataclass(frozen=True)
class Promise:
    """An answer that is on its way."""

    sent: bytes

    def kept(self) -> Any:
        """Return the answer."""
        return pickle.loads(self.sent)


@dataclass(frozen=True)
class Remote:
    """A method of a shard."""

    method: Callable[..., Any]

    def options(self, **options: object) -> "Remote":
        """Return the same: nobody has to try again here."""
        return self

    def remote(self, *arguments: Any) -> Promise:
        """Do what is asked with copies of the arguments."""
        return Promise(pickle.dumps(self.method(*pickle.loads(pickle.dumps(arguments)))))


class Actor:
    """A shard that answers as Ray's actors do."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard

    def __getattr__(self, name: str) -> Remote:
        return Remote(
            object.__getattribute__(self, f"_{name}") if name in OWN else getattr(self.shard, name)
        )

    def _status(self) -> dict[str, float]:
        return self.shard.status() | {"restarted": False}

    def _memory_request(self) -> tuple[str, int, int]:
        return "node", available_memory(), self.shard.rows_without_memory()


def store_of(config: Config, rows: int, count: int) -> ShardedStore:
    """Return the store of a worker whose populations are in so many shards."""
    assert isinstance(config.estep, Truncation)
    lanes, width = Lanes.of(rows, config.train.batch), words_of(config.model.latent)
    make = partial(Shard, states=config.estep.states, width=width, mapped=config.estep.mapped)
    actors = [Actor(make(lanes.held(k, count))) for k in range(count)]
    return ShardedStore(Shards(actors, lanes, config.estep.states, width))
