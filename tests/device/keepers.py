"""Keepers in this process, spoken to as Ray speaks to actors: what travels is pickled, and answers
come later.
"""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from distvae.machines.copies.keeper import Keeper, LostCopy


@dataclass(frozen=True)
class Promise:
    """An answer that is on its way."""

    sent: bytes

    def kept(self) -> Any:
        """Return the answer, or raise the error."""
        answer = pickle.loads(self.sent)
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass(frozen=True)
class Remote:
    """A method of a keeper."""

    method: Callable[..., Any]

    def options(self, **options: object) -> "Remote":
        """Return the same: nobody has to try again here."""
        return self

    def remote(self, *arguments: Any) -> Promise:
        """Do what is asked with copies of the arguments."""
        try:
            answer = self.method(*pickle.loads(pickle.dumps(arguments)))
        except LostCopy as error:
            answer = error
        return Promise(pickle.dumps(answer))


class Actor:
    """A keeper that answers as Ray's actors do. Its process may be lost, and start anew."""

    def __init__(self, machine: str = "here", mapped: str | None = None) -> None:
        self.keeper, self.name = Keeper(mapped), machine

    def lose(self) -> None:
        """Forget everything."""
        self.keeper = Keeper()

    def __getattr__(self, name: str) -> Remote:
        if name == "machine":
            return Remote(lambda: self.name)
        return Remote(lambda *arguments: getattr(self.keeper, name)(*arguments))


def ask_all(actors: Sequence[Actor], method: str, default: Any) -> list[Any]:
    """Return the answers of all keepers to a method."""
    return [getattr(actor, method).remote().kept() for actor in actors]


class Roll:
    """Keepers by their names."""

    def __init__(self, **actors: Actor) -> None:
        self.actors = actors

    def names(self) -> list[str]:
        """Return all names."""
        return sorted(self.actors)

    def handle(self, name: str) -> Any:
        """Return a keeper."""
        return self.actors[name]

    def end(self, name: str) -> None:
        """End a keeper for good."""
        del self.actors[name]
