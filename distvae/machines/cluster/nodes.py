"""The machines of a Ray cluster, and functions run on each of them."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from distvae.files.refusal import Refusal, cause
from distvae.machines.ray_api import NodeInfo, ObjectRef, RayApi

ANSWER_SECONDS = 120.0
"""Seconds in which a machine has to answer."""
T = TypeVar("T")
HEAD = "node:__internal_head__"
"""A resource that Ray counts on the machine of its head alone."""


class Machine(NamedTuple):
    """A machine of a Ray cluster."""

    address: str
    port: int
    """The port on which Ray's own process there listens."""
    cpus: float = 0.0
    gpus: float = 0.0
    is_head: bool = False


def _live_nodes(ray: RayApi) -> dict[str, NodeInfo]:
    """Return the machines that are alive, by id."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def live_machines(ray: RayApi) -> dict[str, Machine]:
    """Return the machines that are alive, by id."""
    machines = {}
    for name, node in _live_nodes(ray).items():
        resources = node["Resources"]
        machines[name] = Machine(
            node["NodeManagerAddress"],
            node["NodeManagerPort"],
            resources.get("CPU", 0.0),
            resources.get("GPU", 0.0),
            HEAD in resources,
        )
    return machines


def node_addresses(ray: RayApi) -> dict[str, str]:
    """Return the addresses of the machines that are alive, by id."""
    return {name: node["NodeManagerAddress"] for name, node in _live_nodes(ray).items()}


def run_on_nodes(
    nodes: Iterable[str], function: Callable[..., T], *arguments: object
) -> dict[str, T | Refusal]:
    """Run a function on each machine, side by side.

    Return the results by machine id, with a Refusal in place of a missing result.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(function)
    pending: dict[str, ObjectRef] = {}
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        pending[node] = task.options(scheduling_strategy=strategy).remote(*arguments)
    return {node: _result_or_refusal(ref, function) for node, ref in pending.items()}


def _result_or_refusal(ref: ObjectRef, function: Callable[..., T]) -> T | Refusal:
    """Wait for a result; return a Refusal if it does not come or is an error."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    try:
        result: T = ray.get(ref, timeout=ANSWER_SECONDS)
    except GetTimeoutError:
        return Refusal(f"no answer within {ANSWER_SECONDS:.0f} s; is it overloaded?")
    except RayError as error:
        return Refusal(f"{function.__name__}: {cause(getattr(error, 'cause', None) or error)}")
    return result


def run_on_nodes_or_refuse(
    addresses: Mapping[str, str], function: Callable[..., T]
) -> dict[str, T]:
    """Run a function on each machine and return the results by machine id.

    Raise a Refusal with the address of a machine that gives no result.
    """
    results: dict[str, T] = {}
    for node, answer in run_on_nodes(addresses, function).items():
        if isinstance(answer, Refusal):
            raise Refusal(f"{addresses[node]}: {answer}") from answer
        results[node] = answer
    return results
