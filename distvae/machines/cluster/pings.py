"""Pings: whether Ray's own process on each machine answers.

Ray's head asks these processes too, but declares a machine lost only after half a minute or more.
"""

from collections.abc import Mapping
from typing import Any

from distvae.machines.cluster.nodes import Machine

PING_SECONDS = 2.0
"""Seconds in which a process has to answer a ping."""
METHOD = "/grpc.health.v1.Health/Check"
"""The method that Ray's head calls too."""


class Pings:
    """Connections to the processes of Ray on all machines; a refusal by one is an answer too."""

    def __init__(self) -> None:
        self.channels: dict[str, Any] = {}

    def __call__(self, machines: Mapping[str, Machine]) -> set[str]:
        """Return the machines that answer, by id; it takes at most `PING_SECONDS`."""
        self._connect(machines)
        pending = {
            name: self.channels[name].unary_unary(METHOD).future(b"", timeout=PING_SECONDS)
            for name in machines
        }
        return {name for name, call in pending.items() if _is_answered(call)}

    def _connect(self, machines: Mapping[str, Machine]) -> None:
        """Connect to machines that have joined, and close the connections to others."""
        import grpc

        for name in self.channels.keys() - machines.keys():
            self.channels.pop(name).close()
        for name in machines.keys() - self.channels.keys():
            machine = machines[name]
            options = [("grpc.max_reconnect_backoff_ms", 1000)]
            self.channels[name] = grpc.insecure_channel(
                f"{machine.address}:{machine.port}", options
            )


def _is_answered(call: Any) -> bool:
    """Wait for the end of a call; return whether the other process has answered, if only by no."""
    error = call.exception()
    return error is None or error.code().name not in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
