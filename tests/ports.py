"""Ports of this machine, for servers that tests start."""

import socket
from contextlib import closing, suppress
from random import SystemRandom

PORTS = range(20_000, 32_768)
"""Below the ports that a system gives to connections."""


def free_port() -> int:
    """Return a port that nobody holds and that no connection gets in the meantime."""
    while True:
        port = SystemRandom().choice(PORTS)
        with closing(socket.socket()) as found, suppress(OSError):
            found.bind(("", port))
            return port


def answers(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
