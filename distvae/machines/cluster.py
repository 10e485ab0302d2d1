"""The machines of a Ray cluster: their resources, functions run on each machine, requests for more
machines, and the check that all machines run the same programs and share their storage.
"""

import importlib.metadata
import math
import platform
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from distvae.files.program import program_version
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder
from distvae.machines.ray_api import ObjectRef, RayApi

ANSWER_SECONDS = 120.0
"""Seconds in which a machine has to answer."""
REQUEST_INTERVAL = 30.0
"""Seconds between two requests for machines that have not arrived."""
HEAD = "node:__internal_head__"
"""A resource that Ray counts on the machine of its head alone."""
PACKAGES = ("torch", "ray", "numpy", "pyarrow", "safetensors")
"""Packages that compute, communicate or store, whose versions have to agree."""
STORAGE_REMEDY = "--storage with a path on a shared disk, or a URI such as s3://bucket/runs"
"""What a run needs if its machines do not share the folder."""
MachineResources = Sequence[Mapping[str, float]]
"""The resources of each machine by name, such as CPU and GPU."""
T = TypeVar("T")


class Machine(NamedTuple):
    """A machine of a Ray cluster."""

    address: str
    port: int
    """The port on which Ray's own process there listens."""
    cpus: float = 0.0
    gpus: float = 0.0
    is_head: bool = False


def live_machines(ray: RayApi) -> dict[str, Machine]:
    """Return the machines that are alive, by Ray's id."""
    machines = {}
    for node in ray.nodes():
        if node["Alive"]:
            resources = node["Resources"]
            machines[node["NodeID"]] = Machine(
                node["NodeManagerAddress"],
                node["NodeManagerPort"],
                resources.get("CPU", 0.0),
                resources.get("GPU", 0.0),
                HEAD in resources,
            )
    return machines


def machine_resources(ray: RayApi) -> MachineResources:
    """Return the resources of each machine of Ray."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def total(machines: MachineResources, name: str) -> float:
    """Return how much all machines have of a resource."""
    return sum(machine.get(name, 0.0) for machine in machines)


def count_fitting(machines: MachineResources, needs: Mapping[str, float]) -> int:
    """Return how many processes with these needs fit, each of them on one machine."""
    return sum(
        min(
            math.floor(machine.get(name, 0.0) / count + 1e-6)
            for name, count in needs.items()
            if count
        )
        for machine in machines
    )


def amounts(resources: Mapping[str, float]) -> str:
    """Return amounts of resources in words, as in `1 CPU and 2 GPUs`."""
    return " and ".join(
        f"{count:g} {name}" + "s" * (count != 1) for name, count in resources.items()
    )


@contextmanager
def requested_resources(bundle: Mapping[str, float], count: int) -> Iterator[None]:
    """Request `count` bundles from Ray's autoscaler while the context is open.

    Has no effect without an autoscaler. The request is repeated, because an autoscaler that was
    restarted has forgotten it.
    """
    from ray.autoscaler.sdk import request_resources

    needed = {name: amount for name, amount in bundle.items() if amount}
    bundles = [needed] * count
    closed = threading.Event()

    def repeat_request() -> None:
        while not closed.wait(REQUEST_INTERVAL):
            with suppress(Exception):  # the autoscaler is restarting; the next request comes soon
                request_resources(bundles=bundles)

    request_resources(bundles=bundles)
    repeating = threading.Thread(target=repeat_request, daemon=True)
    repeating.start()
    try:
        yield
    finally:
        closed.set()
        repeating.join()
        request_resources(bundles=[])


def run_on_nodes(
    nodes: Iterable[str], function: Callable[..., T], *arguments: object
) -> dict[str, T | Refusal]:
    """Run a function on each machine, side by side.

    Return the results by machine id, with a Refusal in place of a missing result.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(function)
    pending: dict[str, ObjectRef] = {}
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        pending[node] = task.options(scheduling_strategy=strategy).remote(*arguments)
    results: dict[str, T | Refusal] = {}
    for node, ref in pending.items():
        try:
            results[node] = ray.get(ref, timeout=ANSWER_SECONDS)
        except GetTimeoutError:
            reason = f"no answer within {ANSWER_SECONDS:.0f} s; is it overloaded?"
            results[node] = Refusal(reason)
        except RayError as error:
            reason = cause(getattr(error, "cause", None) or error)
            results[node] = Refusal(f"{function.__name__}: {reason}")
    return results


