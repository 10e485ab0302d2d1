"""The network interfaces of this machine, and the interface that leads to other machines."""

import fcntl
import os
import socket
import struct

GET_ADDRESS = 0x8915
"""Linux's call that returns an IPv4 address of an interface (SIOCGIFADDR)."""
REQUEST = "16sHH4s16x"
"""The struct of the call (ifreq): interface name, address family, port and address."""
ELSEWHERE = "203.0.113.1"
"""An address that no machine has (RFC 5737), so that packets to it take the default route."""


def listen_on_interface_of(address: str) -> None:
    """Make gloo and NCCL use the interface of an address, unless the environment names an
    interface.

    By default gloo uses the address of this machine's name, which may be 127.0.1.1 in /etc/hosts,
    and NCCL uses any interface.
    """
    name = os.environ.get("GLOO_SOCKET_IFNAME") or interface_of(address)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # "=" stops prefix matches


def interface_of(address: str) -> str | None:
    """Return the name of the interface with an IPv4 address, or None if there is none."""
    try:
        wanted = socket.inet_aton(address)
    except OSError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            # If an interface has several addresses, Linux looks for the address in the request.
            asked = struct.pack(REQUEST, name.encode(), socket.AF_INET, 0, wanted)
            try:
                answered = fcntl.ioctl(probe, GET_ADDRESS, asked)
            except OSError:  # the interface lacks this address, or the system is not Linux
                continue
            if struct.unpack(REQUEST, answered)[-1] == wanted:
                return name
    return None


def own_address_towards(host: str) -> str | None:
    """Return the IPv4 address from which this machine reaches a host, or None if it cannot.

    If the host resolves to loopback, return the address that the default route uses.
    """
    address = _own_address_towards(host)
    if address is not None and address.startswith("127."):
        return _own_address_towards(ELSEWHERE)
    return address


def _own_address_towards(host: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # selects a route without sending anything
        except OSError:
            return None
        return str(probe.getsockname()[0])
