"""Carry packets between two TUN devices, each after a delay, until standard input is closed.

Linux delays packets by netem, which many kernels lack. Usage: python -m distvae.bench.relay
SECONDS FILE FILE, with the numbers of the open files of both devices, which must not block.
"""

import os
import select
import sys
import time
from collections import deque
from contextlib import suppress

PACKET = 1 << 17
"""Bytes that hold any packet."""


def carry(delay: float, files: tuple[int, int], ends: int) -> None:
    """Write to each device what was read from the other, until a third file can be read."""
    other = {files[0]: files[1], files[1]: files[0]}
    waiting: deque[tuple[float, int, bytes]] = deque()
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready = select.select([*files, ends], [], [], timeout)[0]
        if ends in ready:
            return
        due = time.monotonic() + delay
        for file in ready:
            waiting.extend((due, other[file], packet) for packet in _read_all(file))
        while waiting and waiting[0][0] <= time.monotonic():
            _, file, packet = waiting.popleft()
            with suppress(OSError):  # a device that is not up yet loses it
                os.write(file, packet)


def _read_all(file: int) -> list[bytes]:
    """Return the packets that have arrived."""
    packets = []
    while True:
        try:
            packets.append(os.read(file, PACKET))
        except BlockingIOError:
            return packets


if __name__ == "__main__":
    carry(float(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3])), sys.stdin.fileno())
