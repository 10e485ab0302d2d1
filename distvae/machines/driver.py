"""Training in several worker processes under Ray Train, as the driver sees it.

The run folder is the checkpoint: workers that are restarted resume from the folder or from later
snapshots. The driver starts the actors that hold the snapshots, watches the machines and the
folder, and reports the epochs and events that the workers write there.
"""

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.config import Config, Truncation, to_dict
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.cluster import (
    Machine,
    WorkerGroup,
    count_fitting,
    describe_shortage,
    live_machines,
    machine_resources,
    wait_for_workers,
)
from distvae.machines.session import ActorHandle
from distvae.machines.shards import start_actor
from distvae.machines.worker import (
    FAILURES_FILE,
    MESSAGES_FILE,
    STAGGER,
    STOP_FILE,
    Job,
    Wait,
    delete_stop_files,
    poll_seconds,
    raise_worker_error,
    request_stop,
    work,
)
from distvae.numerics.metrics import counted, listed
from distvae.train.loop import Epoch, Interrupted
from distvae.train.run_folder import (
    EPOCHS,
    EVENTS,
    Event,
    describe_event,
    read_epochs,
    read_events,
    read_info,
    take_ownership,
)
from distvae.train.team import WorkerLost

if TYPE_CHECKING:
    from ray.train import ScalingConfig

LOGS, LOG_BYTES = "logs", 2**20
"""The subfolder of a run folder with logs of workers, and the bytes of each that are kept."""
TELL_SECONDS = 3.0
"""Seconds in which workers that wait tell, after the first of them."""
WATCH_INTERVAL = 2.0
"""Seconds between two looks at Ray's list of machines."""
Machines = Mapping[str, Machine]
"""Machines by id."""
BLOCK_BYTES = 50 * 2**20
"""Bytes of a worker's snapshot that may be on their way."""
STOP_SECONDS = 60.0
"""Seconds in which workers stop that are asked to."""
RESIZE_INTERVAL = 20.0
"""Seconds between two looks at whether more workers fit."""
RAY_FOLDER = "ray-"
"""Begins the name of Ray Train's own folder, which ends with the owner of the training."""
RESTARTS = 5
"""Restarts of the workers without progress before a training gives up."""


@dataclass
class NodeWatch:
    """A watch that reports lost machines, new machines and missing resources, and how training goes
    on. It runs in a thread, because Ray does not answer for a minute after its head was lost.
    """

    group: WorkerGroup
    threads: int
    list_machines: Callable[[], Machines]
    events: Callable[[], Sequence[Event]]
    """Returns the events of the run so far."""
    shortage: Callable[[], str]
    """Returns the resources that the workers lack; '' if the workers fit."""

    def __post_init__(self) -> None:
        self.machines, self.missing = dict(self.list_machines()), ""
        self.unread: deque[str] = deque()
        self.closed = threading.Event()

    def __enter__(self) -> "NodeWatch":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()

    def _watch(self) -> None:
        while not self.closed.wait(WATCH_INTERVAL):
            # If Ray's head does not answer, the thread that waits for the workers notices.
            with suppress(Exception):
                self.unread.extend(self.describe_changes())

    def take_messages(self) -> Iterator[str]:
        """Yield the sentences that were not read yet."""
        while self.unread:
            yield self.unread.popleft()

    def describe_changes(self) -> list[str]:
        """Return a sentence for each change since the last call."""
        machines, missing = dict(self.list_machines()), self.shortage()
        changes = []
        for name, machine in self.machines.items():
            if name not in machines:
                effect = self.after_loss(name, machines)
                changes.append(f"machine {machine.address} is lost{effect}")
        for name, machine in machines.items():
            if name not in self.machines:
                changes.append(f"machine {machine.address} has joined")
        if missing and missing != self.missing:
            changes.append(f"{missing}; training continues when they fit")
        self.machines, self.missing = machines, missing
        return changes

    def after_loss(self, name: str, left: Machines) -> str:
        """Return how training goes on without a machine, with the machines that are left."""
        events = self.events()
        if not events:
            return ""
        if not any(is_named(name, machine) for machine in events[-1]["machines"]):
            has_copies = any(is_named(name, machine) for machine in events[-1]["copies"])
            return "; workers have other snapshots on their own machines" if has_copies else ""
        gpus = self.group.gpus or 0.0
        free = [{"CPU": machine.cpus, "GPU": machine.gpus} for machine in left.values()]
        workers = count_fitting(free, {"CPU": float(self.threads), "GPU": gpus})
        workers = min(workers, self.group.max_workers)
        if workers >= self.group.min_workers:
            return f"; training goes on with {counted(workers, 'worker')}"
        missing = self.group.min_workers - workers
        needed = counted(missing * self.threads, "more CPU")
        if gpus:
            needed += f" and {missing * gpus:g} GPUs"
        verb = "needs" if missing == 1 else "need"
        lacking = f"{counted(missing, 'worker')} {verb}"
        return f"; training waits for machines with {needed}, which {lacking}"


