"""The parts of Ray that this package uses, as protocols; Ray's own types are not checked."""

from collections.abc import Mapping
from typing import Protocol, TypedDict


class NodeInfo(TypedDict):
    """A machine as Ray describes it."""

    NodeID: str
    NodeManagerAddress: str
    NodeManagerPort: int
    Alive: bool
    Resources: dict[str, float]


class RayApi(Protocol):
    """The module `ray` of a process that is connected to a cluster."""

    def nodes(self) -> list[NodeInfo]:
        """Return all machines, including machines that are gone."""

    def available_resources(self) -> Mapping[str, float]:
        """Return the resources that nobody uses."""


class ObjectRef(Protocol):
    """A reference to a value that another process computes; `ray.get` returns the value."""


class RemoteMethod(Protocol):
    """A method of an actor, or a function that runs in another process."""

    def remote(self, *arguments: object) -> ObjectRef:
        """Call it and return a reference to its result."""


class ActorHandle(Protocol):
    """A handle of an actor, which has the methods of the actor's class."""

    def __getattr__(self, name: str) -> RemoteMethod:
        """Return a method."""
