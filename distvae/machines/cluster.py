"""The machines of a Ray: what they have, whether workers fit on them, functions that run on each of
them, and whether they run the same programs and share their storage.
"""

import importlib.metadata
import math
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from distvae.config import Train
from distvae.config.schema import NonNegative, check_value
from distvae.files.program import program_version
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder
from distvae.machines.session import ObjectRef, RayApi
from distvae.numerics.metrics import counted
from distvae.system import is_locked, lock

ANSWER_SECONDS = 120.0
"""Seconds in which a machine has to answer."""
REQUEST_INTERVAL = 30.0
"""Seconds between two requests for machines that have not arrived."""
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
    cpus: float = 0.0
    gpus: float = 0.0


def live_machines(ray: RayApi) -> dict[str, Machine]:
    """Return the machines that are alive, by Ray's id."""
    machines = {}
    for node in ray.nodes():
        if node["Alive"]:
            resources = node["Resources"]
            machines[node["NodeID"]] = Machine(
                node["NodeManagerAddress"],
                resources.get("CPU", 0.0),
                resources.get("GPU", 0.0),
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


POLL_SECONDS = 0.3
"""Seconds between two looks at the resources of Ray."""
SMALLEST_SHARE = 1e-4
"""The smallest part of a GPU that Ray can count."""


@dataclass(frozen=True)
class WorkerGroup:
    """The number of workers that train together, and the Ray cluster that provides them."""

    min_workers: int
    max_workers: int
    gpus: float | None = 0.0
    """GPUs of each worker; None: one, if Ray has any."""
    address: str | None = None
    """Address of a running Ray; None: start one on this machine."""
    wait: float = 0.0
    """Seconds to wait for machines that have not joined."""

    @classmethod
    def parse(
        cls, text: str, gpus: float | None = None, address: str | None = None, wait: float = 0.0
    ) -> "WorkerGroup":
        """Return the group for `--workers N`, or for `--workers MIN:MAX`."""
        parts = text.split(":")
        if len(parts) > 2 or not all(re.fullmatch("0*[1-9][0-9]{0,5}", part) for part in parts):
            raise Refusal(
                f"--workers: '{text}'; a number such as 4, or a range such as 1:4, expected"
            )
        min_workers, max_workers = int(parts[0]), int(parts[-1])
        if min_workers > max_workers:
            raise Refusal(f"--workers: '{text}' falls; a range such as 1:4 expected")
        refuse_gpu_share("--gpus-per-worker", gpus)
        return cls(min_workers, max_workers, gpus, address, checked_wait(wait))


def checked_wait(seconds: float) -> float:
    """Return the seconds of --wait, or raise a Refusal if they are no number of seconds."""
    return float(check_value("--wait", NonNegative, seconds))


def refuse_gpu_share(option: str, gpus: float | None) -> None:
    """Refuse a number of GPUs that Ray cannot give a process."""
    if not gpus:
        return
    is_share = SMALLEST_SHARE <= gpus <= 1
    is_whole = gpus > 1 and gpus % 1 == 0
    if not is_share and not is_whole:
        raise Refusal(
            f"{option}: {gpus:g}; a part of one, such as 0.25, or a whole number expected"
        )


def refuse_hidden_gpus(option: str, gpus: float | None, device: str) -> None:
    """Refuse to train on GPUs that an option hides."""
    if gpus == 0 and device == "cuda":
        raise Refusal(
            f"{option}: 0 hides the GPUs, but train.device is 'cuda'; 1, or train.device=cpu,"
            " expected"
        )


def gpus_per_process(requested: float | None, device: str, available: float) -> float:
    """Return the GPUs that each process requests from Ray.

    Without a request, each process requests one GPU if Ray has any and `train.device` allows it.
    """
    if requested is not None:
        return requested
    uses_gpu = device == "cuda" or (device == "auto" and available > 0)
    return 1.0 if uses_gpu else 0.0


def suggest_gpu_options(workers: int, gpus: float, device: str) -> str:
    """Return the options with which workers could train on too few GPUs."""
    suggestions = []
    share = math.floor(100 / math.ceil(workers / gpus)) / 100 if gpus else 0.0
    if share:
        suggestions.append(f"--gpus-per-worker {share:g} to share them, ")
    on_cpu = "train.device=cpu" if device == "cuda" else "--gpus-per-worker 0"
    suggestions.append(f"{on_cpu} to train on the CPU, ")
    return "".join(suggestions)


def wait_for_workers(
    ray: RayApi, group: WorkerGroup, config: Train, stop: Callable[[], object]
) -> Generator[str, None, WorkerGroup]:
    """Wait until Ray has room for a group; return the group with the GPUs of each worker.

    Raise a Refusal if there is no room within `group.wait` seconds.
    """
    from distvae.train.loop import Interrupted

    deadline = time.monotonic() + group.wait
    threads = config.threads or 1

    def look() -> tuple[WorkerGroup, str, float]:
        """Return the group with the GPUs of each worker, what it lacks, and all GPUs of Ray."""
        machines = machine_resources(ray)
        found = total(machines, "GPU")
        settled = replace(group, gpus=gpus_per_process(group.gpus, config.device, found))
        return settled, describe_shortage(machines, settled, threads), found

    settled, shortage, found = look()
    if group.wait and shortage:
        yield f"{shortage}; waiting up to {group.wait:.0f} s for more"
    bundle = {"CPU": threads, "GPU": settled.gpus or 0.0}
    with requested_resources(bundle, group.max_workers) if group.wait else nullcontext():
        while shortage:
            if stop():
                raise Interrupted
            if time.monotonic() >= deadline:
                ways_out = ""
                if group.gpus is None and "GPU" in shortage and found < group.min_workers:
                    ways_out = suggest_gpu_options(group.min_workers, found, config.device)
                raise Refusal(
                    f"{shortage}; {ways_out}fewer workers, more machines, or --wait SECONDS for"
                    " those to come expected"
                )
            time.sleep(POLL_SECONDS)
            settled, shortage, found = look()  # new machines may have the first GPUs
    return settled


def describe_shortage(machines: MachineResources, group: WorkerGroup, threads: int) -> str:
    """Describe the resources that the fewest workers of a group lack; '' if the workers fit."""
    per_worker = {"CPU": threads, "GPU": group.gpus or 0.0}
    for name, count in per_worker.items():
        needed = group.min_workers * count
        found = total(machines, name)
        if needed > found + 1e-6:
            return (
                f"--workers: {group.min_workers} workers need {needed:g} {name}s, and Ray has"
                f" {found:g}"
            )
    fitting = count_fitting(machines, per_worker)
    if fitting < group.min_workers:
        each = amounts({name: count for name, count in per_worker.items() if count})
        return (
            f"--workers: {counted(group.min_workers, 'worker')} with {each} each, and Ray has"
            f" machines for {fitting}"
        )
    return ""


LOCK_FILE = "~/.distvae/running"
"""The file that running commands lock; it holds the words of the one started last.

The kernel releases the lock however a command ends.
"""


@contextmanager
def mark_running(command: str) -> Iterator[None]:
    """Hold the lock while a command runs."""
    path = Path(LOCK_FILE).expanduser()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a+") as file:
        lock(file.fileno(), shared=True)
        file.truncate(0)
        file.write(f"{command}\n")
        file.flush()
        yield


def refuse_if_running() -> None:
    """Raise a Refusal if a command holds the lock."""
    path = Path(LOCK_FILE).expanduser()
    if not path.exists():
        return
    with path.open("r+") as file:  # NFS locks only files that are open for writing
        if is_locked(file.fileno()):
            raise Refusal(
                f"'{file.read().strip()}' runs on this head, and 'ray up' restarts Ray, which ends"
                " it. End it first where it was submitted (Ctrl-C saves its state; the same"
                f" command resumes it), or to restart all the same: rm {LOCK_FILE}"
            )