def is_named(node: str, machine: str | None) -> bool:
    """Return whether a name in events is the name of a machine, which is given by Ray's id."""
    return machine is not None and node.startswith(machine.rpartition("-")[2])


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
    from distvae.machines.cluster import check_cluster
    from distvae.machines.session import ray_session
    from distvae.system import available_cores

    memory = object_store_bytes(group.max_workers)
    with ray_session(group.address, available_cores(), memory, stop) as ray:
        group = yield from wait_for_workers(ray, group, config.train, stop)
        check_cluster(ray, folder)
        open_folder()
        try:
            yield from lead_workers(config, recipe, folder, group, stop)
        except (WorkerLost, RuntimeError):
            if group.address is None and (kept := keep_logs(folder)):
                yield f"{counted(kept, 'log file')} of the workers: {folder}/{LOGS}"
            raise


def keep_logs(folder: Folder) -> int:
    """Copy the ends of the logs of a private Ray's workers into a run folder. Return their number.

    Ray deletes its own folder.
    """
    logs, kept = Path(os.environ["RAY_TMPDIR"], "ray", "session_latest", "logs"), 0
    for file in [*logs.glob("worker-*.err"), *logs.glob("worker-*.out"), *logs.glob("train/*")]:
        with suppress(OSError):
            content = file.read_bytes()[-LOG_BYTES:]
            if file.is_file() and content:
                folder.subfolder(LOGS).write(file.name, content)
                kept += 1
    return kept


def lead_workers(
    config: Config, recipe: str, folder: Folder, group: WorkerGroup, stop: Callable[[], object]
) -> Iterator[Epoch | str]:
    """Train under the Ray that this process is connected to; yield epochs and messages.

    Closing the generator stops the workers.
    """
    import ray

    group = limit_to_rows(config, read_info(folder)["rows"]["train"], group)
    folder.delete(EVENTS)
    delete_stop_files(folder)
    owner = take_ownership(folder)
    job = Job.of(to_dict(with_absolute_paths(config)), recipe, folder, owner)
    remove_ray_folders(folder)
    threads = config.train.threads or 1
    outcome: list[Exception | bool] = []
    training = threading.Thread(
        target=lambda: outcome.append(run_workers(job, folder, group, threads)), daemon=True
    )
    news = RunFolderNews(folder, config.train.epochs, owner)
    mapped = config.estep.mapped if isinstance(config.estep, Truncation) else None
    actors: dict[str, ActorHandle] = {}

    def list_machines() -> Machines:
        """Return the machines, and start an actor where workers send snapshots."""
        machines = live_machines(ray)
        if events := read_events(folder):
            named = [*events[-1]["machines"], *events[-1]["copies"]]
            for node in machines.keys() - actors.keys():
                if any(is_named(node, name) for name in named):
                    actors[node] = start_actor(owner, node, mapped)
        return machines

    def shortage() -> str:
        return describe_shortage(machine_resources(ray), group, threads)

    training.start()
    try:
        with NodeWatch(
            group, threads, list_machines, lambda: read_events(folder), shortage
        ) as node_watch:
            requested = False
            while training.is_alive():
                if stop() and not requested:
                    request_stop(folder, owner)
                    requested = True
                yield from news.read()
                yield from node_watch.take_messages()
                training.join(poll_seconds(folder))
        yield from news.read()
    finally:
        _stop_workers(training, folder, owner)
    folder.delete(news.messages)
    folder.delete(FAILURES_FILE.format(owner))
    _raise_outcome(outcome[0], folder, owner)


