"""Errors in a file for `ray up`: by Ray's schema, by the cloud clients' models, by our rules."""

import copy
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from tests.cluster.pins import PYTHON, other_versions

NEEDED = {
    "aws": {"region", "availability_zone"},
    "gcp": {"project_id", "region", "availability_zone"},
    "local": {"head_ip", "worker_ips"},
}
SETTINGS = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
KEPT_AWAY = {".git", ".venv", "runs", "__pycache__"}
SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|RAY_AUTH_TOKEN=|[0-9a-f]{32}|\"private_key\""
)


def faults(config: Mapping[str, Any]) -> list[str]:
    """All that is wrong, in words."""
    rules_of_kind = {"aws": [_cloud], "gcp": [_cloud], "local": [_local]}.get(
        config["provider"]["type"], []
    )
    return [
        fault
        for rule in (_schema, _provider, _commands, _settings, _mounts, *rules_of_kind)
        for fault in rule(config)
    ]


def _schema(config: Mapping[str, Any]) -> Iterator[str]:
    """Ray's own checks before `ray up`."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(dict(config))))
    except Exception as error:  # of a dozen kinds
        yield f"Ray: {type(error).__name__}: {getattr(error, 'message', error)}"


def _provider(config: Mapping[str, Any]) -> Iterator[str]:
    """What Ray's schema knows of a provider and does not insist on."""
    provider = config["provider"]
    if provider["type"] not in NEEDED:
        yield f"provider.type: {provider['type']}"
        return
    yield from (
        f"provider.{key}: missing" for key in sorted(NEEDED[provider["type"]] - set(provider))
    )
    yield from (
        f"provider.{key}: unknown" for key in sorted(set(provider) - set(_ray_schema()["provider"]))
    )


@cache
def _ray_schema() -> dict[str, Any]:
    properties = json.loads((files("ray.autoscaler") / "ray-schema.json").read_text())["properties"]
    return {name: set(each.get("properties", ())) for name, each in properties.items()}


def run_on(config: Mapping[str, Any], role: str) -> str:
    """Every command that a head or a worker runs, one a line."""
    lists = (
        "initialization_commands",
        "setup_commands",
        f"{role}_setup_commands",
        f"{role}_start_ray_commands",
    )
    return "\n".join(command for name in lists for command in config.get(name, []))


def unreadable(commands: str) -> str:
    """Return the parts of some commands that bash cannot parse."""
    return subprocess.run(
        ["bash", "-n", "-c", commands], capture_output=True, text=True, check=False
    ).stderr


def _commands(config: Mapping[str, Any]) -> Iterator[str]:
    """Where Ray listens and joins, and the one source of versions."""
    head, worker = run_on(config, "head"), run_on(config, "worker")
    for text in {head, worker}:
        yield from (
            f"listens everywhere: {found}" for found in re.findall(r"0\.0\.0\.0|(?<=host )::", text)
        )
        yield from (
            f"dashboard: {host}"
            for host in re.findall(r"--dashboard-host[= ](?!127\.0\.0\.1)(\S+)", text)
        )
        yield from other_versions(text)
        yield from (
            f"pip without the lock: {command}"
            for command in re.findall(r"pip install.*", text)
            if "-c ~/distvae-checkout/requirements.lock" not in command
        )
        if f"--python {PYTHON} " not in text and f"python{PYTHON}" not in text:
            yield f"Python: {PYTHON} expected"
    if not re.search(r"ray start --head .*--autoscaling-config=~/ray_bootstrap_config\.yaml", head):
        yield "the head starts no autoscaler"
    if not re.search(r"ray start .*--address=\$RAY_HEAD_IP:6379", worker):
        yield "workers do not join the head"
    if "distvae serve" not in head:
        yield "MLflow is not served"
    if not re.search(r"distvae doctor --idle\nray stop", head):
        yield "Ray is restarted whatever runs"


def _settings(config: Mapping[str, Any]) -> Iterator[str]:
    """Check the settings that head and workers must share."""
    for role in ("head", "worker"):
        said = run_on(config, role)
        for name, value in SETTINGS.items():
            found = set(re.findall(rf"\b{name}=(\w*)", said))
            if found != {value}:
                yield f"{name} on the {role}: {sorted(found)}, {value} expected"
        if not re.search(r"RAY_AUTH_TOKEN_PATH=\S+/\.distvae_secrets/auth_token", said):
            yield f"no token for the {role}"
        if "DISTVAE_STORAGE=" not in said:
            yield f"no storage for the {role}"
    for name, node in config.get("available_node_types", {}).items():
        if "worker_setup_commands" in node:
            yield f"{name}.worker_setup_commands: would take the place of setup_commands"
    yield from (f"a secret: {found}" for found in SECRET.findall(json.dumps(config)))


