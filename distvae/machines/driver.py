"""Training in several worker processes under Ray Train, as the driver sees it.

The run folder is the checkpoint: workers that are restarted, as many as fit then, resume from it.
The driver watches the folder and reports what the workers write there.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distvae.config import Config, Truncation, to_dict
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.node_watch import NodeWatch
from distvae.machines.nodes import node_addresses
from distvae.machines.stop_files import (
    cancel_stop,
    delete_stop_files,
    poll_seconds,
    raise_worker_error,
    request_stop,
)
from distvae.machines.worker import Job, work
from distvae.machines.worker_group import WorkerGroup, describe_shortage, wait_for_workers
from distvae.numerics.lanes import Lanes
from distvae.train.epoch import Epoch
from distvae.train.events import EVENTS, describe_event, read_events, starts_of
from distvae.train.loop import Interrupted
from distvae.train.run import read_epochs, read_info
from distvae.train.run_folder import take_ownership
from distvae.train.team import WorkerLost

if TYPE_CHECKING:
    from distvae.machines.shards import Shards

RESIZE_INTERVAL = 20.0
"""Seconds between two looks at whether more workers fit."""
BLOCK_BYTES = 50 * 2**20
"""Bytes of blocks that a worker may have on their way to shards and back."""
MAX_RESTARTS = 100
"""Restarts of the workers before a training gives up."""
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
    from distvae.machines.cluster_check import check_cluster
    from distvae.machines.ray_session import available_cores, ray_session

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
    job = Job(
        config=to_dict(with_absolute_paths(config)),
        recipe=recipe,
        place=folder.place,
        owner=take_ownership(folder),
        shards=_launch_shards(config, _lanes(config, rows, group), group),
    )
    threads = config.train.threads or 1
    outcome: list[Exception | bool] = []
    training = threading.Thread(
        target=lambda: outcome.append(_fit(job, folder, group, threads)), daemon=True
    )
    node_watch = NodeWatch(
        lambda: node_addresses(ray),
        lambda: describe_shortage(ray.cluster_resources(), group, threads),
    )
    news = RunFolderNews(folder, config.train.epochs)
    training.start()
    try:
        with node_watch:
            for _ in _polls(training, folder, job.owner, stop):
                yield from news.read()
                yield from node_watch.take_messages()
        yield from news.read()
    finally:
        _stop_workers(training, folder, job.owner)
    _raise_outcome(outcome[0], folder, job.owner)


def limit_to_rows(config: Config, rows: int, group: WorkerGroup) -> WorkerGroup:
    """Return the group without workers that would have no rows.

    Raise a Refusal if its fewest workers are too many.
    """
    lanes = _lanes(config, rows, group)
    return replace(group, max_workers=min(group.max_workers, lanes.count))


def _lanes(config: Config, rows: int, group: WorkerGroup) -> Lanes:
    """Return the lanes in which the workers share the rows of a run."""
    from distvae.train.session import split_rows

    return split_rows(config, rows, group.min_workers)


def object_store_bytes(workers: int) -> int:
    """Return the bytes of Ray's object store for so many workers."""
    from distvae.machines.ray_session import OBJECT_STORE_BYTES

    return OBJECT_STORE_BYTES + workers * BLOCK_BYTES


def with_absolute_paths(config: Config) -> Config:
    """Return the configuration for processes whose current folder is another."""
    path = Path(config.data.path)
    if not config.data.path or not path.exists():
        return config
    return config.with_("data", path=str(path.absolute()))


def _launch_shards(config: Config, lanes: Lanes, group: WorkerGroup) -> "Shards | None":
    """Launch a shard for each worker, if the E-step keeps populations."""
    from distvae.machines.shards import launch_shards
    from distvae.models.population import words_of

    estep = config.estep
    if not isinstance(estep, Truncation):
        return None
    count = min(group.max_workers, lanes.count)
    return launch_shards(lanes, count, estep.states, words_of(config.model.latent), estep.mapped)


def _fit(job: Job, folder: Folder, group: WorkerGroup, threads: int) -> Exception | bool:
    """Run the workers to their end; return whether they were asked to stop, or the error."""
    from ray.train import FailureConfig, RunConfig
    from ray.train.torch import TorchTrainer

    from distvae.machines.rendezvous import NoGroupConfig

    ray_folder = folder.subfolder(f"ray-{job.owner}")
    try:
        trainer = TorchTrainer(
            work,
            train_loop_config={"job": job},
            torch_config=NoGroupConfig(),
            scaling_config=scaling_config(group, threads),
            run_config=RunConfig(
                name="workers",
                storage_path=ray_folder.place,
                failure_config=FailureConfig(max_failures=MAX_RESTARTS),
            ),
        )
        return bool(trainer.fit().return_value)
    except Exception as error:  # the thread that waits for this one raises it
        return error
    finally:
        ray_folder.remove()


def scaling_config(group: WorkerGroup, threads: int) -> Any:
    """Return Ray Train's configuration of the number of workers and their resources."""
    from ray.train import ScalingConfig

    gpus = group.gpus or 0.0
    resources = {"CPU": threads, "GPU": gpus} if gpus else {"CPU": threads}
    is_fixed = group.min_workers == group.max_workers
    return ScalingConfig(
        num_workers=group.max_workers if is_fixed else (group.min_workers, group.max_workers),
        resources_per_worker=resources,
        use_gpu=gpus > 0,
        elastic_resize_monitor_interval_s=RESIZE_INTERVAL,
    )


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


class RunFolderNews:
    """The epochs and events in a run folder that were not reported."""

    def __init__(self, folder: Folder, epochs: int) -> None:
        self.folder, self.epochs = folder, epochs
        self.last_epoch = len(read_epochs(folder))
        self.reported_events = 0

    def read(self) -> Iterator[Epoch | str]:
        """Yield what was written since the last call."""
        events = read_events(self.folder)
        for event in events[self.reported_events :]:
            self.reported_events += 1
            starts = starts_of(events[: self.reported_events])
            yield describe_event(event, len(starts))
        for record in read_epochs(self.folder):
            if record["epoch"] > self.last_epoch:
                self.last_epoch = int(record["epoch"])
                workers = events[-1]["workers"]
                restarts = len(starts_of(events)) - 1
                details = {"workers": workers, "restarts": restarts}
                yield Epoch.read(record | details, self.epochs)


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
        raise WorkerLost(f"the workers could not continue: {outcome}") from outcome
    if outcome:
        raise Interrupted
