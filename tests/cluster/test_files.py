"""The files of cluster/ hold what the clouds, Kubernetes and Ray ask for, and copies with an error
in them do not.
"""

import copy
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import launcher, objects
from tests.cluster.pins import PINS, ROOT, other_versions

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
def test_files_for_ray_up_are_whole(name: str) -> None:
    assert launcher.faults(LAUNCHED[name]) == []


@pytest.mark.parametrize("name", LAUNCHED)
def test_bash_can_read_every_command(name: str) -> None:
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
    assert {kind for kind in types if key in types[kind]["node_config"]} == {"cpu", "gpu"}
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


def test_machines_of_ones_own_are_whole() -> None:
    assert launcher.faults(LOCAL) == []


def test_objects_for_kubernetes_are_whole() -> None:
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


HEAD = ("available_node_types", "head")
CPU, GPU = ("available_node_types", "cpu"), ("available_node_types", "gpu")
SETUP, START, JOIN = "setup_commands", "head_start_ray_commands", "worker_start_ray_commands"

ANY_LAUNCHED = {
    "an unknown key": (put("setup_comands", []), "setup_comands"),
    "a list that is a text": (put(SETUP, "pip install x"), "Ray: "),
    "a typing error in auth": (put("auth", "ssh_usr", "me"), "ssh_usr"),
    "a typing error in provider": (put("provider", "regoin", "x"), "provider.regoin: unknown"),
    "another provider": (put("provider", "type", "awss"), "provider.type: awss"),
    "token off": (
        reword("MODE=token", "MODE=disabled", SETUP),
        "RAY_AUTH_MODE on the worker: ['disabled']",
    ),
    "token not said": (
        reword("RAY_AUTH_MODE", "RAY_AUTH_MOD", SETUP),
        "RAY_AUTH_MODE on the head: []",
    ),
    "token off for workers": (
        reword("ray start", "RAY_AUTH_MODE=disabled ray start", JOIN),
        "RAY_AUTH_MODE on the worker: ['disabled', 'token']",
    ),
    "no token": (drop("file_mounts", "~/.distvae_secrets"), "file_mounts"),
    "a token in the file": (
        reword("'RAY_AUTH_MODE", "'RAY_AUTH_TOKEN=x' 'RAY_AUTH_MODE", SETUP),
        "a secret",
    ),
    "usage statistics": (
        reword("STATS_ENABLED=0", "STATS_ENABLED=1", SETUP),
        "RAY_USAGE_STATS_ENABLED",
    ),
    "a dashboard for all": (
        reword("dashboard-host=127.0.0.1", "dashboard-host=0.0.0.0", START),
        "listens everywhere",
    ),
    "a dashboard for neighbours": (
        reword("host=127.0.0.1", "host=10.0.0.1", START),
        "dashboard: 10.0.0.1",
    ),
    "MLflow for all": (
        reword("distvae serve", "mlflow server --host ::", START),
        "listens everywhere",
    ),
    "no MLflow": (reword("distvae serve", "true", START), "MLflow is not served"),
    "a restart at any time": (
        reword("doctor --idle", "doctor", START),
        "Ray is restarted whatever runs",
    ),
    "another Ray": (reword("pesq", "ray==2.50.0 pesq", SETUP), "ray: 2.50.0"),
    "another Python": (reword("3.11 ", "3.12 ", SETUP), "Python: 3.12"),
    "no lock": (
        reword("-c ~/distvae-checkout/requirements.lock -e", "-e", SETUP),
        "pip without the lock",
    ),
    "no autoscaler": (
        reword("--autoscaling-config=~/ray_bootstrap_config.yaml", "", START),
        "no autoscaler",
    ),
    "workers alone": (reword("--address=$RAY_HEAD_IP:6379", "", JOIN), "do not join"),
    "runs sent away": (
        lambda config: config["rsync_exclude"].remove("runs"),
        "rsync_exclude: runs",
    ),
}
CLOUD = {
    "no region": (drop("provider", "region"), "provider.region: missing"),
    "no zone": (drop("provider", "availability_zone"), "provider.availability_zone: missing"),
    "no such head": (put("head_node_type", "haed"), "`head_node_type` must be one of"),
    "more at least than at most": (put(*CPU, "min_workers", 99), "Ray: "),
    "workers from the start": (put(*CPU, "min_workers", 1), "from 0 to 1"),
    "an unknown key of a machine": (put(*CPU, "max_worker", 3), "max_worker"),
    "trials on the head": (put(*HEAD, "resources", {}), "trials would run on the head"),
    "setup of its own": (put(*GPU, "worker_setup_commands", ["true"]), "would take the place"),
}
AWS = {
    "a typing error in a machine": (put(*CPU, "node_config", "ImageIdd", "x"), "ImageIdd"),
    "no such machine": (
        put(*GPU, "node_config", "InstanceType", "g6.2xlargee"),
        "InstanceType: g6.2xlargee",
    ),
    "an image by name": (put(*HEAD, "node_config", "ImageId", "ubuntu"), "ImageId: ubuntu"),
    "a disk of words": (
        put(*HEAD, "node_config", "BlockDeviceMappings", 0, "Ebs", "VolumeSize", "100GB"),
        "VolumeSize",
    ),
    "a head that may go": (
        put(*HEAD, "node_config", "InstanceMarketOptions", {"MarketType": "spot"}),
        "on demand",
    ),
    "workers on demand": (
        drop(*GPU, "node_config", "InstanceMarketOptions"),
        "spot workers expected",
    ),
    "an unknown market": (
        put(*CPU, "node_config", "InstanceMarketOptions", "MarketType", "spto"),
        "MarketType",
    ),
}
GCP = {
    "a typing error in a machine": (
        put(*CPU, "node_config", "machinType", "x"),
        ".machinType: unknown",
    ),
    "a typing error in a disk": (
        put(*HEAD, "node_config", "disks", 0, "bot", True),
        ".disks.bot: unknown",
    ),
    "no machine": (drop(*HEAD, "node_config", "machineType"), "machineType: missing"),
    "no project": (drop("provider", "project_id"), "provider.project_id: missing"),
    "workers on demand": (drop(*GPU, "node_config", "scheduling"), "spot workers expected"),
    "an unknown market": (
        put(*CPU, "node_config", "scheduling", "provisioningModel", "SPTO"),
        "SPTO",
    ),
    "scheduling as a list": (
        put(*CPU, "node_config", "scheduling", "onHostMaintenance", ["X"]),
        "onHostMaintenance",
    ),
}
OWN = {
    "autoscaler v2": (
        reword("RAY_enable_autoscaler_v2=0", "true", START),
        "RAY_enable_autoscaler_v2=0",
    ),
    "no workers named": (drop("provider", "worker_ips"), "provider.worker_ips: missing"),
    "no head named": (drop("provider", "head_ip"), "provider.head_ip: missing"),
    "machines of a cloud": (put("available_node_types", {"a": {}}), "Ray: "),
}
BAD = [
    *[
        (name, config, each)
        for name, config in {**LAUNCHED, "own": LOCAL}.items()
        for each in ANY_LAUNCHED.items()
    ],
    *[(name, LAUNCHED[name], each) for name in ("aws", "gcp") for each in CLOUD.items()],
    *[("aws", LAUNCHED["aws"], each) for each in AWS.items()],
    *[("gcp", LAUNCHED["gcp"], each) for each in GCP.items()],
    *[("own", LOCAL, each) for each in OWN.items()],
]


