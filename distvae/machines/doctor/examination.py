"""Examinations of this machine, or of all machines of a running Ray."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import distvae
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder
from distvae.machines.cluster.cluster_check import round_trip_on_nodes
from distvae.machines.cluster.nodes import live_nodes, run_on_nodes
from distvae.machines.cluster.shared_folder import (
    FileStep,
    delete_marker,
    list_files,
    round_trip,
    write_marker,
)
from distvae.machines.doctor.copies_check import check_copies
from distvae.machines.doctor.diagnosis import HERE, Diagnosis, merge_machines
from distvae.machines.doctor.facts import Facts, disk_space, disk_space_at, gather_facts, read_clock
from distvae.machines.doctor.hardware_checks import (
    check_clock,
    check_disk,
    check_gpus,
    check_memory,
    check_processors,
)
from distvae.machines.doctor.network_checks import check_ports, check_storage, check_token
from distvae.machines.doctor.program_checks import (
    INSTALL,
    check_pesq,
    check_pins,
    check_programs,
    check_source,
    parse_lock,
)
from distvae.machines.ray_api import NodeInfo, RayApi
from distvae.track import Store, without_secrets

LOCK = Path(distvae.__file__).parents[1] / "requirements.lock"
"""The lock file of a checkout."""
RAY_LOGS = "Ray's logs there: /tmp/ray/session_latest/logs; then end it and start it again"
CLOCK_READINGS = 3
"""Readings of a remote clock; the quickest counts."""
T = TypeVar("T")


def examine_this_machine(root: Path, storage: str | None) -> list[Diagnosis]:
    """Return the diagnoses of this machine alone."""
    facts = gather_facts()
    diagnoses = [
        *_check_lock(facts),
        *check_processors(HERE, facts, None),
        *check_gpus(HERE, facts, None),
        *check_memory(HERE, facts, None),
        *check_disk(HERE, "disk", facts["temporary"]["place"], facts["temporary"]),
        *_check_run_disk(root),
        *check_pesq(HERE, facts),
        *check_tracking(root),
    ]
    if storage:
        diagnoses += _check_storage_here(Folder(storage).with_short_timeout())
    diagnoses += check_token(HERE, facts, several=False)
    diagnoses += check_ports(HERE, facts, None, several=False)
    return merge_machines(diagnoses, [HERE])


def examine_cluster(address: str, root: Path, storage: str | None) -> list[Diagnosis]:
    """Return the diagnoses of the machines of a running Ray."""
    from distvae.machines.session.ray_session import ray_session

    folder = Folder(storage) if storage else None
    try:
        with ray_session(address, 0) as ray:
            return _examine_nodes(ray, root, folder)
    except Refusal as error:
        if "Version mismatch" not in str(error):
            raise
        remedy = f"the same Ray and Python here as there: {INSTALL}"
        return [Diagnosis("bad", "Ray", address, str(error), remedy)]


@dataclass(frozen=True)
class Examined:
    """The machines of a Ray that answered: their names, facts and resources, by id."""

    nodes: Mapping[str, NodeInfo]
    names: Mapping[str, str]
    facts: Mapping[str, Facts]


def _examine_nodes(ray: RayApi, root: Path, folder: Folder | None) -> list[Diagnosis]:
    """Return the diagnoses of the machines of the Ray that this process is connected to."""
    from ray import cloudpickle

    # Machines run this code when they are asked, whatever they have installed.
    cloudpickle.register_pickle_by_value(distvae)
    try:
        nodes = live_nodes(ray)
        names = machine_names(nodes)
        diagnoses: list[Diagnosis] = []
        facts: dict[str, Facts] = {}
        for node, answer in run_on_nodes(nodes, gather_facts).items():
            if isinstance(answer, Refusal):
                diagnoses.append(Diagnosis("bad", "answers", names[node], str(answer), RAY_LOGS))
            else:
                facts[node] = answer
        local = gather_facts()
        examined = Examined(nodes, {node: names[node] for node in facts}, facts)
        diagnoses += _check_lock(local)
        diagnoses += _check_nodes(examined, local, several=len(nodes) > 1)
        diagnoses += _check_clocks(examined)
        diagnoses += check_copies({names[node]: cpus(nodes[node]) for node in examined.facts})
        diagnoses += _check_run_disk(root)
        diagnoses += check_tracking(root)
        if folder:
            diagnoses += _check_shared_storage(examined, folder)
    finally:
        cloudpickle.unregister_pickle_by_value(distvae)
    return merge_machines(diagnoses, list(names.values()))


def cpus(node: NodeInfo) -> float:
    """Return the processors that Ray counts on a machine."""
    return node["Resources"].get("CPU", 0.0)


def _check_nodes(examined: Examined, local: Facts, several: bool) -> Iterator[Diagnosis]:
    """Check the machines, one subject after the other."""
    port = _dashboard_port()
    checks = [_checks_of_node(examined, node, local, port, several) for node in examined.facts]
    for same_subject in zip(*checks, strict=True):
        yield from chain.from_iterable(same_subject)


def _checks_of_node(
    examined: Examined, node: str, local: Facts, port: int | None, several: bool
) -> list[Iterator[Diagnosis]]:
    """Return the checks of a machine by its facts and by the resources that Ray counts."""
    name, facts = examined.names[node], examined.facts[node]
    resources, temporary = examined.nodes[node]["Resources"], facts["temporary"]
    return [
        check_programs(name, facts, local),
        check_source(name, facts, local),
        check_processors(name, facts, resources.get("CPU", 0)),
        check_gpus(name, facts, resources.get("GPU", 0)),
        check_memory(name, facts, resources.get("object_store_memory")),
        check_disk(name, "disk", temporary["place"], temporary),
        check_pesq(name, facts),
        check_token(name, facts, several),
        check_ports(name, facts, port, several),
    ]


def _dashboard_port() -> int | None:
    """Return the port of Ray's dashboard, if it has one."""
    from ray._private.worker import get_dashboard_url

    url = get_dashboard_url()
    return int(url.rpartition(":")[2]) if url else None


