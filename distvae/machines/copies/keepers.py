"""Keepers in Ray actors: how they are started, found, asked and ended.

The driver starts as many keepers as workers, spread over the machines. Where there are several, a
worker's keeper is on another machine than the worker, and a second one is on the worker's own.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from distvae.machines.cluster.nodes import live_machines
from distvae.machines.copies.keeper import Keeper, LostCopy
from distvae.machines.ray_api import ActorHandle, ObjectRef, RayApi

T = TypeVar("T")

SENT_BYTES = 8 * 2**20
"""Bytes of states that are sent or read at a time."""
ANSWER_SECONDS = 20.0
"""Seconds in which a keeper has to answer workers that start; its process may be starting too."""


class KeeperActor(Keeper):
    """A keeper in an actor of Ray."""

    def machine(self) -> str:
        """Return the name of the machine it is on."""
        return machine_name()


def machine_name() -> str:
    """Return the address of this machine and the beginning of Ray's number for it.

    The number tells machines apart that are several Rays of one computer.
    """
    import ray

    number = ray.get_runtime_context().get_node_id()
    return f"{ray.util.get_node_ip_address()}-{number[:8]}"


class Roll(Protocol):
    """The keepers of a training by their names, which change while it goes on."""

    def names(self) -> list[str]:
        """Return the names of all keepers, oldest first."""

    def handle(self, name: str) -> ActorHandle:
        """Return a keeper."""

    def end(self, name: str) -> None:
        """End a keeper for good."""


class KeeperRoll:
    """The keepers of a training by their names, which Ray's head knows as long as they live.

    The driver starts keepers while workers train, and workers end those that are no longer needed.
    """

    def __init__(self, owner: str) -> None:
        self.prefix = f"keeper-{owner}-"

    def names(self) -> list[str]:
        """Return the names of all keepers, oldest first."""
        import ray

        return sorted(name for name in ray.util.list_named_actors() if name.startswith(self.prefix))

    def handle(self, name: str) -> ActorHandle:
        """Return a keeper. Raise LostCopy if there is none of this name."""
        import ray

        try:
            keeper: ActorHandle = ray.get_actor(name)
        except ValueError as error:
            raise LostCopy(f"{name} has ended") from error
        return keeper

    def end(self, name: str) -> None:
        """End a keeper for good."""
        import ray

        with suppress(LostCopy):
            ray.kill(self.handle(name))


def launch_keepers(
    machines: Sequence[str], mapped: str | None = None, owner: str = "", first: int = 0
) -> list[ActorHandle]:
    """Start a keeper on each of some machines, given by Ray's ids for them.

    If its process is lost, a keeper starts anew there. With its machine it ends for good.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(KeeperActor)
    keepers = []
    for number, machine in enumerate(machines, first):
        keepers.append(
            actor.options(
                name=f"{KeeperRoll(owner).prefix}{number:06d}",
                scheduling_strategy=NodeAffinitySchedulingStrategy(machine, soft=False),
            ).remote(mapped)
        )
    return keepers


def machines_in_turn(ray: RayApi, count: int) -> list[str]:
    """Return a machine for each of some keepers: each one that has processors in turn."""
    # A head may have no processors, and then trains nothing.
    machines = [name for name, machine in live_machines(ray).items() if machine.cpus]
    return [machines[k % len(machines)] for k in range(count)]


def ask_all(keepers: Sequence[ActorHandle], method: str, default: T) -> list[T]:
    """Return the answers of all keepers to a method, or the default for those that give none."""
    import ray

    refs: list[ObjectRef] = [getattr(keeper, method).remote() for keeper in keepers]
    answered, _ = ray.wait(refs, num_returns=len(refs), timeout=ANSWER_SECONDS)
    answers = []
    for ref in refs:
        try:
            answers.append(ray.get(ref) if ref in answered else default)
        except ray.exceptions.RayError:
            answers.append(default)
    return answers


def rows_sent_together(shape: Sequence[int]) -> int:
    """Return how many rows are sent or read together, of an array of rows, states and words."""
    _, states, words = shape
    return max(1, SENT_BYTES // (8 * states * words))
