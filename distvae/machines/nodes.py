"""The machines of a cluster: what runs on each, and whether all of them reach the same storage."""

from collections.abc import Callable, Iterable
from typing import Any

from distvae.files.refusal import Refusal

PATIENCE = 120.0
"""Seconds that a machine has to answer in."""


def node_addresses(ray: Any) -> set[str]:
    """The addresses of the machines."""
    return {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def ask(
    ray: Any, names: dict[str, str], what: Callable[..., Any], *arguments: Any
) -> dict[str, Any]:
    """What a function returns on each machine, by its id; an error says its name."""
    answers = each(ray, names, what, *arguments)
    for node, answer in answers.items():
        if isinstance(answer, Refusal):
            raise Refusal(f"{names[node]}: {answer}") from answer
    return answers


def each(
    ray: Any, nodes: Iterable[str], what: Callable[..., Any], *arguments: Any
) -> dict[str, Any]:
    """What a function returns on each machine, by its id, or a refusal that says why there is no
    answer.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = {node: NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes}
    task = ray.remote(num_cpus=0, max_retries=0)(what)
    asked = {
        node: task.options(scheduling_strategy=where).remote(*arguments)
        for node, where in there.items()
    }
    return {node: _answer(ray, promise, what.__name__) for node, promise in asked.items()}


def _answer(ray: Any, promise: Any, name: str) -> Any:
    from ray.exceptions import GetTimeoutError, RayError

    try:
        return ray.get(promise, timeout=PATIENCE)
    except GetTimeoutError:
        return Refusal(f"no answer within {PATIENCE:.0f} s; is it overloaded?")
    except RayError as error:
        cause = " ".join(str(getattr(error, "cause", None) or error).split())
        return Refusal(f"{name}: {cause}")


def alive(nodes: list[dict[str, Any]]) -> dict[str, str]:
    """Return the addresses of the machines that Ray tells of as alive, by their ids."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in nodes if node["Alive"]}
