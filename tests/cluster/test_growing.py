"""Waiting for machines makes an autoscaler bring them, and no longer than they are waited for.

Run as a program, this file waits on a cluster without machines, whose real autoscaler starts
processes here. The output has four processor counts: at first, in a sweep that waits for one trial
of two workers, in a training with four workers, and after both.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distvae.config import Train
from distvae.machines.cluster import WorkerGroup, machine_resources, wait_for_workers
from distvae.machines.session import SETTINGS, ray_session
from distvae.tune.resources import TrialResources, wait_for_capacity
from tests.ports import free_port

HEAD, KIND = "f" * 51 + "00000", "ray.head.default"
"""The provider's name for the head."""
FAKE = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
PATIENCE = 100.0
ENVIRONMENT = {
    "RAY_enable_autoscaler_v2": "1",
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


@pytest.mark.slow
def test_machines_that_are_waited_for_come_from_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.cluster.test_growing", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0.0, 2.0, 4.0, 0.0]


@contextmanager
def growing(folder: Path, cpus: int, max_machines: int) -> Iterator[str]:
    """Yield the address of a head. The autoscaler adds up to `max_machines` machines of `cpus`
    processors on request.
    """
    os.environ.update(SETTINGS | ENVIRONMENT | {"RAY_AUTH_TOKEN": secrets.token_hex(32)})
    from ray.cluster_utils import Cluster

    port = free_port()
    (folder / "autoscaling.json").write_text(json.dumps(_config(port, cpus, max_machines)))
    names = {
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_NODE_TYPE_NAME": KIND,
    }
    head = {"num_cpus": 0, "include_dashboard": False, "gcs_server_port": port, "env_vars": names}
    cluster = Cluster(
        initialize_head=True,
        head_node_args=head | {"autoscaling_config": str(folder / "autoscaling.json")},
    )
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def _config(port: int, cpus: int, max_machines: int) -> dict[str, Any]:
    from ray._private.services import get_node_ip_address

    worker = {"resources": {"CPU": cpus}, "node_config": {}, "min_workers": 0}
    kinds = {
        KIND: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {**worker, "max_workers": max_machines},
    }
    provider = {
        "type": "external",
        "module": FAKE,
        "gcs_address": f"{get_node_ip_address()}:{port}",
        "head_node_id": HEAD,
        "launch_multiple": True,
        "disable_node_updaters": True,
    }
    roles = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray")
    return {
        "cluster_name": "growing",
        "provider": provider,
        "available_node_types": kinds,
        "head_node_type": KIND,
        "max_workers": max_machines,
        "idle_timeout_minutes": 0.05,
        "upscaling_speed": 1000,
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        **{f"{name}_commands": [] for name in (*roles, "worker_start_ray")},
    }


def main(folder: Path) -> None:
    """Wait as a sweep does, then as a training does, then for all to be gone."""
    with growing(folder, cpus=2, max_machines=2) as address, ray_session(address, 0) as ray:
        found = [processors(ray)]
        wait_for_capacity(
            ray, TrialResources(WorkerGroup(2, 2), None, address, PATIENCE), 1, lambda: 0
        )
        found.append(processors(ray))
        for sentence in wait_for_workers(
            ray, WorkerGroup(4, 4, 0.0, address, PATIENCE), Train(threads=1), lambda: False
        ):
            print(sentence)
        found.append(processors(ray))
        deadline = time.monotonic() + PATIENCE
        while processors(ray) and time.monotonic() < deadline:
            time.sleep(0.2)
        print(json.dumps([*found, processors(ray)]))


def processors(ray: Any) -> float:
    """Return the processors of all machines together."""
    return sum(machine.get("CPU", 0.0) for machine in machine_resources(ray))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