def limit_to_rows(config: Config, rows: int, group: WorkerGroup) -> WorkerGroup:
    """Return the group without workers that would have no rows.

    Raise a Refusal if its fewest workers are too many.
    """
    from distvae.train.batches import split_rows

    lanes = split_rows(config, rows, group.min_workers)
    return replace(group, max_workers=min(group.max_workers, lanes.count, rows))


def object_store_bytes(workers: int) -> int:
    """Return the bytes of Ray's object store for a number of workers."""
    from distvae.machines.session import OBJECT_STORE_BYTES

    return OBJECT_STORE_BYTES + workers * BLOCK_BYTES


def with_absolute_paths(config: Config) -> Config:
    """Return the configuration for processes whose current folder is another."""
    path = Path(config.data.path)
    if not config.data.path or not path.exists():
        return config
    return config.with_("data", path=str(path.absolute()))


class RunFolderNews:
    """The epochs, events and workers' lines in a run folder that were not reported.

    A file is read again only if its size has changed, and of epochs only the new lines are parsed:
    the driver looks several times a second, on a machine that trains.
    """

    def __init__(self, folder: Folder, epochs: int, owner: str) -> None:
        self.folder, self.epochs = folder, epochs
        self.messages = MESSAGES_FILE.format(owner)
        self.last_epoch = len(read_epochs(folder))
        self.events: list[Event] = []
        self.reported_events = 0
        self.sizes: dict[str, int] = {}
        self.waits: dict[int, list[Wait]] = {}
        """The waits that workers have told and the user was not, by the number of their call."""
        self.first_told = 0.0
        """When the first of these waits was read."""

    def read(self) -> Iterator[Epoch | str]:
        """Yield the epochs, events and lines that were written since the last call."""
        told = self.sizes.get(self.messages, 0)
        if self._has_changed(self.messages):
            new = self.folder.read(self.messages)[told : self.sizes[self.messages]]
            for line in new.decode().splitlines():
                if line.startswith("{"):
                    self._add_wait(Wait(**json.loads(line)))
                else:
                    yield line
        epochs_changed = self._has_changed(EPOCHS)
        if self._has_changed(EVENTS):
            self.events = read_events(self.folder)
        for event in self.events[self.reported_events :]:
            self.reported_events += 1
            self.waits = {}
            yield describe_event(event, self.reported_events)
        yield from self._take_waits()
        if not epochs_changed:
            return
        for record in read_epochs(self.folder, self.last_epoch + 1):
            if record["epoch"] > self.last_epoch:
                self.last_epoch = int(record["epoch"])
                workers, restarts = self.events[-1]["workers"], len(self.events) - 1
                details = {"workers": workers, "restarts": restarts}
                yield Epoch.read(record | details, self.epochs)

    def _add_wait(self, wait: Wait) -> None:
        if not self.waits:
            self.first_told = time.monotonic()
        self.waits.setdefault(wait.call, []).append(wait)

    def _take_waits(self) -> Iterator[str]:
        """Yield one line once all workers that wait have had the time to tell."""
        if not self.waits:
            return
        waits = self.waits[max(self.waits)]
        workers = waits[0].workers
        if time.monotonic() < self.first_told + TELL_SECONDS + STAGGER * workers:
            return
        self.waits = {}
        machines = self.events[-1]["machines"] if self.events else []
        late = sorted(set(range(workers)) - {wait.rank for wait in waits})
        names = [f"worker {rank} ({machines[rank]})" for rank in late if rank < len(machines)]
        who = listed(names) if names else "each other"
        waited = f"{max(wait.seconds for wait in waits):.0f} s"
        waiting = f"{counted(len(waits), 'worker')} {'has' if len(waits) == 1 else 'have'} waited"
        yield f"{waiting} {waited} for {who} in {waits[0].phase}"

    def _has_changed(self, name: str) -> bool:
        """Return whether the size of a file is another than at the last call."""
        former, self.sizes[name] = self.sizes.get(name, 0), self.folder.size(name)
        return self.sizes[name] != former


