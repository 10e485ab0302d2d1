"""Imports what processes of stacks need. They are forked from one that has imported this."""

from contextlib import suppress
from importlib import import_module

from distvae.files.memory import collecting_later

MODULES = (
    "distvae.tune.stacks.process",
    "distvae.machines.workers.driver",
    "distvae.train.session",
    "distvae.train.together",
    "distvae.models.kernels",
    "distvae.engines.encoder_engine",
    "distvae.data.speech.recordings",
    "distvae.data.tables.arrow",
    "distvae.tasks.evaluate",
    "filelock",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "pesq",
    "pyarrow.ipc",
    "pystoi",
    "rich.progress",
)
"""What a trial imports from its start to its pictures; some of it may not be installed."""

with collecting_later():
    for _module in MODULES:
        with suppress(ImportError):
            import_module(_module)