def check_cluster(ray: RayApi, folder: Folder, remedy: str = STORAGE_REMEDY) -> None:
    """Refuse machines with different programs, or machines that do not share a folder."""
    addresses = {node: machine.address for node, machine in live_machines(ray).items()}
    if len(addresses) == 1:
        return
    for node, found in run_on_nodes(addresses, program_versions).items():
        if isinstance(found, Refusal):
            raise Refusal(f"{addresses[node]}: {found}") from found
        if others := other_versions(found):
            raise Refusal(
                f"{addresses[node]}: {'; '.join(others)}; the same on every machine expected"
            )
    trip = round_trip(addresses, folder)
    for node, reason in trip.failed.items():
        raise Refusal(f"{addresses[node]}: {reason}")
    for reader, writer in trip.unseen:
        raise Refusal(
            f"{folder}: what {addresses[writer]} writes there is not seen by {addresses[reader]}; a"
            f" place that all machines share expected: {remedy}"
        )


def program_versions() -> dict[str, str]:
    """Return the versions of Python, of this package, and of the packages that have to agree."""
    versions = {"python": platform.python_version(), "distvae": program_version()}
    for name in PACKAGES:
        versions[name] = importlib.metadata.version(name)
    return versions


def other_versions(found: Mapping[str, str]) -> list[str]:
    """Return in words the programs of a machine whose versions differ from the versions here."""
    return [
        f"{name} {found[name]}, but {version} here"
        for name, version in program_versions().items()
        if found[name] != version
    ]


@dataclass(frozen=True)
class RoundTrip:
    """The result of a round trip: every machine wrote a file and looked for all other files."""

    failed: dict[str, str]
    """Machines that could not write, list or delete files there, and why."""
    unseen: list[tuple[str, str]]
    """Pairs of a reader and a writer, where the reader does not see the writer's file."""


def round_trip(
    nodes: Iterable[str],
    folder: Folder,
    run: Callable[..., Mapping[str, Any]] = run_on_nodes,
) -> RoundTrip:
    """Have every machine write a file, list the folder, and delete its file.

    `run` runs a function on some machines, as `run_on_nodes` does.
    """
    token = secrets.token_hex(4)
    files = {node: f"look-{token}-{number}" for number, node in enumerate(nodes)}
    failed: dict[str, str] = {}
    listings: dict[str, list[str]] = {}

    def sort(answers: Mapping[str, Any]) -> None:
        for node, answer in answers.items():
            if isinstance(answer, Refusal):
                failed[node] = str(answer)
            elif answer is not None:
                listings[node] = answer

    def left() -> list[str]:
        return [node for node in files if node not in failed]

    try:
        for node in files:
            sort(run([node], write_marker, folder.place, files[node]))
        written = left()
        sort(run(written, list_files, folder.place))
    finally:
        for node in left():
            sort(run([node], delete_marker, folder.place, files[node]))
    unseen = []
    for reader, names in listings.items():
        unseen += [(reader, writer) for writer in written if files[writer] not in names]
    return RoundTrip(failed, unseen)


def write_marker(folder: str, name: str) -> None:
    """Write an empty file."""
    Folder(folder).write(name, b"")


def list_files(folder: str) -> list[str]:
    """Return the names of the files in a folder."""
    return Folder(folder).list_files()


def delete_marker(folder: str, name: str) -> None:
    """Delete a file."""
    Folder(folder).delete(name)
