"""One worker of a training under Ray Train: the same loop as in one process, in every worker.

The workers stay in step: all workers report to Ray after the same epoch, and all send their
snapshots after the same block of rows. A worker and the driver reach each other by files in the run
folder.
"""

import json
import math
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from distvae.config import from_dict
from distvae.config.schema import NonNegative, check_value
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.session import STALL_SECONDS, STALL_VARIABLE
from distvae.machines.shards import COPY_SECONDS, Shards, plan_homes, store_of
from distvae.train.loop import Diverged, Epoch, Interrupted
from distvae.train.run_folder import (
    EVENTS,
    Event,
    TakenOver,
    check_ownership,
    has_saved_state,
    read_events,
)
from distvae.train.team import ALONE, TIMEOUT, Team, WorkerLost, join_team, store_at

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from distvae.config import Config
    from distvae.train.loop import Trainer

STOP_FILE = "stop-{}"
"""A file that asks the workers of an owner to stop after their batch."""
WORKER_ERROR_FILE = "refused-{}.json"
"""The error of a worker that would occur again after a restart."""
MESSAGES_FILE = "messages-{}.txt"
"""Lines that workers of an owner tell the user."""
POLL_LOCAL, POLL_REMOTE = 0.3, 2.0
"""Seconds between two looks at a folder on a disk of this machine, or elsewhere."""
PREFIXES = ("stop-", "refused-", "messages-", "failures-")


def delete_stop_files(folder: Folder) -> None:
    """Delete the files that earlier owners left."""
    for name in folder.list_files():
        if name.lstrip(".").startswith(PREFIXES):
            folder.delete(name)


def request_stop(folder: Folder, owner: str) -> None:
    """Ask the workers of an owner to stop; workers of other owners go on."""
    folder.write(STOP_FILE.format(owner), b"")


def stop_requested(folder: Folder, owner: str) -> Callable[[], bool]:
    """Return a function that tells whether a stop was requested, looking now and then."""
    found, next_look = False, 0.0

    def look() -> bool:
        nonlocal found, next_look
        if not found and time.monotonic() >= next_look:
            found = folder.has(STOP_FILE.format(owner))
            next_look = time.monotonic() + poll_seconds(folder)
        return found

    return look


def poll_seconds(folder: Folder) -> float:
    """Return the seconds between two looks at a folder."""
    return POLL_REMOTE if folder.remote else POLL_LOCAL


def write_worker_error(folder: Folder, owner: str, error: Exception) -> None:
    """Write an error for the driver, with the traceback of one that nobody foresaw."""
    text = str(error)
    if not isinstance(error, (Refusal, Diverged, WorkerLost)):
        text = "".join(traceback.format_exception(error))
    record = json.dumps({"kind": type(error).__name__, "text": text})
    folder.write(WORKER_ERROR_FILE.format(owner), record.encode())


def has_failed_again(folder: Folder, owner: str, error: Exception) -> bool:
    """Record an error; return whether it has ended the workers `FAILURES` times from one point."""
    name, events = FAILURES_FILE.format(owner), read_events(folder)
    begun = (events[-1]["epoch"], events[-1]["batch"]) if events else None
    failure = json.dumps([begun, str(error)])
    folder.append(name, f"{failure}\n".encode())
    return folder.read(name).decode().splitlines()[-FAILURES:] == [failure] * FAILURES


def raise_worker_error(folder: Folder, owner: str) -> None:
    """Raise the error that a worker wrote, if there is one, and delete its file."""
    name = WORKER_ERROR_FILE.format(owner)
    if not folder.has(name):
        return
    record = json.loads(folder.read(name))
    folder.delete(name)
    foreseen: tuple[type[Exception], ...] = (Refusal, TakenOver, Diverged, WorkerLost)
    for kind in foreseen:
        if kind.__name__ == record["kind"]:
            raise kind(record["text"])
    raise RuntimeError(record["text"])


def say(folder: Folder, owner: str, text: str) -> None:
    """Tell the user a line."""
    folder.append(MESSAGES_FILE.format(owner), f"{text}\n".encode())


