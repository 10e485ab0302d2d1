"""Errors in Kubernetes objects: by the schemas of Kubernetes, by Ray's reading of a cluster, by our
rules.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from tests.cluster.launcher import SECRET
from tests.cluster.pins import PINS

KUBERNETES = "1.34.0"
Known = Mapping[str, "Known | None"]
"""Keys that an object may have, with the keys of the objects below. None skips an object."""
RESOURCES: Known = {"requests": None, "limits": None}
GROUP: Known = {"rayStartParams": None, "template": None}
WORKERS: Known = {
    "groupName": None,
    "replicas": None,
    "minReplicas": None,
    "maxReplicas": None,
    **GROUP,
}
METADATA: Known = {"name": None, "generateName": None, "labels": None}
RAY: Mapping[str, Known] = {
    "RayCluster": {
        "rayVersion": None,
        "authOptions": {"mode": None},
        "enableInTreeAutoscaling": None,
        "autoscalerOptions": {"version": None, "idleTimeoutSeconds": None, "resources": RESOURCES},
        "headGroupSpec": GROUP,
        "workerGroupSpecs": WORKERS,
    },
    "RayJob": {"clusterSelector": None, "backoffLimit": None, "entrypoint": None},
}
"""The fields of ray.io/v1 that our file uses. The definitions that KubeRay installs have more
fields.
"""


def faults(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """All that is wrong, in words."""
    return [fault for each in objects for fault in _one(each)] + [*_together(objects)]


def _one(each: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"a secret: {found}" for found in SECRET.findall(json.dumps(each)))
    if each.get("apiVersion") != "ray.io/v1":
        yield from _plain(each)
        return
    if each["kind"] not in RAY:
        yield f"{each['kind']}: unknown"
        return
    known: Known = {
        "apiVersion": None,
        "kind": None,
        "metadata": METADATA,
        "spec": RAY[each["kind"]],
    }
    yield from _unknown(each, known, each["kind"])
    yield from {"RayCluster": _cluster, "RayJob": _job}[each["kind"]](each)


def _unknown(value: Any, known: Known, path: str) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        for key, inner in item.items():
            below = known.get(key)
            if key not in known:
                yield f"{path}.{key}: unknown"
            elif below is not None:
                yield from _unknown(inner, below, f"{path}.{key}")


def _plain(each: Mapping[str, Any]) -> Iterator[str]:
    """Kubernetes' own kinds, no key unknown."""
    for error in _kind(each["kind"]).iter_errors(each):
        yield f"{each['kind']}.{'.'.join(map(str, error.absolute_path))}: {error.message}"


@cache
def _kind(name: str) -> Any:
    """Return the schema of a kind that kubernetes-validate ships."""
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"
    schema, definitions = (
        json.loads((folder / file).read_text())
        for file in (f"{name.lower()}-v1.json", "_definitions.json")
    )
    registry: Any = Registry().with_resource(
        "_definitions.json", Resource.from_contents(definitions, DRAFT202012)
    )
    return Draft202012Validator(schema, registry=registry.crawl())


def groups(cluster: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The head's and the workers'."""
    spec = cluster["spec"]
    return [
        *([spec["headGroupSpec"]] if "headGroupSpec" in spec else []),
        *spec.get("workerGroupSpecs", []),
    ]


def _cluster(cluster: Mapping[str, Any]) -> Iterator[str]:
    spec = cluster["spec"]
    yield from _read_by_ray(cluster)
    if spec.get("rayVersion") != PINS["ray"]:
        yield f"rayVersion: {spec.get('rayVersion')}, {PINS['ray']} expected"
    if spec.get("authOptions") != {"mode": "token"}:
        yield f"authOptions: {spec.get('authOptions')}"
    if not spec.get("enableInTreeAutoscaling"):
        yield "enableInTreeAutoscaling: off"
    for group in groups(cluster):
        pod = {"apiVersion": "v1", "kind": "Pod", **group.get("template", {})}
        yield from _plain(pod)
        yield from _pod(pod)
        for name, value in group.get("rayStartParams", {}).items():
            if not isinstance(value, str):
                yield f"rayStartParams.{name}: {value!r}, a string expected"
    for group in spec.get("workerGroupSpecs", []):
        if (
            not group.get("minReplicas") == group.get("replicas") == 0
            or group.get("maxReplicas", 0) < 1
        ):
            yield f"{group.get('groupName')}: from 0 to 1 or more workers expected"
    if spec.get("headGroupSpec", {}).get("rayStartParams", {}).get("num-cpus") != "0":
        yield "trials would run on the head"


def _read_by_ray(cluster: Mapping[str, Any]) -> Iterator[str]:
    """Check how Ray's autoscaler reads the cluster."""
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    named = {**cluster, "metadata": {"namespace": "default", **cluster["metadata"]}}
    try:
        _derive_autoscaling_config_from_ray_cr(named)
    except Exception as error:  # of a dozen kinds
        yield f"Ray: {type(error).__name__}: {error}"


def _pod(pod: Mapping[str, Any]) -> Iterator[str]:
    spec = pod.get("spec", {})
    if not spec.get("securityContext", {}).get("runAsNonRoot"):
        yield "a pod of root's"
    volumes = {volume.get("name") for volume in spec.get("volumes", [])}
    for container in spec.get("containers", []):
        resources = container.get("resources", {})
        if not resources or resources.get("requests") != resources.get("limits"):
            yield f"{container.get('name')}: resources: requests equal to limits expected"
        if lost := {mount.get("name") for mount in container.get("volumeMounts", [])} - volumes:
            yield f"{container.get('name')}: no such volume: {sorted(map(str, lost))}"
        if "0.0.0.0" in json.dumps(container):
            yield f"{container.get('name')}: listens everywhere"
        if any(entry.get("name") == "RAY_AUTH_MODE" for entry in container.get("env", [])):
            yield f"{container.get('name')}: RAY_AUTH_MODE beside authOptions"


def _job(job: Mapping[str, Any]) -> Iterator[str]:
    entry = job["spec"].get("entrypoint", "")
    for word in ("--address auto", "--resume"):  # a job is tried again, and finds its folder
        if word not in entry:
            yield f"entrypoint: {entry!r}: {word} expected"


def _together(objects: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Names by which one object refers to another, and one image for all."""
    names = {
        kind: {each["metadata"].get("name") for each in objects if each["kind"] == kind}
        for kind in _kinds(objects)
    }
    for each in objects:
        if each["kind"] == "RayJob":
            selected = each["spec"].get("clusterSelector", {}).get("ray.io/cluster")
            if selected not in names.get("RayCluster", ()):
                yield f"clusterSelector: {selected}"
        elif each["kind"] == "RayCluster":
            pods = [group.get("template", {}).get("spec", {}) for group in groups(each)]
            images = {
                container.get("image") for pod in pods for container in pod.get("containers", [])
            }
            if len(images) != 1:
                yield f"images: {images}"
            claims = {
                volume["persistentVolumeClaim"].get("claimName")
                for pod in pods
                for volume in pod.get("volumes", [])
                if "persistentVolumeClaim" in volume
            }
            yield from (
                f"no such claim: {claim}"
                for claim in claims - names.get("PersistentVolumeClaim", set())
            )
    if not {"RayCluster", "RayJob"} <= set(names):
        yield f"kinds: {sorted(names)}"


def _kinds(objects: Sequence[Mapping[str, Any]]) -> set[str]:
    return {each["kind"] for each in objects}
