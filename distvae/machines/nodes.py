"""The machines of a cluster: what runs on each, and whether all of them reach the same storage."""

import importlib.metadata
import os
import platform
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from distvae.files.provenance import program_version
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder

PACKAGES = ("torch", "numpy", "pyarrow", "safetensors")
PATIENCE = 120.0
"""Seconds that a machine has to answer in."""
AGAIN = 30.0
"""Seconds between two calls for machines that are still to come."""
STORAGE = "--storage with a path on a shared disk, or a URI such as s3://bucket/runs"
"""What a run needs that machines do not see the folder of."""


def versions() -> dict[str, str]:
    """Of Python and of what computes and stores."""
    own = {"python": platform.python_version(), "distvae": program_version()}
    return own | {name: importlib.metadata.version(name) for name in PACKAGES}


def assigned_gpus() -> tuple[int, ...]:
    """Return the GPUs that Ray assigned this process, by their places among those that CUDA shows
    it.
    """
    import ray

    return places(ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def places(ids: Sequence[int | str], shown: str | None) -> tuple[int, ...]:
    """Return where assigned GPUs stand in CUDA_VISIBLE_DEVICES; without it CUDA shows all of them,
    by number.
    """
    names = None if shown is None else shown.split(",")
    if names is not None and (hidden := [str(name) for name in ids if str(name) not in names]):
        raise Refusal(
            f"CUDA_VISIBLE_DEVICES: '{shown}' hides GPU {hidden[0]}, which Ray assigned; leave it"
            " to Ray"
        )
    return tuple(int(name) if names is None else names.index(str(name)) for name in ids)


def leave(place: str, name: str) -> None:
    """Write a file that others look for."""
    Folder(place).write(name, b"")


def seen(place: str) -> list[str]:
    """The files of a folder."""
    return Folder(place).names()


def take_away(place: str, name: str) -> None:
    """Delete such a file."""
    Folder(place).delete(name)


Asked = Callable[[Mapping[str, str]], dict[str, Any]]
"""A file of each machine's own to what each answers, or a refusal that says why it cannot."""


@dataclass(frozen=True)
class Trip:
    """What became of a round trip through a folder: every machine writes a file, and each looks for
    those of all.
    """

    failed: dict[str, str]
    """Machines that cannot write, look or delete there, and why."""
    blind: list[tuple[str, str]]
    """Who does not see what whom wrote."""


def hosts(ray: Any) -> set[str]:
    """The addresses of the machines."""
    return {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


@contextmanager
def called(each: Mapping[str, float], count: int) -> Iterator[None]:
    """Ask Ray's autoscaler for room for so many of these, until left; without one nobody hears it.

    It is asked again and again, for one that is started anew has forgotten what was asked of it.
    """
    from ray.autoscaler.sdk import request_resources

    bundles, over = (
        [{name: amount for name, amount in each.items() if amount}] * count,
        threading.Event(),
    )

    def again() -> None:
        while not over.wait(AGAIN):
            with suppress(Exception):  # it is being started; the next call comes soon
                request_resources(bundles=bundles)

    request_resources(bundles=bundles)
    calling = threading.Thread(target=again, daemon=True)
    calling.start()
    try:
        yield
    finally:
        over.set()
        calling.join()
        request_resources(bundles=[])


def check(ray: Any, folder: Folder, remedy: str = STORAGE) -> None:
    """Refuse machines that differ in their programs, or do not see what each other writes into a
    folder.
    """
    names = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(names) > 1:
        _refuse_other_versions(names, ask(ray, names, versions), versions())
        _refuse_apart(names, shared(ray, names, folder), folder, remedy)


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


def _refuse_other_versions(
    names: dict[str, str], found: dict[str, dict[str, str]], own: dict[str, str]
) -> None:
    for node, there in found.items():
        for package, version in own.items():
            if there[package] != version:
                raise Refusal(
                    f"{names[node]}: {package} {there[package]}, but {version} here; the same on"
                    " every machine expected"
                )


def _refuse_apart(names: dict[str, str], trip: Trip, folder: Folder, remedy: str) -> None:
    for node, why in trip.failed.items():
        raise Refusal(f"{names[node]}: {why}")
    for reader, writer in trip.blind:
        raise Refusal(
            f"{folder}: what {names[writer]} writes there is not seen by {names[reader]}; a place"
            f" that all machines share expected: {remedy}"
        )


def shared(ray: Any, nodes: Iterable[str], folder: Folder) -> Trip:
    """A round trip of the machines of a Ray through a folder."""

    def of_each(what: Callable[..., Any]) -> Asked:
        return lambda files: {
            node: each(ray, [node], what, folder.place, file)[node] for node, file in files.items()
        }

    return round_trip(
        nodes,
        of_each(leave),
        lambda files: each(ray, files, seen, folder.place),
        of_each(take_away),
    )


def round_trip(nodes: Iterable[str], write: Asked, look: Asked, delete: Asked) -> Trip:
    """Have every machine write a file of its own, look for those of all, and delete its own."""
    token = secrets.token_hex(4)
    files = {node: f"look-{token}-{number}" for number, node in enumerate(nodes)}
    failed: dict[str, str] = {}
    try:
        failed |= _refused(write(files))
        left = {node: file for node, file in files.items() if node not in failed}
        found = look(left)
        failed |= _refused(found)
    finally:
        failed |= _refused(
            delete({node: file for node, file in files.items() if node not in failed})
        )
    seeing = {node: names for node, names in found.items() if not isinstance(names, Refusal)}
    return Trip(
        failed,
        [(me, other) for me, names in seeing.items() for other in left if left[other] not in names],
    )


def _refused(answers: Mapping[str, Any]) -> dict[str, str]:
    return {node: str(answer) for node, answer in answers.items() if isinstance(answer, Refusal)}
