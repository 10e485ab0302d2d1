"""One worker of a training under Ray Train: the same loop as in one process, in every worker.

Populations are in shards beside the workers.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from distvae.config import from_dict
from distvae.files.storage import Folder
from distvae.machines.preemption import PreemptionNotices, preempted_nodes
from distvae.machines.stop_files import has_worker_error, stop_requested, write_worker_error
from distvae.train.events import record_event
from distvae.train.loop import Interrupted
from distvae.train.run_folder import check_ownership
from distvae.train.team import ALONE, Team, WorkerLost

if TYPE_CHECKING:
    import torch

    from distvae.config import Config
    from distvae.machines.shards import ShardedStore, Shards


@dataclass(frozen=True)
class Job:
    """The training that a worker takes part in, as Ray sends it to the worker."""

    config: Mapping[str, Any]
    """The configuration as plain values."""
    recipe: str
    place: str
    """The run folder: a path or a URI."""
    owner: str
    """The training that owns the run folder."""
    shards: "Shards | None"
    """The shards with the populations, if the E-step keeps any."""


def work(settings: Mapping[str, Job]) -> bool:
    """Train together with the other workers; return whether they were asked to stop.

    This is the function that Ray Train calls in each worker.
    """
    from distvae.machines.rendezvous import process_group

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

    from distvae.estep.shard import StaleShard
    from distvae.machines.placement import assigned_gpus
    from distvae.train.devices import select_device
    from distvae.train.team import join_team

    folder = Folder(job.place)
    team: Team = ALONE
    try:
        config = from_dict(job.config)
        device = select_device(config.train.device, assigned_gpus())
        team = join_team(device)
        _run_epochs(job, config, folder, team, device)
    except Interrupted:
        return True
    except (WorkerLost, StaleShard, RayError, OSError):  # a restart may go better
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
    """Train as one worker of a team, and report each epoch to Ray."""
    import ray.train

    from distvae.data import open_dataset
    from distvae.machines.shards import ShardedStore
    from distvae.train.bits import agree_on_arithmetic
    from distvae.train.session import RunOptions, build_trainer, train_in_folder

    store = ShardedStore(job.shards, team.rank == 0) if job.shards else None
    dataset = open_dataset(config.data, quiet=True)
    agree_on_arithmetic(config.train, device, team, folder).apply()
    trainer = build_trainer(config, dataset, team, store, device)
    record = partial(_record_event, folder, job.owner, team, store)
    record()
    options = RunOptions(
        recipe=job.recipe,
        resume=True,
        stop=stop_requested(folder, job.owner),
        must_save=PreemptionNotices(team, preempted_nodes, record),
        owner=job.owner,
    )
    for epoch in train_in_folder(trainer, config, dataset, folder, options):
        ray.train.report({"epoch": epoch.epoch})


def _record_event(
    folder: Folder,
    owner: str,
    team: Team,
    store: "ShardedStore | None",
    preempted: Collection[str] = (),
) -> None:
    """Record that the team trains, or that machines will be taken away from it."""
    if team.rank == 0:
        check_ownership(folder, owner)
        record_event(folder, team.size, store.status() if store else [], len(preempted))
