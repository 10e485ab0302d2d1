"""Training on two machines is timed beside one process, over a link that carries what it may."""

import json
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from distvae.bench import network
from distvae.bench.namespaces import Link, two_machines
from distvae.bench.network import NetworkExtent, NetworkTurn
from distvae.bench.output import Output
from distvae.bench.relay import carry
from distvae.bench.workers import SPEECH
from distvae.config.recipes import load
from distvae.files.refusal import Refusal

SLOW_LINK = Link(mbits=1000, delay_ms=10)
DELAY = 0.02


def test_a_relay_delivers_packets_in_order_and_none_before_its_delay() -> None:
    """Eight packets fit into the queue of a socket: the relay loses what a device cannot take."""
    ours, ends = zip(*(socket.socketpair(type=socket.SOCK_DGRAM) for _ in range(3)), strict=True)
    for our, end in zip(ours, ends, strict=True):
        our.settimeout(30)
        end.setblocking(False)
    files = (ends[0].fileno(), ends[1].fileno())
    relay = threading.Thread(target=carry, args=(DELAY, files, ends[2].fileno()))
    relay.start()
    packets = [bytes([i]) * 100 * (i + 1) for i in range(8)]
    sent = time.monotonic()
    for packet in packets:
        ours[0].send(packet)
    ours[1].send(b"the other way")
    assert [ours[1].recv(1 << 16) for _ in packets] == packets
    assert time.monotonic() - sent >= DELAY
    assert ours[0].recv(1 << 16) == b"the other way"
    ours[2].send(b"end")
    relay.join(10)
    assert not relay.is_alive()
    for end in (*ours, *ends):
        end.close()


def test_ratios_are_those_of_the_same_turn() -> None:
    alone, both = [1.0, 4.0, 2.0], [2.0, 1.0, 8.0]
    turns = {
        "alone": [NetworkTurn(wall, 0.0) for wall in alone],
        "sum": [NetworkTurn(wall, 3e6) for wall in both],
    }
    figures = network.compare(turns)
    assert (figures["sum_s"], figures["sum_s_min"], figures["sum_s_max"]) == (2.0, 1.0, 8.0)
    assert figures["sum_gain"] == 0.5  # the median of 0.5, 4 and 0.25
    assert (figures["alone_gain"], figures["sum_mb"], figures["alone_mb"]) == (1.0, 3.0, 0.0)


@pytest.mark.parametrize(("name", "factor"), [("sum", 1), ("x4", 4), ("x16", 16)])
def test_a_larger_batch_has_its_rates_scaled_by_the_root(name: str, factor: int) -> None:
    base = load(SPEECH)
    train = network.WAYS[name].config(base).train
    assert base.train.batch == network.CASES[SPEECH]
    assert train.batch == factor * base.train.batch
    assert (train.scale_rate, train.local_steps) == ("none" if factor == 1 else "root", 0)


def test_an_unknown_case_and_a_number_of_workers_that_cannot_share_are_refused() -> None:
    extent = NetworkExtent(Link(), workers=3, steps=16, epochs=1, turns=1)
    with pytest.raises(Refusal, match="small: no such case; big, s64, speech-sdm expected"):
        network.bench_network(["small"], None, extent, Output())
    with pytest.raises(Refusal, match="--workers 3: 1, 2, 4 or 8 expected"):
        network.bench_network(["s64"], None, extent, Output())


@pytest.mark.cluster
@pytest.mark.slow
def test_a_benchmark_of_a_network_counts_what_crosses_a_slow_link(tmp_path: Path) -> None:
    try:
        with two_machines(SLOW_LINK):
            pass
    except Refusal as why:
        pytest.skip(str(why))
    steps, before = 16, _namespaces()
    extent = NetworkExtent(SLOW_LINK, workers=2, steps=steps, epochs=1, turns=1)
    network.bench_network(["s64"], None, extent, Output(True, tmp_path))
    file = tmp_path / "bench" / "network-s64-2-each-limited.json"
    figures = json.loads(file.read_text())["figures"]
    gradient = 4 * 2 * (64 * 64 + 64) / 1e6
    assert steps * gradient < figures["sum_mb"] < 1.5 * steps * gradient + 0.1
    assert figures["x4_mb"] < figures["sum_mb"] / 2
    assert figures["sum_s"] > steps * SLOW_LINK.delay_ms / 1000
    assert figures["alone_mb"] < 0.01
    assert _namespaces() == before


def _namespaces() -> str:
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
