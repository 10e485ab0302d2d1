"""Training in several worker processes under Ray Train, as the driver sees it.

The run folder is the checkpoint: workers that are restarted, as many as fit then, resume from it.
The driver watches the folder and reports what the workers write there.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from distvae.config import Config, Truncation, to_dict
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.cluster.capacity import machine_resources
from distvae.machines.cluster.node_watch import NodeWatch
from distvae.machines.cluster.nodes import live_machines
from distvae.machines.cluster.pings import Pings
from distvae.machines.copies.keeper_moves import KeeperMoves
from distvae.machines.ray_api import RayApi
from distvae.machines.workers.news import RunFolderNews
from distvae.machines.workers.outlook import TrainingOutlook
from distvae.machines.workers.ray_reports import report_seconds, stall_seconds
from distvae.machines.workers.ray_train import remove_ray_folders, run_workers
from distvae.machines.workers.stop_files import (
    WorkerMessages,
    cancel_stop,
    delete_stop_files,
    poll_seconds,
    raise_worker_error,
    request_stop,
)
from distvae.machines.workers.worker import Job
from distvae.machines.workers.worker_group import WorkerGroup, describe_shortage, wait_for_workers
from distvae.numerics.lanes import Lanes
from distvae.train.epoch import Epoch
from distvae.train.events import EVENTS, read_events
from distvae.train.run import read_info
from distvae.train.run_folder import take_ownership
from distvae.train.stopping import Interrupted
from distvae.train.team import WorkerLost

BLOCK_BYTES = 50 * 2**20
"""Bytes that a worker may have on their way to its keeper."""
STOP_SECONDS = 60.0
"""Seconds in which workers stop that are asked to."""


def train_with_workers(
    config: Config,
    recipe: str,
    folder: Folder,
    group: WorkerGroup,
    stop: Callable[[], object],
    open_folder: Callable[[], object],
) -> Iterator[Epoch | str]:
    """Train into a folder; yield epochs, and messages about the workers.

    `open_folder` is called once Ray has room for the workers, so that a refusal before that leaves
    nothing in the folder.
    """
    from distvae.machines.cluster.cluster_check import check_cluster
    from distvae.machines.session import ray_session
    from distvae.system.processors import available_cores

    memory = object_store_bytes(group.max_workers)
    with ray_session(group.address, available_cores(), memory, stop) as ray:
        group = yield from wait_for_workers(ray, group, config.train, stop)
        check_cluster(ray, folder)
        open_folder()
        yield from lead_workers(config, recipe, folder, group, stop)


def lead_workers(
    config: Config, recipe: str, folder: Folder, group: WorkerGroup, stop: Callable[[], object]
) -> Iterator[Epoch | str]:
    """Train under the Ray that this process is connected to; yield epochs and messages.

    Closing the generator stops the workers.
    """
    import ray

    rows = read_info(folder)["rows"]["train"]
    group = limit_to_rows(config, rows, group)
    folder.delete(EVENTS)
    delete_stop_files(folder)
    job = _job(config, recipe, folder, group)
    remove_ray_folders(folder)
    moves = keeper_moves(ray, config, folder, job.owner, group)
    threads = config.train.threads or 1
    outcome: list[Exception | bool] = []
    training = threading.Thread(
        target=lambda: outcome.append(run_workers(job, folder, group, threads)), daemon=True
    )
    news = RunFolderNews(folder, config.train.epochs)
    messages = WorkerMessages(folder, job.owner)
    training.start()
    try:
        with moves, watch_nodes(ray, folder, group, threads) as node_watch:
            for _ in _polls(training, folder, job.owner, stop):
                yield from news.read()
                yield from messages.read()
                yield from node_watch.take_messages()
        yield from news.read()
    finally:
        _stop_workers(training, folder, job.owner)
    messages.delete()
    _raise_outcome(outcome[0], folder, job.owner)


def _job(config: Config, recipe: str, folder: Folder, group: WorkerGroup) -> Job:
    """Take ownership of the folder, and return what the workers do there."""
    return Job(
        config=to_dict(with_absolute_paths(config)),
        recipe=recipe,
        place=folder.place,
        owner=take_ownership(folder),
        keepers=group.max_workers,
        report_seconds=report_seconds(),
        stall_seconds=stall_seconds(),
    )


def watch_nodes(ray: RayApi, folder: Folder, group: WorkerGroup, threads: int) -> NodeWatch:
    """Return a watch over the machines that a training may use."""
    is_private = group.address is None  # a Ray of this machine alone, which cannot fall silent
    outlook = TrainingOutlook(
        group,
        threads,
        events=lambda: read_events(folder),
        shortage=lambda: describe_shortage(machine_resources(ray), group, threads),
    )
    return NodeWatch(lambda: live_machines(ray), outlook, None if is_private else Pings())


def limit_to_rows(config: Config, rows: int, group: WorkerGroup) -> WorkerGroup:
    """Return the group without workers that would have no rows.

    Raise a Refusal if its fewest workers are too many.
    """
    lanes = _lanes(config, rows, group)
    return replace(group, max_workers=min(group.max_workers, lanes.count, rows))


def _lanes(config: Config, rows: int, group: WorkerGroup) -> Lanes:
    """Return the lanes in which the workers share the rows of a run."""
    from distvae.train.batches import split_rows

    return split_rows(config, rows, group.min_workers)


def object_store_bytes(workers: int) -> int:
    """Return the bytes of Ray's object store for so many workers."""
    from distvae.machines.session import OBJECT_STORE_BYTES

    return OBJECT_STORE_BYTES + workers * BLOCK_BYTES


