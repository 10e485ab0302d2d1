"""Keep the connections between the workers of one machine on its loopback address."""

import os
import socket

HOST = "127.0.0.1"
LOOPBACK = (HOST, "localhost", "::1")


def stay_on_loopback() -> None:
    """Make gloo and NCCL listen on loopback only, unless the environment names an interface."""
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    for library in ("GLOO", "NCCL"):
        if names:
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", names[0])