T = TypeVar("T")
REPORT_SECONDS = 5.0
"""Seconds between two reports to Ray, which takes a report in only when it looks at its workers.

A report after each short epoch would take longer than the epoch.
"""
REPORTED = ("epoch", "train_objective", "val_objective", "rows_per_second", "seconds")
"""The metrics of an epoch in a report."""
REPORT_VARIABLE = "DISTVAE_REPORT_SECONDS"
"""An environment variable with other seconds; 0: a report after each epoch."""
COPY_VARIABLE = "DISTVAE_COPY_SECONDS"
"""An environment variable with other seconds from one snapshot to the next."""
TOLD_AFTER = 0.2
"""The part of the seconds of a stall after which a worker says that it waits: after a minute."""
STAGGER = 0.3
"""Seconds by which each worker tells later than the worker before it: all append to one file."""
FAILURES_FILE = "failures-{}.jsonl"
"""The errors of an owner's workers that a restart may avoid, and where training began before."""
FAILURES = 3
"""The number of equal errors without progress after which a training ends."""


@dataclass(frozen=True)
class Job:
    """The training that a worker takes part in, as Ray sends it to the worker."""

    config: Mapping[str, object]
    """The configuration as plain values."""
    recipe: str
    place: str = field(repr=False)  # it may have a password, and Ray's dashboard shows a job
    """The run folder: a path or a URI."""
    owner: str
    """The training that owns the run folder."""
    report_seconds: float = REPORT_SECONDS
    copy_seconds: float = COPY_SECONDS
    stall_seconds: float = STALL_SECONDS
    """Seconds after which the workers are restarted if one of them does not answer."""

    @classmethod
    def of(cls, config: Mapping[str, object], recipe: str, folder: Folder, owner: str) -> "Job":
        """Return a job with the seconds that this process finds in environment variables."""
        seconds = [
            float(check_value(name, NonNegative, os.environ.get(name, usual)))
            for name, usual in (
                (REPORT_VARIABLE, REPORT_SECONDS),
                (COPY_VARIABLE, COPY_SECONDS),
                (STALL_VARIABLE, STALL_SECONDS),
            )
        ]
        return cls(config, recipe, folder.place, owner, *seconds)


def work(settings: Mapping[str, Job]) -> bool:
    """Train together with the other workers; return whether they were asked to stop.

    This is the function that Ray Train calls in each worker.
    """
    job = settings["job"]
    if Folder(job.place).has(WORKER_ERROR_FILE.format(job.owner)):
        return False
    with process_group():
        return _train(job)


@contextmanager
def process_group() -> Iterator[None]:
    """Make a process group of the workers of this training, and leave it at the end.

    The workers meet at a store of the first worker. The store of Ray's own TorchConfig would listen
    on every address of the machine, where anybody may set and delete its keys. A single worker
    needs no group.
    """
    import ray.train
    import torch.distributed as dist
    from ray.train.collective import broadcast_from_rank_zero

    from distvae.system import HOST, listen_on_interface_of, stay_on_loopback

    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    if size == 1:
        yield
        return
    address = ray.util.get_node_ip_address()
    if address == HOST:  # Ray runs on this machine alone
        stay_on_loopback()
    else:
        listen_on_interface_of(address)
    os.environ["LOCAL_RANK"] = str(context.get_local_rank())
    listener = socket.create_server((address, 0)) if rank == 0 else None
    host, port = broadcast_from_rank_zero(listener.getsockname()[:2] if listener else None)
    store = store_at(host, port, size, listener)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _train(job: Job) -> bool:
    """Train to the end, or until asked to stop; return whether the workers were asked to.

    Before a worker raises an error that a restart would hit again, it writes the error to the run
    folder. Ray then ends the other workers, and the workers that it starts in their place find the
    error and end.
    """
    from ray.exceptions import RayError
    from torch import AcceleratorError
    from torch.distributed import DistError

    from distvae.train.cost import memory_refused
    from distvae.train.team import select_device

    folder = Folder(job.place)
    message = partial(say, folder, job.owner)
    team: Team = ALONE
    try:
        config = from_dict(job.config)
        device = select_device(config.train.device, assigned_gpus())
        team = join_team(device)
        if team.size > 1:
            team = WatchedTeam(
                team, job.stall_seconds * TOLD_AFTER, lambda wait: message(json.dumps(asdict(wait)))
            )
        with memory_refused(config, job.recipe):
            _run_epochs(job, config, folder, team, device)
    except Interrupted:
        return True
    except (WorkerLost, RayError):
        raise  # a restart may go better
    except (OSError, AcceleratorError, DistError) as error:
        if has_failed_again(folder, job.owner, error):
            text = f"worker {team.rank} failed {FAILURES} times at the same place: {error}"
            write_worker_error(folder, job.owner, WorkerLost(text))
        raise
    except Exception as error:
        write_worker_error(folder, job.owner, error)
        raise
    finally:
        team.close()
    return False