def with_absolute_paths(config: Config) -> Config:
    """Return the configuration for processes whose current folder is another."""
    path = Path(config.data.path)
    if not config.data.path or not path.exists():
        return config
    return config.with_("data", path=str(path.absolute()))


def keeper_moves(
    ray: RayApi, config: Config, folder: Folder, owner: str, group: WorkerGroup
) -> KeeperMoves:
    """Start a keeper for each worker; return what moves them."""
    mapped = config.estep.mapped if isinstance(config.estep, Truncation) else None
    moves = KeeperMoves(ray, owner, mapped, lambda: read_events(folder))
    moves.launch(group.max_workers)
    return moves


def _polls(
    training: threading.Thread, folder: Folder, owner: str, stop: Callable[[], object]
) -> Iterator[None]:
    """Yield now and then while the workers train; pass on the request to stop, once."""
    requested = False
    while training.is_alive():
        if stop() and not requested:
            request_stop(folder, owner)
            requested = True
        yield
        training.join(poll_seconds(folder))


def _stop_workers(training: threading.Thread, folder: Folder, owner: str) -> None:
    """Stop workers that still train, and wait a while.

    No error here may hide the one that ended the training.
    """
    if not training.is_alive():
        return
    with suppress(OSError, Refusal):
        request_stop(folder, owner)
        training.join(STOP_SECONDS)
        if not training.is_alive():
            cancel_stop(folder, owner)


def _raise_outcome(outcome: Exception | bool, folder: Folder, owner: str) -> None:
    """Raise the error that ended the workers, or Interrupted if they were asked to stop."""
    cancel_stop(folder, owner)
    raise_worker_error(folder, owner)
    if isinstance(outcome, Exception):
        raise WorkerLost(_why_workers_ended(outcome)) from outcome
    if outcome:
        raise Interrupted


def _why_workers_ended(error: Exception) -> str:
    """Return a sentence about the error with which Ray Train gave up."""
    from ray.train import WorkerGroupError

    if not isinstance(error, WorkerGroupError):
        return f"the workers could not continue: {error}"
    reason = str(error).strip().splitlines()[-1]  # below Ray's traceback
    return (
        "the workers were lost again and again; if the system killed them because memory ran out"
        f" (see dmesg), use fewer workers or a smaller train.batch. Ray says: {reason}"
    )
