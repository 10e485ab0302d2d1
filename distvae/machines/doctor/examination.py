"""Looking at this machine, or at all machines of a Ray that runs."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import distvae
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.cluster_check import round_trip_on_nodes
from distvae.machines.doctor import verdicts
from distvae.machines.doctor.diagnosis import Line, merged
from distvae.machines.doctor.facts import Facts, behind, clock, gather, room
from distvae.machines.nodes import run_on_nodes
from distvae.machines.shared_folder import (
    FileStep,
    delete_marker,
    list_files,
    round_trip,
    write_marker,
)
from distvae.track import Store, without_secrets

HERE = "here"
LOCK = Path(distvae.__file__).parents[1] / "requirements.lock"
"""Where it lies in a checkout."""
LOGS = "what Ray says there: /tmp/ray/session_latest/logs; then end it and start it again"
ROUNDS = 3  # of asking for the time; the quickest counts


def examine_this_machine(root: Path, storage: str | None) -> list[Line]:
    """Lines about this machine alone."""
    facts = gather()
    lines = [
        *_this_program(facts),
        *verdicts.processors(HERE, facts, None),
        *verdicts.graphics(HERE, facts, None),
        *verdicts.memories(HERE, facts, None),
        *verdicts.disk(HERE, "disk", facts["temporary"]["place"], facts["temporary"]),
        *_kept(root),
        *verdicts.scores(HERE, facts),
        *records(root),
        *(_alone(Folder(storage).with_short_timeout()) if storage else []),
        *verdicts.tokens(HERE, facts, several=False),
        *verdicts.doors(HERE, facts, None, several=False),
    ]
    return merged(lines, [HERE])


def examine_cluster(address: str, root: Path, storage: str | None) -> list[Line]:
    """Lines about the machines of a Ray."""
    from distvae.machines.ray_session import ray_session

    folder = Folder(storage) if storage else None
    try:
        with ray_session(address, 0) as ray:
            return _of_machines(ray, root, folder)
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        told = " ".join(str(error).split())
        return [
            Line(
                "bad",
                "Ray",
                address,
                told,
                f"the same Ray and Python here as there: {verdicts.INSTALL}",
            )
        ]


def _of_machines(ray: Any, root: Path, folder: Folder | None) -> list[Line]:
    ray.cloudpickle.register_pickle_by_value(
        distvae
    )  # a machine is asked by this code, whatever it has installed
    try:
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        names, here = named(nodes), gather()
        answers = run_on_nodes(nodes, gather)
        facts = {
            node: answer for node, answer in answers.items() if not isinstance(answer, Refusal)
        }
        silent = [
            Line("bad", "answers", names[node], str(answers[node]), LOGS)
            for node in nodes
            if node not in facts
        ]
        lines = [
            *silent,
            *_this_program(here),
            *_on_each(nodes, names, facts, here, ray._private.worker.get_dashboard_url()),
            *(
                line
                for node in facts
                for line in verdicts.clocks(names[node], *ahead(_time(ray, node)))
            ),
            *_kept(root),
            *records(root),
            *(_together(ray, {node: names[node] for node in facts}, folder) if folder else []),
        ]
    finally:
        ray.cloudpickle.unregister_pickle_by_value(distvae)
    return merged(lines, list(names.values()))


def _on_each(
    nodes: Mapping[str, Any],
    names: Mapping[str, str],
    facts: Mapping[str, Facts],
    here: Facts,
    dashboard: str | None,
) -> Iterator[Line]:
    """What there is to say of each machine, one subject after the other."""
    several = len(nodes) > 1
    port = int(dashboard.rpartition(":")[2]) if dashboard else None
    counted = {node: nodes[node]["Resources"] for node in facts}
    subjects: list[Callable[[str], Iterator[Line]]] = [
        lambda node: verdicts.programs(names[node], facts[node], here),
        lambda node: verdicts.code(names[node], facts[node], here),
        lambda node: verdicts.processors(names[node], facts[node], counted[node].get("CPU", 0)),
        lambda node: verdicts.graphics(names[node], facts[node], counted[node].get("GPU", 0)),
        lambda node: verdicts.memories(
            names[node], facts[node], counted[node].get("object_store_memory")
        ),
        lambda node: verdicts.disk(
            names[node], "disk", facts[node]["temporary"]["place"], facts[node]["temporary"]
        ),
        lambda node: verdicts.scores(names[node], facts[node]),
        lambda node: verdicts.tokens(names[node], facts[node], several),
        lambda node: verdicts.doors(names[node], facts[node], port, several),
    ]
    for subject in subjects:
        for node in facts:
            yield from subject(node)


def named(nodes: Mapping[str, Any]) -> dict[str, str]:
    """What machines are called: their addresses, with a port where several share one."""
    addresses = [node["NodeManagerAddress"] for node in nodes.values()]
    return {
        key: (
            address
            if addresses.count(address) == 1
            else f"{address}:{nodes[key]['NodeManagerPort']}"
        )
        for key, address in zip(nodes, addresses, strict=True)
    }


def _time(ray: Any, node: str) -> Callable[[], Any]:
    return lambda: run_on_nodes([node], clock)[node]


def ahead(there: Callable[[], Any], here: Callable[[], float] = time.time) -> tuple[float, float]:
    """Seconds that a clock is ahead of this one, and how far from the truth that may be: half of
    the round trip.
    """
    best = (0.0, float("inf"))
    for _ in range(ROUNDS):
        asked, told, answered = here(), there(), here()
        unsure = (answered - asked) / 2
        if not isinstance(told, Refusal) and unsure < best[1]:
            best = (told - (asked + answered) / 2, unsure)
    return best


def _this_program(facts: Facts) -> Iterator[Line]:
    if LOCK.is_file():
        yield from verdicts.pinned(HERE, facts, verdicts.pins(LOCK.read_text()))


def _kept(root: Path) -> Iterator[Line]:
    yield from verdicts.disk(HERE, "runs", str(root.absolute()), room(root.absolute()))


def records(root: Path) -> Iterator[Line]:
    """Whether MLflow can be reached, by this process alone: workers never talk to it."""
    store = Store.find(root)
    if store.file is not None and not store.file.exists():
        yield _made(store.file, next(path for path in store.file.parents if path.exists()))
        return
    try:
        store.open_client()
    except Refusal as error:
        remedy = (
            "MLFLOW_TRACKING_URI names another; training goes on, and 'distvae sync' sends what was"
            " not taken"
        )
        yield Line("bad", "MLflow", HERE, str(error), remedy)
    else:
        yield Line("ok", "MLflow", HERE, f"{without_secrets(store.uri)}: answers")


def _made(file: Path, parent: Path) -> Line:
    if os.access(parent, os.W_OK):
        return Line("ok", "MLflow", HERE, f"{file}: the first run makes it")
    return Line(
        "bad", "MLflow", HERE, f"{file}: cannot be made", f"a user who may write to {parent}"
    )


def _alone(folder: Folder) -> Iterator[Line]:
    """The storage as this machine sees it."""
    trip = round_trip(
        [HERE],
        _by_this(write_marker, folder),
        _by_this(_look, folder),
        _by_this(delete_marker, folder),
    )
    yield from verdicts.storage(trip, {HERE: HERE}, str(folder))
    if not folder.remote and not trip.failed:
        yield from verdicts.disk(HERE, "storage", str(folder), behind(folder.place))


def _look(place: str, _: str) -> list[str]:
    return list_files(place)


def _by_this(what: Callable[[str, str], Any], folder: Folder) -> FileStep[Any]:
    """A machine's part of a round trip, done by this process."""

    def answer(file: str) -> Any:
        try:
            return what(folder.place, file)
        except OSError as error:
            return Refusal(" ".join(str(error).split()))

    return lambda files: {node: answer(file) for node, file in files.items()}


def _together(ray: Any, names: Mapping[str, str], folder: Folder) -> Iterator[Line]:
    """The storage as the machines of a Ray see it."""
    trip = round_trip_on_nodes(names, folder)
    yield from verdicts.storage(trip, names, str(folder))
    if not folder.remote:
        for node, found in run_on_nodes(names, behind, folder.place).items():
            if node not in trip.failed and not isinstance(found, Refusal):
                yield from verdicts.disk(names[node], "storage", str(folder), found)