def _run_epochs(
    job: Job, config: "Config", folder: Folder, team: Team, device: "torch.device"
) -> None:
    """Train as one worker of a team, and report to Ray now and then."""
    import ray.train

    from distvae.data import open_dataset
    from distvae.engines.device import allocated_memory
    from distvae.train.cost import COPIES_OF_A_WORKER
    from distvae.train.session import (
        RunOptions,
        agree_on_arithmetic,
        build_trainer,
        train_in_folder,
    )

    dataset = open_dataset(config.data, quiet=True)
    agree_on_arithmetic(config.train, device, team, folder).apply()
    workers, homes, names = _plan_machines(team)
    message = partial(say, folder, job.owner)
    shards = Shards(team, job.owner, homes[team.rank], job.copy_seconds, message)
    resumes = shards.find() or has_saved_state(folder)
    trainer = build_trainer(config, dataset, team, device, COPIES_OF_A_WORKER, resumes)

    def record(trainer: "Trainer") -> None:
        """Record that the team trains."""
        store, position = store_of(trainer), trainer.position
        shapes = team.gather(store.shape if store else (0, 0, 0))
        event: Event = {
            "epoch": position.epoch,
            "batch": position.batch,
            "workers": team.size,
            "time": time.time(),
            "rows": [rows for rows, _, _ in shapes],
            "bytes": [8 * math.prod(shape) for shape in shapes],
            "machines": [names[node] for node in workers],
            "copies": [names[nodes[0]] for nodes in homes],
        }
        if team.rank == 0:
            check_ownership(folder, job.owner)
            folder.append(EVENTS, json.dumps(event).encode() + b"\n")

    options = RunOptions(
        recipe=job.recipe,
        resume=True,
        stop=stop_requested(folder, job.owner),
        owner=job.owner,
        recall=shards.restore,
        begun=record,
        between=shards.send_if_due,
    )

    def report(epoch: Epoch) -> None:
        figures = {name: epoch.metrics()[name] for name in REPORTED if name in epoch.metrics()}
        figures["waited_seconds"] = team.waited if isinstance(team, WatchedTeam) else 0.0
        figures["device_bytes"] = float(allocated_memory(device))
        ray.train.report(figures)

    reports = RayReports(team, report, job.report_seconds)
    for epoch in train_in_folder(trainer, config, dataset, folder, options):
        reports.epoch_ended(epoch)
    reports.training_ended()


def _plan_machines(team: Team) -> tuple[list[str], list[list[str]], dict[str, str]]:
    """Return the machine of each worker and the machines of its snapshots, by Ray's ids, and the
    names of all machines: an address and the beginning of Ray's id, which tells several Rays of one
    computer apart.
    """
    import ray

    from distvae.machines.cluster import live_machines

    workers = team.gather(ray.get_runtime_context().get_node_id())
    machines = live_machines(ray) if team.rank == 0 else {}
    with_processors = [node for node, machine in machines.items() if machine.cpus]
    plan = (
        plan_homes(workers, with_processors),
        {node: f"{machine.address}-{node[:8]}" for node, machine in machines.items()},
    )
    homes, names = team.gather(plan)[0]
    return workers, homes, names


