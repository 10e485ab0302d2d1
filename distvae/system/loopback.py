"""Loopback connections between the workers of one machine, and free ports."""

import os
import socket
from contextlib import closing

HOST = "127.0.0.1"
LOOPBACK = (HOST, "localhost", "::1")


def stay_on_loopback() -> None:
    """Make gloo and NCCL listen on loopback only, unless the environment names an interface."""
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    for library in ("GLOO", "NCCL"):
        if names:
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", names[0])


def is_free(port: int, host: str = HOST) -> bool:
    """Return whether a port of an address is free; '' stands for all addresses."""
    with closing(socket.socket()) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((host, port))
        except OSError:
            return False
        return True
