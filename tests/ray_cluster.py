"""Several machines in one: a cluster of Ray whose nodes are processes here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distvae.machines.session import SETTINGS, WITHOUT_DASHBOARD, process_token

HERE = Path("/proc/self/cwd")
"""The folder that a process is in."""
CHECKS = {"initial_delay_ms": 0, "period_ms": 500, "failure_threshold": 3}
"""How the head finds out, within two seconds, that a machine is gone."""
UNREAD_LOGS = {"include_log_monitor": False}
"""No process that reads logs, which would outlive a machine that is killed."""


@contextmanager
def cluster(*cpus: int) -> Iterator[Any]:
    """Yield a cluster with a head without processors, and a machine for each number of processors.
    `add_node` on the main thread adds a machine.
    """
    with pytest.MonkeyPatch.context() as patch:
        token = {"RAY_AUTH_TOKEN": process_token()}
        for name, value in (SETTINGS | WITHOUT_DASHBOARD | token).items():
            if name not in os.environ:
                patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        noticing = {f"health_check_{name}": value for name, value in CHECKS.items()}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": noticing} | UNREAD_LOGS
        machines = Cluster(initialize_head=True, head_node_args=head)
        machines.add_node = partial(machines.add_node, **UNREAD_LOGS)
        try:
            for count in cpus:
                machines.add_node(num_cpus=count)
            yield machines
        finally:
            machines.shutdown()


@contextmanager
def cluster_in_two_folders(folder: Path, cpus: int = 1) -> Iterator[Any]:
    """Yield a cluster of a head and a machine with `cpus` processors each. They start in the
    folders `one` and `other`, so that they see different files in `HERE`. This process is in
    `other`.
    """
    if not HERE.is_dir():
        pytest.skip("machines in one see different folders by /proc, which this system has not")
    one, other = folder / "one", folder / "other"
    one.mkdir()
    other.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(one)
        with cluster() as machines:
            patch.chdir(other)
            machines.add_node(num_cpus=cpus)
            yield machines
