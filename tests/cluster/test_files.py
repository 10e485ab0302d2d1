"""The files of cluster/ hold what the clouds, Kubernetes and Ray ask for, and copies with an error
in them do not.
"""

import copy
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import launcher, objects
from tests.cluster.pins import ROOT, other_versions
from tests.ray_cluster import cluster

RAY = [sys.executable, "-m", "ray.scripts.scripts"]

FILES = {
    path.stem: list(yaml.safe_load_all(path.read_text()))
    for path in sorted((ROOT / "cluster").glob("*.yaml"))
}
LAUNCHED = {name: documents[0] for name, documents in FILES.items() if "provider" in documents[0]}
KUBERAY = FILES["kuberay"]
LOCAL = {
    **{
        key: value
        for key, value in LAUNCHED["aws"].items()
        if key not in ("available_node_types", "head_node_type")
    },
    "provider": {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]},
    "min_workers": 2,
    "max_workers": 2,
    "head_start_ray_commands": [
        *LAUNCHED["aws"]["head_start_ray_commands"][:-1],
        "export RAY_enable_autoscaler_v2=0; " + LAUNCHED["aws"]["head_start_ray_commands"][-1],
    ],
}
"""The smallest difference that makes a file for a cloud one for machines of one's own."""


def test_every_file_is_looked_at() -> None:
    assert {"aws", "gcp"} <= set(LAUNCHED)
    assert set(FILES) == {*LAUNCHED, "kuberay"}


@pytest.mark.parametrize("name", LAUNCHED)
def test_files_for_ray_up_are_whole_and_bash_can_read_every_command(name: str) -> None:
    assert launcher.faults(LAUNCHED[name]) == []
    for role in ("head", "worker"):
        commands = launcher.run_on(LAUNCHED[name], role)
        assert launcher.unreadable(commands) == ""
        assert "syntax error" in launcher.unreadable(commands + "\n{ true")


@pytest.mark.parametrize(
    ("name", "key"), [("aws", "IamInstanceProfile"), ("gcp", "serviceAccounts")]
)
def test_a_file_in_which_workers_get_an_identity_is_whole(name: str, key: str) -> None:
    text = (ROOT / "cluster" / f"{name}.yaml").read_text()
    config = yaml.safe_load(text.replace(f"# {key}:", f"{key}:"))
    types = config["available_node_types"]
    assert {kind for kind in types if key in types[kind]["node_config"]} == {"cpu", "gpu", "gpus"}
    assert launcher.faults(config) == []


def health_checks(text: str) -> dict[str, str]:
    """Return how a head finds out that a machine is lost."""
    return dict(re.findall(r"(RAY_health_check_\w+)=(\d+)", text))


