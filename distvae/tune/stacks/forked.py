"""Processes that begin with everything imported: they are forked from one that has imported it.

That one does nothing but import and fork, so no thread and no lock of it is copied. Where a library
may not survive a fork, which is everywhere but on Linux, each process imports by itself.
"""

import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import TypeVar

IMPORTS = "distvae.tune.stacks.imports"
"""The module with all imports."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that the sweep's process alone follows."""

ATTEMPTS = 5
"""How often a process is started before its failure is raised."""
PAUSE_SECONDS = 0.1

T = TypeVar("T")


def start_process(
    target: Callable[[T, Connection], None], argument: T
) -> tuple[BaseProcess, Connection]:
    """Start a process, and return it with this end of the connection that its target is given.

    The one that forks is started again if it was killed.
    """
    attempts = ATTEMPTS
    while True:
        try:
            return _start(target, argument)
        except (EOFError, ConnectionError):
            attempts -= 1
            if not attempts:
                raise
        time.sleep(PAUSE_SECONDS)  # a killed process listens until the system has ended it


def _start(target: Callable[[T, Connection], None], argument: T) -> tuple[BaseProcess, Connection]:
    import_early()
    context = _process_context()
    own, its = context.Pipe()
    process = context.Process(target=target, args=(argument, its), daemon=True)
    with its:  # closed here, so that its death is noticed
        process.start()
    return process, own


def _process_context() -> ForkServerContext | SpawnContext:
    """Return what starts processes."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([IMPORTS])
    return context


def import_early() -> None:
    """Begin to import, beside what this process does next."""
    if isinstance(_process_context(), ForkServerContext):
        from multiprocessing.forkserver import ensure_running

        with _ignored_signals():  # as the process that starts now inherits
            ensure_running()


@contextmanager
def _ignored_signals() -> Iterator[None]:
    """Ignore signals for as long as a process starts."""
    if threading.current_thread() is not threading.main_thread():  # others cannot
        yield
        return
    before = {each: signal.signal(each, signal.SIG_IGN) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