def assigned_gpus() -> tuple[int, ...]:
    """Return the positions of the assigned GPUs among the GPUs that CUDA shows this process."""
    import ray

    return gpu_positions(ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def gpu_positions(ids: Sequence[int | str], visible: str | None) -> tuple[int, ...]:
    """Return the positions of GPUs in CUDA_VISIBLE_DEVICES.

    Without that variable CUDA shows all GPUs, so each position is the GPU's number.
    """
    if visible is None:
        return tuple(int(gpu) for gpu in ids)
    names = visible.split(",")
    hidden = [str(gpu) for gpu in ids if str(gpu) not in names]
    if hidden:
        raise Refusal(
            f"CUDA_VISIBLE_DEVICES: '{visible}' hides GPU {hidden[0]}, which Ray assigned; leave it"
            " to Ray"
        )
    return tuple(names.index(str(gpu)) for gpu in ids)


class RayReports:
    """The reports of a team that training goes on. All workers report after the same epochs,
    because Ray makes them meet.
    """

    def __init__(
        self,
        team: Team,
        report: Callable[[Epoch], object],
        interval: float = REPORT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.team, self.report, self.clock = team, report, clock
        self.interval = interval
        self.reported = clock()
        """When the last report was sent."""
        self.unreported: Epoch | None = None
        """The last epoch, if it was not reported."""

    def epoch_ended(self, epoch: Epoch) -> None:
        """Report an epoch if the last report is long ago, by the first worker's clock."""
        self.unreported = epoch
        if self.team.gather(self.clock() - self.reported >= self.interval)[0]:
            self._send(epoch)

    def training_ended(self) -> None:
        """Report the last epoch, if that was not done."""
        if self.unreported is not None:
            self._send(self.unreported)

    def _send(self, epoch: Epoch) -> None:
        self.report(epoch)
        self.reported, self.unreported = self.clock(), None


@dataclass(frozen=True)
class Wait:
    """A long wait of a worker for other workers."""

    rank: int
    workers: int
    seconds: float
    call: int
    """The number of the call of the team in which the worker waits, equal on all workers."""
    phase: str
    """What the workers do in the call."""


class WatchedTeam:
    """A team that tells when its worker has waited long for the other workers.

    A thread looks once a second how long the present call has lasted.
    """

    def __init__(self, team: Team, seconds: float, tell: Callable[[Wait], object]) -> None:
        self.rank, self.size, self.team, self.tell = team.rank, team.size, team, tell
        self.seconds = seconds
        """The seconds after which a wait is told, once."""
        self.began, self.phase = math.inf, ""
        """When the call began in which this worker waits, and what the workers do in it."""
        self.call, self.waited = 0, 0.0
        """The number of calls, and the seconds that they took."""
        self.closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def _waiting(self, phase: str) -> Iterator[None]:
        self.call += 1
        self.phase, self.began = phase, time.monotonic()
        try:
            yield
        finally:
            self.waited += time.monotonic() - self.began
            self.began = math.inf

    def sum(self, tensors: "Sequence[Tensor]") -> None:
        """Replace tensors, which require no gradient, by their sums over all workers."""
        with self._waiting("a sum"):
            self.team.sum(tensors)

    def barrier(self) -> None:
        """Wait until all workers have arrived."""
        with self._waiting("a barrier"):
            self.team.barrier()

    def gather(self, value: T, /) -> list[T]:
        """Return the small values of all workers, in order of rank."""
        with self._waiting("an exchange of values"):
            return self.team.gather(value)

    def close(self) -> None:
        """Leave the team."""
        self.closed.set()
        self.team.close()

    def _watch(self) -> None:
        told = math.inf
        while not self.closed.wait(1.0):
            began, wait = self.began, (self.call, self.phase)
            waited = time.monotonic() - began
            if began != told and waited >= self.seconds + STAGGER * self.rank:
                told = began
                self.tell(Wait(self.rank, self.size, waited, *wait))
