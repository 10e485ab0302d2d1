"""The workers of a training as Ray Train runs them: it starts them, and restarts those it loses."""

import sys
from typing import TYPE_CHECKING

from distvae.files.storage import Folder
from distvae.machines.workers.worker import Job, work
from distvae.machines.workers.worker_group import WorkerGroup
from distvae.train.events import read_events

if TYPE_CHECKING:
    from ray.train import ScalingConfig

RESIZE_INTERVAL = 20.0
"""Seconds between two looks at whether more workers fit."""
RAY_FOLDER = "ray-"
"""Begins the name of Ray Train's own folder, which ends with the owner of the training."""
RESTARTS = 5
"""Restarts of the workers without progress before a training gives up."""


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
            position = last_position(folder)
            if position == begun_at:
                lost: Exception = error
                return lost
            begun_at = position
        except Exception as other:  # the thread that waits for this one raises it
            return other


def _fit(job: Job, folder: Folder, group: WorkerGroup, threads: int) -> bool:
    """Have Ray Train run the workers; return whether they were asked to stop."""
    from ray.train import FailureConfig, RunConfig
    from ray.train.torch import TorchTrainer

    from distvae.machines.workers.rendezvous import NoGroupConfig

    ray_folder = folder.subfolder(RAY_FOLDER + job.owner)
    try:
        trainer = TorchTrainer(
            work,
            train_loop_config={"job": job},
            torch_config=NoGroupConfig(),
            scaling_config=scaling_config(group, threads),
            run_config=RunConfig(
                name="workers",
                storage_path=ray_folder.place,
                failure_config=FailureConfig(max_failures=RESTARTS),
            ),
        )
        return bool(trainer.fit().return_value)
    finally:
        _remove(ray_folder)


def last_position(folder: Folder) -> tuple[int, int] | None:
    """Return the epoch and the batch at which workers last began, if they did."""
    events = read_events(folder)
    return (int(events[-1]["epoch"]), int(events[-1]["batch"])) if events else None


def remove_ray_folders(folder: Folder) -> None:
    """Remove the folders of Ray Train whose driver was killed before it could."""
    for name in folder.list_subfolders():
        if name.startswith(RAY_FOLDER):
            _remove(folder.subfolder(name))


def _remove(ray_folder: Folder) -> None:
    """Remove Ray Train's folder, or say that it stays; the outcome of the training counts."""
    try:
        ray_folder.remove()
    except OSError as error:  # such as one of NFS, while a worker that ends has a file open
        message = f"distvae: {ray_folder}: could not be removed ({error}); it is no longer needed"
        print(message, file=sys.stderr, flush=True)


def scaling_config(group: WorkerGroup, threads: int) -> "ScalingConfig":
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