def run_workers(job: Job, folder: Folder, group: WorkerGroup, threads: int) -> Exception | bool:
    """Run the workers to their end; return whether they were asked to stop, or the error.

    Ray Train restarts workers that are lost. When it gives up, they are begun again if training has
    moved on since.
    """
    from ray.train import WorkerGroupError

    begun_at = None
    while True:
        try:
            return _fit(job, folder, group, threads)
        except WorkerGroupError as error:
            events = read_events(folder)
            position = (events[-1]["epoch"], events[-1]["batch"]) if events else None
            if position == begun_at:
                lost: Exception = error
                return lost
            begun_at = position
        except Exception as other:  # the thread that waits for this one raises it
            return other


def _fit(job: Job, folder: Folder, group: WorkerGroup, threads: int) -> bool:
    """Have Ray Train run the workers; return whether they were asked to stop."""
    from ray.train import FailureConfig, RunConfig
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig, TorchTrainer

    class SharedGpuBackend(Backend):  # type: ignore[misc]
        """A backend that sets up nothing; all workers of a machine see its GPUs."""

        share_cuda_visible_devices = True

    class NoGroupConfig(TorchConfig):  # type: ignore[misc]
        """A configuration that leaves the process group to the workers."""

        @property
        def backend_cls(self) -> type[Backend]:
            return SharedGpuBackend

    ray_folder = folder.subfolder(RAY_FOLDER + job.owner)
    try:
        trainer = TorchTrainer(
            work,
            train_loop_config={"job": job},
            torch_config=NoGroupConfig(),
            scaling_config=scaling_config(group, threads),
            run_config=RunConfig(
                name="workers",
                # without a URI, whose password Ray's dashboard would show
                storage_path=ray_folder.path,
                storage_filesystem=ray_folder.system if ray_folder.remote else None,
                failure_config=FailureConfig(max_failures=RESTARTS),
            ),
        )
        return bool(trainer.fit().return_value)
    finally:
        _remove(ray_folder)


def scaling_config(group: WorkerGroup, threads: int) -> "ScalingConfig":
    """Return Ray Train's configuration of the number of workers and their resources."""
    from ray.train import ScalingConfig

    gpus, is_fixed = group.gpus or 0.0, group.min_workers == group.max_workers
    return ScalingConfig(
        num_workers=group.max_workers if is_fixed else (group.min_workers, group.max_workers),
        resources_per_worker={"CPU": threads, "GPU": gpus} if gpus else {"CPU": threads},
        use_gpu=gpus > 0,
        elastic_resize_monitor_interval_s=RESIZE_INTERVAL,
    )


def remove_ray_folders(folder: Folder) -> None:
    """Remove the folders of Ray Train whose driver was killed before it could."""
    for name in folder.list_subfolders():
        if name.startswith(RAY_FOLDER):
            _remove(folder.subfolder(name))


def _remove(ray_folder: Folder) -> None:
    """Remove Ray Train's folder, or say that it stays; the outcome of the training counts."""
    try:
        ray_folder.remove()
    except OSError as error:  # NFS refuses while a worker that ends has a file open
        message = f"distvae: {ray_folder}: could not be removed ({error}); it is no longer needed"
        print(message, file=sys.stderr, flush=True)


def _stop_workers(training: threading.Thread, folder: Folder, owner: str) -> None:
    """Stop workers that still train, and wait a while.

    No error here may hide the error that ended the training.
    """
    if not training.is_alive():
        return
    with suppress(OSError, Refusal):
        request_stop(folder, owner)
        training.join(STOP_SECONDS)
        if not training.is_alive():
            folder.delete(STOP_FILE.format(owner))


def _raise_outcome(outcome: Exception | bool, folder: Folder, owner: str) -> None:
    """Raise the error that ended the workers, or Interrupted if they were asked to stop."""
    from ray.train import WorkerGroupError

    folder.delete(STOP_FILE.format(owner))
    raise_worker_error(folder, owner)
    if isinstance(outcome, WorkerGroupError):
        reason = str(outcome).strip().splitlines()[-1]  # below Ray's traceback
        raise WorkerLost(
            "the workers were lost again and again; if the system killed them because memory ran"
            f" out (see dmesg), use fewer workers or a smaller train.batch. Ray says: {reason}"
        ) from outcome
    if isinstance(outcome, Exception):
        raise WorkerLost(f"the workers could not continue: {outcome}") from outcome
    if outcome:
        raise Interrupted