def _mounts(config: Mapping[str, Any]) -> Iterator[str]:
    """The checkout and the token's folder, and what stays here."""
    mounts = config.get("file_mounts", {})
    if (
        not isinstance(mounts, dict)
        or mounts.get("~/distvae-checkout") != "."
        or "~/.distvae_secrets" not in mounts
    ):
        yield f"file_mounts: {mounts}"
    yield from (
        f"rsync_exclude: {name} missing"
        for name in sorted(KEPT_AWAY - set(config.get("rsync_exclude", [])))
    )


def _local(config: Mapping[str, Any]) -> Iterator[str]:
    """Autoscaler v2 loses the workers of the local provider."""
    starts = [line for line in run_on(config, "head").splitlines() if "ray start --head" in line]
    if not any("RAY_enable_autoscaler_v2=0" in line for line in starts):
        yield "RAY_enable_autoscaler_v2=0 missing where the head is started"


def _cloud(config: Mapping[str, Any]) -> Iterator[str]:
    """A head that stays, workers that come from none and cost the least, and machines that the
    cloud knows.
    """
    head = config.get("head_node_type")
    for name, node in config.get("available_node_types", {}).items():
        machine = node.get("node_config", {})
        wrong = {"aws": _aws, "gcp": _gcp}[config["provider"]["type"]](machine)
        yield from (f"{name}.node_config: {fault}" for fault in wrong)
        if _spot(machine) != (name != head):
            yield f"{name}: a head on demand and spot workers expected"
        if name == head:
            if node["resources"].get("CPU") != 0:
                yield f"{name}: trials would run on the head"
        elif node.get("min_workers") != 0 or node.get("max_workers", 0) < 1:
            yield f"{name}: from 0 to 1 or more workers expected"


def _spot(machine: Mapping[str, Any]) -> bool:
    market = machine.get("InstanceMarketOptions", {}).get("MarketType")
    return bool(
        market == "spot" or machine.get("scheduling", {}).get("provisioningModel") == "SPOT"
    )


@cache
def _run_instances() -> Any:
    """EC2's RunInstances as botocore describes it."""
    import botocore.session

    return (
        botocore.session.get_session()
        .get_service_model("ec2")
        .operation_model("RunInstances")
        .input_shape
    )


def _aws(machine: Mapping[str, Any]) -> Iterator[str]:
    from botocore.validate import ParamValidator

    shape = _run_instances()
    report = ParamValidator().validate({**machine, "MinCount": 1, "MaxCount": 1}, shape)
    yield from report.generate_report().splitlines()
    if machine.get("InstanceType") not in shape.members["InstanceType"].enum:
        yield f"InstanceType: {machine.get('InstanceType')}"
    if not re.fullmatch(r"ami-[0-9a-f]{17}", machine.get("ImageId", "")):
        yield f"ImageId: {machine.get('ImageId')}"
    if machine.get("InstanceMarketOptions", {}).get("MarketType", "spot") not in (
        "spot",
        "capacity-block",
    ):
        yield f"MarketType: {machine['InstanceMarketOptions']}"


@cache
def _compute() -> dict[str, Any]:
    """The schemas of Compute Engine's discovery document, as its client ships it."""
    document = files("googleapiclient") / "discovery_cache" / "documents" / "compute.v1.json"
    schemas: dict[str, Any] = json.loads(document.read_text())["schemas"]
    return schemas


def _gcp(machine: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{name}: missing" for name in ("machineType", "disks") if name not in machine)
    yield from _unlike(machine, {"$ref": "Instance"})


def _unlike(value: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the places at which a value contradicts a discovery document."""
    schema = _compute()[schema["$ref"]] if "$ref" in schema else schema
    if schema["type"] == "object" and isinstance(value, dict) and "properties" in schema:
        for key, inner in value.items():
            if key in schema["properties"]:
                yield from _unlike(inner, schema["properties"][key], f"{path}.{key}")
            else:
                yield f"{path}.{key}: unknown"
    elif schema["type"] == "array" and isinstance(value, list):
        for inner in value:
            yield from _unlike(inner, schema["items"], path)
    elif not isinstance(value, _types(schema)):
        yield f"{path}: {value!r}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value}"


def _types(schema: Mapping[str, Any]) -> tuple[type, ...]:
    """Return the YAML types of a value. 64-bit numbers are strings in JSON and may be given as
    numbers.
    """
    plain: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "boolean": (bool,),
        "integer": (int,),
        "number": (int, float),
    }
    if schema.get("format") in ("int64", "uint64"):
        return (str, int)
    return plain.get(schema["type"], (dict,) if schema["type"] == "object" else ())
