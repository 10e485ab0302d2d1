"""The machines of a cluster: what runs on each, and whether all of them reach the same storage."""

import importlib.metadata
import platform
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distvae.refusal import Refusal
from distvae.storage import Folder

PACKAGES = ("distvae", "torch", "numpy", "pyarrow", "safetensors")
PATIENCE = 120.0
"""Seconds that a machine has to answer in."""
STORAGE = "--storage with a path on a shared disk, or a URI such as s3://bucket/runs"
"""What a run needs that machines do not see the folder of."""


def versions() -> dict[str, str]:
    """Of Python and of what computes and stores."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def leave(place: str, name: str) -> None:
    """Write a file that others look for."""
    Folder(place).write(name, b"")


def seen(place: str) -> list[str]:
    """The files of a folder."""
    return Folder(place).names()


def hosts(ray: Any) -> set[str]:
    """The addresses of the machines."""
    return {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


@contextmanager
def called(each: Mapping[str, float], count: int) -> Iterator[None]:
    """Ask Ray's autoscaler for room for so many of these, until left; without one nobody hears it."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[{name: amount for name, amount in each.items() if amount}] * count)
    try:
        yield
    finally:
        request_resources(bundles=[])


def check(ray: Any, folder: Folder, remedy: str = STORAGE) -> None:
    """Refuse machines that differ in their programs, or do not see what each other writes into a folder."""
    names = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(names) > 1:
        _refuse_other_versions(names, ask(ray, names, versions), versions())
        _refuse_apart(ray, names, folder, remedy)


def ask(ray: Any, names: dict[str, str], what: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What a function returns on each machine, by its id; an error says its name."""
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = {node: NodeAffinitySchedulingStrategy(node, soft=False) for node in names}
    task = ray.remote(num_cpus=0, max_retries=0)(what)
    asked = {node: task.options(scheduling_strategy=where).remote(*arguments) for node, where in there.items()}
    answers = {}
    for node, promise in asked.items():
        try:
            answers[node] = ray.get(promise, timeout=PATIENCE)
        except GetTimeoutError as error:
            raise Refusal(f"{names[node]}: no answer within {PATIENCE:.0f} s; is it overloaded?") from error
        except RayError as error:
            cause = " ".join(str(getattr(error, "cause", None) or error).split())
            raise Refusal(f"{names[node]}: {what.__name__}: {cause}") from error
    return answers


def _refuse_other_versions(names: dict[str, str], found: dict[str, dict[str, str]], own: dict[str, str]) -> None:
    for node, there in found.items():
        for package, version in own.items():
            if there[package] != version:
                raise Refusal(
                    f"{names[node]}: {package} {there[package]}, but {version} here; the same on every machine expected"
                )


def _refuse_apart(ray: Any, names: dict[str, str], folder: Folder, remedy: str) -> None:
    """A round trip: every machine writes a file, and every one looks for all of them."""
    token = secrets.token_hex(4)
    left = {f"look-{token}-{node[:12]}": name for node, name in names.items()}
    try:
        for file, (node, name) in zip(left, names.items(), strict=True):
            ask(ray, {node: name}, leave, folder.place, file)
        for reader, files in ask(ray, names, seen, folder.place).items():
            if missing := [writer for file, writer in left.items() if file not in files]:
                raise Refusal(
                    f"{folder}: what {missing[0]} writes there is not seen by {names[reader]}; a place that all "
                    f"machines share expected: {remedy}"
                )
    finally:
        for file in left:
            folder.delete(file)
