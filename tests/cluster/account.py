"""An AWS account simulated by moto, in which Ray prepares everything that `ray up` needs and starts
a machine of every kind.

The output is JSON: the machines, the ports open to the world, and the created keys.
"""

import copy
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
}


def main(file: Path, home: Path) -> None:
    """Prepare, start, and tell."""
    (home / ".ssh").mkdir()
    os.environ.update(ENVIRONMENT | {"HOME": str(home)})
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
    try:
        config = yaml.safe_load(file.read_text())
        print(
            json.dumps(
                _started(config) | {"keys": sorted(path.name for path in (home / ".ssh").iterdir())}
            )
        )
    finally:
        server.stop()


def _started(config: dict[str, Any]) -> dict[str, Any]:
    import boto3
    from ray.autoscaler._private.aws import config as preparation
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider

    # IAM takes half a minute to settle.
    preparation.time = SimpleNamespace(time=time.time, sleep=lambda seconds: None)
    ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    for node in config["available_node_types"].values():
        node["node_config"]["ImageId"] = image  # one that this account knows
    ready = _bootstrap_config(copy.deepcopy(config), no_config_cache=True)
    provider = _get_node_provider(ready["provider"], ready["cluster_name"])
    for name, node in ready["available_node_types"].items():
        tags = {"ray-node-name": name, "ray-user-node-type": name, "ray-node-type": "worker"}
        provider.create_node(node["node_config"], tags, 1)
    return {
        "machines": dict(map(_describe_machine, _machines(ec2))),
        "open": sorted(_open(ec2)),
        "resources": _resources(ready),
    }


def _machines(ec2: Any) -> list[Any]:
    return [
        machine
        for each in ec2.describe_instances()["Reservations"]
        for machine in each["Instances"]
    ]


def _describe_machine(machine: Any) -> tuple[str, list[str]]:
    (name,) = (tag["Value"] for tag in machine["Tags"] if tag["Key"] == "ray-user-node-type")
    (group,) = (group["GroupName"] for group in machine["SecurityGroups"])
    return name, [machine["InstanceType"], machine.get("InstanceLifecycle", "on demand"), group]


def _open(ec2: Any) -> set[int]:
    """Ports that machines of ours open to anybody."""
    groups = {group["GroupId"] for machine in _machines(ec2) for group in machine["SecurityGroups"]}
    rules = [
        rule
        for group in ec2.describe_security_groups(GroupIds=sorted(groups))["SecurityGroups"]
        for rule in group["IpPermissions"]
    ]
    world = [
        rule for rule in rules if any(each["CidrIp"] == "0.0.0.0/0" for each in rule["IpRanges"])
    ]
    return {port for rule in world for port in range(rule["FromPort"], rule["ToPort"] + 1)}


def _resources(config: dict[str, Any]) -> dict[str, list[float]]:
    return {
        name: [node["resources"].get(kind, 0) for kind in ("CPU", "GPU")]
        for name, node in config["available_node_types"].items()
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
