"""Network interfaces of this machine, and the one by which workers reach other machines."""

import fcntl
import os
import socket
import struct

GET_ADDRESS = 0x8915
"""Linux's call that returns an IPv4 address of an interface (SIOCGIFADDR)."""
REQUEST = "16sHH4s16x"
"""What it is given and returns: a name, a kind of address, a port and the address."""
ELSEWHERE = "203.0.113.1"
"""An address on no machine (RFC 5737), to which the default route leads."""


def listen_on_interface_of(address: str) -> None:
    """Make gloo and NCCL use the interface of an address, unless the environment names one.

    Otherwise gloo takes the address of this machine's name, which /etc/hosts may say is 127.0.1.1,
    and NCCL any interface.
    """
    name = os.environ.get("GLOO_SOCKET_IFNAME") or interface_of(address)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # not what begins like it


def interface_of(address: str) -> str | None:
    """Return the interface that has an IPv4 address, or None if it is not found."""
    try:
        wanted = socket.inet_aton(address)
    except OSError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            # Where an interface has several addresses, Linux looks for the one it is given.
            asked = struct.pack(REQUEST, name.encode(), socket.AF_INET, 0, wanted)
            try:
                answered = fcntl.ioctl(probe, GET_ADDRESS, asked)
            except OSError:  # it has no such address, or the system is not Linux
                continue
            if struct.unpack(REQUEST, answered)[-1] == wanted:
                return name
    return None


def own_address_towards(host: str) -> str | None:
    """Return the IPv4 address from which this machine reaches a host, or None if it does not.

    If the host's name is a name of this machine's loopback, it is the address of the default route.
    """
    address = _own_address_towards(host)
    if address is not None and address.startswith("127."):
        return _own_address_towards(ELSEWHERE)
    return address


def _own_address_towards(host: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # which chooses a route, and sends nothing
        except OSError:
            return None
        return str(probe.getsockname()[0])
