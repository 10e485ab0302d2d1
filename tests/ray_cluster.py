"""Several machines in one: a cluster of Ray whose nodes are processes here."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distvae.machines.ray_session import SETTINGS, WITHOUT_DASHBOARD

CHECKS = {"initial_delay_ms": 0, "period_ms": 500, "failure_threshold": 3}
"""How the head finds out, within two seconds, that a machine is gone."""


@contextmanager
def cluster(*cpus: int) -> Iterator[Any]:
    """Machines of so many processors, and a head without any; `add_node` on the main thread brings
    another.
    """
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in (SETTINGS | WITHOUT_DASHBOARD | token).items():
        os.environ.setdefault(name, value)
    from ray.cluster_utils import Cluster

    noticing = {f"health_check_{name}": value for name, value in CHECKS.items()}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": noticing}
    machines = Cluster(initialize_head=True, head_node_args=head)
    try:
        for count in cpus:
            machines.add_node(num_cpus=count)
        yield machines
    finally:
        machines.shutdown()