def test_every_head_finds_a_lost_machine_in_the_same_time() -> None:
    [head] = [part for part in KUBERAY if part["kind"] == "RayCluster"]
    containers = head["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    kept = {each["name"]: each.get("value") for each in containers[0]["env"]}
    expected = health_checks("\n".join(LAUNCHED["aws"]["head_start_ray_commands"]))
    assert len(expected) == 2
    assert kept.items() >= expected.items()
    for config in LAUNCHED.values():
        assert health_checks("\n".join(config["head_start_ray_commands"])) == expected


def programs(folder: Path, *names: str) -> None:
    """Make programs that write down how they are called."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\n')
        (folder / name).chmod(0o755)


@pytest.mark.parametrize("name", LAUNCHED)
def test_an_environment_that_was_cut_short_is_made_anew(name: str, tmp_path: Path) -> None:
    """`ray up` may be interrupted at any moment, and then runs all commands again."""
    commands = [line for line in LAUNCHED[name]["setup_commands"] if " venv " in line]
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}

    def calls() -> list[str]:
        (tmp_path / "calls").write_text("")
        for command in commands:
            subprocess.run(["bash", "-c", command], env=environment, check=True)
        return (tmp_path / "calls").read_text().splitlines()

    programs(tmp_path, "bin/python3", "bin/python3.11", "uv-env/bin/uv")
    (tmp_path / "distvae-env").mkdir()
    made = calls()
    assert len(made) == len(commands) > 0
    assert all(" venv --clear " in call for call in made)
    programs(tmp_path, "uv-env/bin/pip", "distvae-env/bin/pip")
    assert calls() == []


CURL = """#!/bin/sh
for url; do :; done
case $url in *token) echo token; exit;; esac
echo asked >> {folder}/asked
test $(wc -l < {folder}/asked) -gt 3 || {{ echo FALSE; exit {code}; }}
echo TRUE
"""
"""A service of a cloud that announces at the fourth question that the machine is taken away."""


@pytest.mark.parametrize(("name", "code"), [("aws", 22), ("gcp", 0)])
def test_ray_learns_that_a_spot_machine_will_be_taken_away(
    name: str, code: int, tmp_path: Path
) -> None:
    [command] = [each for each in LAUNCHED[name]["worker_start_ray_commands"] if "drain" in each]
    programs(tmp_path, "bin/ray", "bin/sleep")
    (tmp_path / "bin/curl").write_text(CURL.format(folder=tmp_path, code=code))
    (tmp_path / "bin/curl").chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", command], env=environment, check=True, timeout=60)
    deadline, calls = time.monotonic() + 60, [""]
    while "ray" not in calls[-1]:
        assert time.monotonic() < deadline, (tmp_path / "drain.log").read_text()
        time.sleep(0.05)
        if (tmp_path / "calls").exists():
            calls = (tmp_path / "calls").read_text().splitlines() or [""]
    assert calls[:-1] == ["bin/sleep 5"] * 3
    reason = "bin/ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message spot"
    assert calls[-1].startswith(f"{reason} --deadline-remaining-seconds ")


@pytest.mark.slow
def test_a_machine_that_ray_drains_takes_no_more_work(tmp_path: Path) -> None:
    with cluster(1, 1) as machines:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ray.init(machines.address, logging_level="critical")
        doomed = next(node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU"))
        where = ray.remote(lambda: ray.get_runtime_context().get_node_id())
        pinned = where.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(doomed, soft=True)
        )
        assert ray.get(pinned.remote(), timeout=60) == doomed
        words = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        drained = [*RAY, "drain-node", "--address", machines.address, "--node-id", doomed, *words]
        more = ["--deadline-remaining-seconds", "110"]
        subprocess.run([*drained, *more], check=True, timeout=60, capture_output=True)
        assert {ray.get(pinned.remote(), timeout=60) for _ in range(5)}.isdisjoint({doomed})
        ray.shutdown()


def test_machines_of_ones_own_and_objects_for_kubernetes_are_whole() -> None:
    assert launcher.faults(LOCAL) == []
    assert objects.faults(KUBERAY) == []


def test_the_image_is_made_of_the_lock() -> None:
    text = (ROOT / "cluster" / "Dockerfile").read_text()
    assert list(other_versions(text)) == []
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert installs
    assert all("-c requirements.lock" in line for line in installs)
    assert text.rstrip().endswith("USER ray")


def at(config: Any, *path: str | int) -> Any:
    """Return the value at a path of keys and positions."""
    for key in path:
        config = config[key]
    return config


def put(*path: Any) -> Callable[[Any], None]:
    """Return an edit that writes the last argument at the path before it."""
    return lambda config: at(config, *path[:-2]).__setitem__(path[-2], path[-1])


def drop(*path: str | int) -> Callable[[Any], None]:
    """Return an edit that removes the value at the path."""
    return lambda config: at(config, *path[:-1]).__delitem__(path[-1])


def reword(old: str, new: str, *path: str) -> Callable[[Any], None]:
    """An edit: other words in the commands of a list."""

    def edit(config: Any) -> None:
        commands = at(config, *path)
        assert any(old in command for command in commands)
        commands[:] = [command.replace(old, new) for command in commands]

    return edit


CPU, GPU = ("available_node_types", "cpu"), ("available_node_types", "gpu")
SETUP, START = "setup_commands", "head_start_ray_commands"

BAD = {
    "an unknown key": ("aws", put("setup_comands", []), "setup_comands"),
    "token off": (
        "aws",
        reword("MODE=token", "MODE=disabled", SETUP),
        "RAY_AUTH_MODE on the worker: ['disabled']",
    ),
    "a token in the file": (
        "gcp",
        reword("'RAY_AUTH_MODE", "'RAY_AUTH_TOKEN=x' 'RAY_AUTH_MODE", SETUP),
        "a secret",
    ),
    "a dashboard for all": (
        "aws",
        reword("dashboard-host=127.0.0.1", "dashboard-host=0.0.0.0", START),
        "listens everywhere",
    ),
    "a restart at any time": (
        "own",
        reword("doctor --idle", "doctor", START),
        "Ray is restarted whatever runs",
    ),
    "no such machine": (
        "aws",
        put(*GPU, "node_config", "InstanceType", "g6.2xlargee"),
        "InstanceType: g6.2xlargee",
    ),
    "a typing error in a machine": (
        "gcp",
        put(*CPU, "node_config", "machinType", "x"),
        ".machinType: unknown",
    ),
    "autoscaler v2": (
        "own",
        reword("RAY_enable_autoscaler_v2=0", "true", START),
        "RAY_enable_autoscaler_v2=0",
    ),
}
"""An error for each source of rules: Ray's schema, the clouds' models, and the project."""


@pytest.mark.parametrize("error", BAD)
def test_an_error_in_a_file_for_ray_up_is_found(error: str) -> None:
    name, change, expected = BAD[error]
    changed = copy.deepcopy({**LAUNCHED, "own": LOCAL}[name])
    change(changed)
    assert expected in "\n".join(launcher.faults(changed))


CLUSTER, JOB = (
    next(i for i, each in enumerate(KUBERAY) if each["kind"] == kind)
    for kind in ("RayCluster", "RayJob")
)
SPEC = (CLUSTER, "spec")
FIRST = (*SPEC, "headGroupSpec", "template", "spec", "containers", 0)
WORKER = (*SPEC, "workerGroupSpecs", 0)
BAD_OBJECTS = {
    "an unknown key": (put(*SPEC, "headGroup", {}), "headGroup: unknown"),
    "a typing error in a container": (put(*FIRST, "imag", "x"), "imag"),
    "token off": (put(*SPEC, "authOptions", "mode", "disabled"), "authOptions"),
    "root": (drop(*WORKER, "template", "spec", "securityContext"), "root"),
    "a job that refuses its own folder": (
        put(JOB, "spec", "entrypoint", "distvae tune speech --address auto"),
        "--resume expected",
    ),
}


@pytest.mark.parametrize("name", BAD_OBJECTS)
def test_an_error_in_objects_for_kubernetes_is_found(name: str) -> None:
    change, expected = BAD_OBJECTS[name]
    changed = copy.deepcopy(KUBERAY)
    change(changed)
    assert expected in "\n".join(objects.faults(changed))