@pytest.mark.parametrize(
    ("config", "edit"), [pytest.param(c, e, id=f"{n}: {e[0]}") for n, c, e in BAD]
)
def test_an_error_in_a_file_for_ray_up_is_found(
    config: Any, edit: tuple[str, tuple[Callable[[Any], None], str]]
) -> None:
    _, (change, expected) = edit
    changed = copy.deepcopy(config)
    change(changed)
    assert expected in "\n".join(launcher.faults(changed))


def named(kind: str, name: str | None = None) -> int:
    """The position of an object in the file."""
    return next(
        i
        for i, each in enumerate(KUBERAY)
        if each["kind"] == kind and name in (None, each["metadata"].get("name"))
    )


CLUSTER, JOB, CLAIM = (
    named("RayCluster"),
    named("RayJob"),
    named("PersistentVolumeClaim", "distvae"),
)
SPEC = (CLUSTER, "spec")
FIRST = (*SPEC, "headGroupSpec", "template", "spec", "containers", 0)
WORKER = (*SPEC, "workerGroupSpecs", 0)
BAD_OBJECTS = {
    "an unknown key": (put(*SPEC, "headGroup", {}), "headGroup: unknown"),
    "no head": (drop(*SPEC, "headGroupSpec"), "KeyError: 'headGroupSpec'"),
    "a typing error in a group": (put(*WORKER, "minReplica", 0), "minReplica: unknown"),
    "no least number": (drop(*WORKER, "minReplicas"), "KeyError: 'minReplicas'"),
    "a typing error in a container": (put(*FIRST, "imag", "x"), "imag"),
    "a container without a name": (drop(*FIRST, "name"), "'name' is a required property"),
    "a number where Kubernetes wants a text": (put(*FIRST, "env", 0, "value", 0), "env.0.value"),
    "a number where Ray wants a text": (
        put(*SPEC, "headGroupSpec", "rayStartParams", {"num-cpus": 0}),
        "num-cpus",
    ),
    "trials on the head": (
        put(*SPEC, "headGroupSpec", "rayStartParams", {}),
        "trials would run on the head",
    ),
    "token off": (put(*SPEC, "authOptions", "mode", "disabled"), "authOptions"),
    "token not said": (drop(*SPEC, "authOptions"), "authOptions: None"),
    "another Ray": (put(*SPEC, "rayVersion", "2.50.0"), f"{PINS['ray']} expected"),
    "less asked for than allowed": (
        put(*FIRST, "resources", "requests", {"cpu": "1"}),
        "requests equal to limits",
    ),
    "two images": (put(*FIRST, "image", "rayproject/ray:2.60.0"), "images"),
    "root": (drop(*WORKER, "template", "spec", "securityContext"), "root"),
    "workers from the start": (put(*WORKER, "minReplicas", 1), "from 0 to 1"),
    "no autoscaling": (put(*SPEC, "enableInTreeAutoscaling", False), "enableInTreeAutoscaling"),
    "no such claim": (put(CLAIM, "metadata", "name", "other"), "no such claim: distvae"),
    "a typing error in a claim": (put(CLAIM, "spec", "accessMode", []), "accessMode"),
    "no such cluster": (
        put(JOB, "spec", "clusterSelector", {"ray.io/cluster": "other"}),
        "clusterSelector: other",
    ),
    "a typing error in a job": (put(JOB, "spec", "entryPoint", "x"), "entryPoint: unknown"),
    "a sweep without Ray": (
        put(JOB, "spec", "entrypoint", "distvae tune speech --resume"),
        "--address auto expected",
    ),
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


@pytest.fixture(scope="module")
def definitions() -> dict[str, Any]:
    """Strict schemas of the kinds that KubeRay installs, from where DISTVAE_KUBERAY says that its
    definitions are.
    """
    folder = Path(os.environ.get("DISTVAE_KUBERAY", ROOT.parent / "shared" / "kuberay"))
    found = {}
    for kind in ("RayCluster", "RayJob"):
        path = folder / f"ray.io_{kind.lower()}s.yaml"
        if not path.is_file():
            pytest.skip(
                f"DISTVAE_KUBERAY names no folder with {path.name}, one of KubeRay's custom"
                " resource definitions"
            )
        versions = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]["versions"]
        found[kind] = objects.strict(
            next(v for v in versions if v["name"] == "v1")["schema"]["openAPIV3Schema"]
        )
        found[kind]["properties"]["metadata"] = {"type": "object"}
    return found


@pytest.mark.slow
def test_kuberay_defines_what_the_file_says(definitions: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator

    for index in (CLUSTER, JOB):
        schema = Draft202012Validator(definitions[KUBERAY[index]["kind"]])
        assert [error.message for error in schema.iter_errors(KUBERAY[index])] == []
    schema = Draft202012Validator(definitions["RayCluster"])
    for name in (
        "an unknown key",
        "no head",
        "a typing error in a group",
        "a typing error in a container",
    ):
        changed = copy.deepcopy(KUBERAY)
        BAD_OBJECTS[name][0](changed)
        assert list(schema.iter_errors(changed[CLUSTER])), name
