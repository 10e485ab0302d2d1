"""An interface is found by each of its addresses, and workers listen on it alone."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from distvae.system import interface_of, listen_on_interface_of, own_address_towards

TWO_ADDRESSES = """
import subprocess
from distvae.system.interfaces import interface_of, own_address_towards
for words in (
    "link set lo up",
    "link add one type veth peer name two",
    "addr add 10.9.8.7/24 dev one",
    "addr add 10.9.8.6/24 dev one",
    "addr add 10.5.0.1/24 dev one",
    "link set one up",
    "link set two up",
):
    subprocess.run(["ip", *words.split()], check=True)
assert own_address_towards("127.0.1.1") is None, "there is no default route"
subprocess.run("ip route add default via 10.5.0.9".split(), check=True)
print(interface_of("10.9.8.7"), interface_of("10.9.8.6"), interface_of("10.9.8.5"))
print(own_address_towards("10.9.8.1"), own_address_towards("127.0.1.1"))
"""
"""A program for a network of its own."""


def test_loopback_is_the_interface_of_its_address() -> None:
    names = [name for _, name in socket.if_nameindex()]
    assert interface_of("127.0.0.1") in names
    assert interface_of("203.0.113.1") is None
    assert interface_of("::1") is None


@pytest.mark.skipif(not shutil.which("ip"), reason="iproute2 is not installed")
def test_an_interface_has_several_addresses_and_a_route_chooses_one() -> None:
    words = ["unshare", "--map-root-user", "--net", sys.executable, "-c", TWO_ADDRESSES]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"no network of its own: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "one one None\n10.9.8.7 10.5.0.1\n"


def test_an_interface_that_the_environment_names_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "named")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    listen_on_interface_of("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "named"
    assert os.environ["NCCL_SOCKET_IFNAME"] == "=named"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "other")
    listen_on_interface_of("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == interface_of("127.0.0.1")
    assert os.environ["NCCL_SOCKET_IFNAME"] == "other"


def test_a_host_that_does_not_exist_is_reached_from_nowhere() -> None:
    assert own_address_towards("no-such-host.invalid") is None
