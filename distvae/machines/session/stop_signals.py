"""Signals that ask this process to stop, while it connects to Ray and afterwards."""

import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

GRACE_SECONDS = 5.0
"""Seconds from a signal until a process that is connecting to Ray is ended."""
POLL_SECONDS = 0.2
"""Seconds between two looks at the clock."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def exit_on_stop_signals() -> Iterator[None]:
    """End this process a few seconds after a signal, or at the second signal.

    Connecting to Ray can take minutes in a call that lets no signal handler of Python run. A thread
    receives the signals in the meantime.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    closed = threading.Event()
    earlier = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    watch = threading.Thread(target=_exit_when_asked, args=(receiver, closed))
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        closed.set()
        signal.set_wakeup_fd(earlier)
        sender.close()


def _exit_when_asked(receiver: socket.socket, closed: threading.Event) -> None:
    """Wait for signals until closed."""
    receiver.settimeout(POLL_SECONDS)
    received: list[int] = []
    deadline = math.inf
    while not closed.is_set():
        with suppress(TimeoutError):
            received += [number for number in receiver.recv(16) if number in STOP_SIGNALS]
        if received:
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if len(received) > 1 or time.monotonic() > deadline:
            print("distvae: interrupted", file=sys.stderr, flush=True)
            os._exit(128 + received[0])
    receiver.close()


@contextmanager
def kept_signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that Ray replaces.

    SIGHUP is ignored meanwhile, and so in the processes that start: when a terminal is closed, they
    are still needed to save the training.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