def machine_names(nodes: Mapping[str, NodeInfo]) -> dict[str, str]:
    """Return the addresses of machines, with a port where several share an address."""
    addresses = [node["NodeManagerAddress"] for node in nodes.values()]
    names = {}
    for key, node in nodes.items():
        address = node["NodeManagerAddress"]
        is_shared = addresses.count(address) > 1
        names[key] = f"{address}:{node['NodeManagerPort']}" if is_shared else address
    return names


def _check_clocks(examined: Examined) -> Iterator[Diagnosis]:
    """Check the clocks of the machines."""
    for node, name in examined.names.items():

        def read_remote(node: str = node) -> float | Refusal:
            return run_on_nodes([node], read_clock)[node]

        yield from check_clock(name, *clock_offset(read_remote))


def clock_offset(
    read_remote: Callable[[], float | Refusal], read_local: Callable[[], float] = time.time
) -> tuple[float, float]:
    """Return the seconds that a clock is ahead of this one, and their uncertainty.

    The uncertainty is half of the round trip.
    """
    best = (0.0, float("inf"))
    for _ in range(CLOCK_READINGS):
        asked, remote, answered = read_local(), read_remote(), read_local()
        uncertainty = (answered - asked) / 2
        if not isinstance(remote, Refusal) and uncertainty < best[1]:
            best = (remote - (asked + answered) / 2, uncertainty)
    return best


def _check_lock(facts: Facts) -> Iterator[Diagnosis]:
    """Compare the packages of this machine with the lock file, if there is one."""
    if LOCK.is_file():
        yield from check_pins(HERE, facts, parse_lock(LOCK.read_text()))


def _check_run_disk(root: Path) -> Iterator[Diagnosis]:
    """Check the disk of the run folders."""
    folder = root.absolute()
    yield from check_disk(HERE, "runs", str(folder), disk_space(folder))


def check_tracking(root: Path) -> Iterator[Diagnosis]:
    """Check whether this process reaches MLflow; workers never talk to it."""
    store = Store.find(root)
    if store.file is not None and not store.file.exists():
        yield _check_new_database(store.file)
        return
    try:
        store.open_client()
    except Refusal as error:
        remedy = (
            "MLFLOW_TRACKING_URI names another; training continues without it, and 'distvae sync'"
            " sends the records later"
        )
        yield Diagnosis("bad", "MLflow", HERE, str(error), remedy)
    else:
        yield Diagnosis("ok", "MLflow", HERE, f"{without_secrets(store.uri)}: answers")


def _check_new_database(file: Path) -> Diagnosis:
    """Check whether the first run can make MLflow's database."""
    parent = next(path for path in file.parents if path.exists())
    if os.access(parent, os.W_OK):
        return Diagnosis("ok", "MLflow", HERE, f"{file}: the first run makes it")
    remedy = f"a user who may write to {parent}"
    return Diagnosis("bad", "MLflow", HERE, f"{file}: cannot be made", remedy)


def _check_storage_here(folder: Folder) -> Iterator[Diagnosis]:
    """Check the storage as this machine sees it."""

    def list_here(place: str, _: str) -> list[str]:
        return list_files(place)

    trip = round_trip(
        [HERE],
        _step_here(write_marker, folder),
        _step_here(list_here, folder),
        _step_here(delete_marker, folder),
    )
    yield from check_storage(trip, {HERE: HERE}, str(folder))
    if not folder.remote and not trip.failed:
        yield from check_disk(HERE, "storage", str(folder), disk_space_at(folder.place))


def _step_here(function: Callable[[str, str], T], folder: Folder) -> FileStep[T]:
    """Return a step of a round trip that this process does."""

    def step(files: Mapping[str, str]) -> dict[str, T | Refusal]:
        results: dict[str, T | Refusal] = {}
        for node, file in files.items():
            try:
                results[node] = function(folder.place, file)
            except OSError as error:
                results[node] = Refusal(cause(error))
        return results

    return step


def _check_shared_storage(examined: Examined, folder: Folder) -> Iterator[Diagnosis]:
    """Check the storage as the machines of a Ray see it."""
    trip = round_trip_on_nodes(examined.names, folder)
    yield from check_storage(trip, examined.names, str(folder))
    if folder.remote:
        return
    for node, space in run_on_nodes(examined.names, disk_space_at, folder.place).items():
        if node not in trip.failed and not isinstance(space, Refusal):
            yield from check_disk(examined.names[node], "storage", str(folder), space)
