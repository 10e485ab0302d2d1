"""Ray follows the file for AWS: a head on demand, spot workers, and only ssh open.

Run as a program, this file simulates an AWS account by moto, in which Ray prepares everything that
`ray up` needs and starts a machine of every kind. The output is JSON: the machines, the ports open
to the world, and the created keys.
"""

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.cluster.pins import ROOT

FILE = ROOT / "cluster" / "aws.yaml"


@pytest.mark.long
def test_an_account_is_prepared_and_machines_start(tmp_path: Path) -> None:
    pytest.importorskip("moto", reason="moto, which plays an account at AWS, is not installed")
    (tmp_path / ".ssh").mkdir()
    variables = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
        "HOME": str(tmp_path),
    }
    words = [sys.executable, "-m", "tests.cluster.test_account"]
    done = subprocess.run(
        words, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "machines": {
            "head": ["m7i.xlarge", "on demand", "distvae"],
            "cpu": ["c7i.8xlarge", "spot", "distvae"],
            "gpu": ["g6.2xlarge", "spot", "distvae"],
        },
        "open": [22],
        "resources": {"head": [0, 0], "cpu": [16, 0], "gpu": [8, 1]},
    }
    assert [path.name for path in (tmp_path / ".ssh").iterdir()] == [
        "ray-autoscaler_eu-central-1.pem"
    ]


def start_machines(config: dict[str, Any]) -> dict[str, Any]:
    """Prepare the account and start a machine of every kind; return what there is then."""
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
    types = ready["available_node_types"]
    for name, node in types.items():
        tags = {"ray-node-name": name, "ray-user-node-type": name, "ray-node-type": "worker"}
        provider.create_node(node["node_config"], tags, 1)
    machines, groups = {}, set()
    for reservation in ec2.describe_instances()["Reservations"]:
        for machine in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
            (group,) = machine["SecurityGroups"]
            market = machine.get("InstanceLifecycle", "on demand")
            facts = [machine["InstanceType"], market, group["GroupName"]]
            machines[tags["ray-user-node-type"]] = facts
            groups.add(group["GroupId"])
    world = set()
    for group in ec2.describe_security_groups(GroupIds=sorted(groups))["SecurityGroups"]:
        for rule in group["IpPermissions"]:
            if any(each["CidrIp"] == "0.0.0.0/0" for each in rule["IpRanges"]):
                world |= {*range(rule["FromPort"], rule["ToPort"] + 1)}
    resources = {
        name: [node["resources"].get(kind, 0) for kind in ("CPU", "GPU")]
        for name, node in types.items()
    }
    return {"machines": machines, "open": sorted(world), "resources": resources}


def main() -> None:
    """Simulate an account, start machines in it, and tell what there is."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
    try:
        print(json.dumps(start_machines(yaml.safe_load(FILE.read_text()))))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
