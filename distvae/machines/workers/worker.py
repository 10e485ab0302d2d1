"""One worker of a training under Ray Train: the same loop as in one process, in every worker.

Keepers on other machines have copies of what it needs to go on.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from distvae.config import from_dict
from distvae.files.memory import gigabytes
from distvae.files.storage import Folder
from distvae.machines.session import STALL_SECONDS
from distvae.machines.workers.preemption import PreemptionNotices, preempted_nodes
from distvae.machines.workers.ray_reports import REPORT_SECONDS, RayReports
from distvae.machines.workers.stop_files import (
    has_worker_error,
    say,
    stop_requested,
    write_worker_error,
)
from distvae.train.documents import Event
from distvae.train.events import record_event
from distvae.train.run_folder import check_ownership, has_saved_state
from distvae.train.stopping import Interrupted
from distvae.train.team import ALONE, Team, WorkerLost

if TYPE_CHECKING:
    import torch

    from distvae.config import Config
    from distvae.machines.copies.worker_copies import WorkerCopies
    from distvae.train.loop import Trainer

TOLD_AFTER = 0.2
"""The part of the seconds of a stall after which a worker says that it waits: after a minute."""


@dataclass(frozen=True)
class Job:
    """The training that a worker takes part in, as Ray sends it to the worker."""

    config: Mapping[str, object]
    """The configuration as plain values."""
    recipe: str
    place: str
    """The run folder: a path or a URI."""
    owner: str
    """The training that owns the run folder."""
    keepers: int
    """The number of keepers, beside the second ones: one for each worker."""
    report_seconds: float = REPORT_SECONDS
    """Seconds between two reports to Ray."""
    stall_seconds: float = STALL_SECONDS
    """Seconds after which the workers are restarted if one of them does not answer."""


def work(settings: Mapping[str, Job]) -> bool:
    """Train together with the other workers; return whether they were asked to stop.

    This is the function that Ray Train calls in each worker.
    """
    from distvae.machines.workers.rendezvous import process_group

    job = settings["job"]
    if has_worker_error(Folder(job.place), job.owner):
        return False
    with process_group():
        return _train(job)


def _train(job: Job) -> bool:
    """Train to the end, or until asked to stop; return whether it was the latter.

    Before a worker raises an error that a restart would hit again, it writes the error to the run
    folder. Ray then ends the other workers, and the ones that it starts in their place find the
    error and end.
    """
    from ray.exceptions import RayError
    from torch import AcceleratorError
    from torch.distributed import DistError

    from distvae.machines.copies.keeper import LostCopy
    from distvae.machines.workers.placement import assigned_gpus
    from distvae.machines.workers.watched_team import WatchedTeam
    from distvae.train.cost import memory_refused
    from distvae.train.devices import select_device
    from distvae.train.team import join_team

    folder = Folder(job.place)
    message = partial(say, folder, job.owner)
    team: Team = ALONE
    try:
        config = from_dict(job.config)
        device = select_device(config.train.device, assigned_gpus())
        team = join_team(device)
        if team.size > 1:
            team = WatchedTeam(team, job.stall_seconds * TOLD_AFTER, message)
        with memory_refused(config, job.recipe):
            _run_epochs(job, config, folder, team, device)
    except Interrupted:
        return True
    except (WorkerLost, LostCopy, RayError, OSError, AcceleratorError, DistError):
        raise  # a restart may go better
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
    from distvae.machines.copies.keepers import KeeperRoll
    from distvae.machines.copies.worker_copies import WorkerCopies
    from distvae.train.bits import agree_on_arithmetic
    from distvae.train.cost import COPIES_OF_A_WORKER
    from distvae.train.session import RunOptions, build_trainer, train_in_folder

    message = partial(say, folder, job.owner)
    dataset = open_dataset(config.data, quiet=True)
    agree_on_arithmetic(config.train, device, team, folder).apply()
    copies = WorkerCopies((), team, KeeperRoll(job.owner), job.keepers, message)
    resumes = copies.find() or has_saved_state(folder)
    trainer = build_trainer(config, dataset, team, device, COPIES_OF_A_WORKER, resumes)
    record = partial(_record_event, folder, job.owner, copies, trainer)

    def ask() -> frozenset[str]:
        """Look for new keepers now and then, when all workers ask for notices."""
        if moved := copies.look_for_keepers():
            record(moved=moved)
        return preempted_nodes()

    options = RunOptions(
        recipe=job.recipe,
        resume=True,
        stop=stop_requested(folder, job.owner),
        must_save=PreemptionNotices(team, ask, record),
        owner=job.owner,
        copies=copies,
        begun=lambda _: record(),
    )
    if team.rank == 0:
        _say_if_large(trainer, message)
    reports = RayReports(team, lambda epoch: ray.train.report({"epoch": epoch}), job.report_seconds)
    for epoch in train_in_folder(trainer, config, dataset, folder, options):
        reports.epoch_ended(epoch.epoch)
    reports.training_ended(trainer.position.epoch)


def _say_if_large(trainer: "Trainer", message: Callable[[str], object]) -> None:
    """Say if Ray's object store has no room for the parameters and moments that copies hold."""
    import ray

    from distvae.machines.copies.worker_copies import WITH_TENSORS
    from distvae.train.weights import weights

    state = weights(trainer.model, trainer.estep) | trainer.adam.state()
    needed = WITH_TENSORS * sum(value.nbytes for value in state.values())
    room = ray.cluster_resources().get("object_store_memory", math.inf)
    if needed > room:
        message(
            f"copies of the parameters need {gigabytes(needed)} of Ray's object store, which has"
            f" {gigabytes(int(room))}: Ray writes them to the disk first, which slows training down"
        )


def _record_event(
    folder: Folder,
    owner: str,
    copies: "WorkerCopies",
    trainer: "Trainer",
    preempted: Collection[str] = (),
    moved: int = 0,
) -> None:
    """Record that the team trains, that machines will be taken away, or that copies have moved."""
    team, position = trainer.team, trainer.position
    extents = team.gather(copies.extent())
    if team.rank == 0:
        check_ownership(folder, owner)
        event: Event = {
            "epoch": position.epoch,
            "batch": position.batch,
            "workers": team.size,
            "leaving": len(preempted),
            "time": time.time(),
            "rows": [rows for _, _, rows, _, _ in extents],
            "bytes": [8 * rows * states * words for _, _, rows, states, words in extents],
            "machines": copies.machines,
            "copies": [own[0] if own else None for own in copies.kept_on],
            "second_copies": [own[1] if len(own) > 1 else None for own in copies.kept_on],
            "moved": moved,
        }
        record_event(folder, event)
