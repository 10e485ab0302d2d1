"""What the machines of a Ray cluster have, and how many processes fit on them."""

import math
from collections.abc import Mapping, Sequence

from distvae.machines.ray_api import RayApi

MachineResources = Sequence[Mapping[str, float]]
"""The resources of each machine by name, such as CPU and GPU."""


def machine_resources(ray: RayApi) -> MachineResources:
    """Return the resources of each machine of Ray."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def total(machines: MachineResources, name: str) -> float:
    """Return how much all machines have of a resource."""
    return sum(machine.get(name, 0.0) for machine in machines)


def count_fitting(machines: MachineResources, needs: Mapping[str, float]) -> int:
    """Return how many processes with such needs fit, each of them on one machine."""
    return sum(_count_on(machine, needs) for machine in machines)


def amounts(resources: Mapping[str, float]) -> str:
    """Return amounts of resources in words, as in `1 CPU and 2 GPUs`."""
    return " and ".join(
        f"{count:g} {name}" + "s" * (count != 1) for name, count in resources.items()
    )


def _count_on(machine: Mapping[str, float], needs: Mapping[str, float]) -> int:
    return min(
        math.floor(machine.get(name, 0.0) / count + 1e-6) for name, count in needs.items() if count
    )
