"""Plan of a sweep: its trials run in processes of Ray."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from distvae.files.storage import Folder
from distvae.machines.cluster import check_cluster
from distvae.machines.driver import object_store_bytes
from distvae.machines.ray_api import RayApi
from distvae.machines.session import ray_session
from distvae.system.processors import available_cores
from distvae.tune.preparation import concurrent_trials, limit_concurrency, threads_per_trial
from distvae.tune.recorder import Recorder
from distvae.tune.resources import TrialResources, wait_for_capacity
from distvae.tune.space import Space


@dataclass(frozen=True)
class Plan:
    """Plan of how the trials of a sweep are run."""

    space: Space
    """The space, with as many trials side by side as fit."""
    resources: TrialResources
    run: Callable[[Recorder], None] | None = None
    """Runs trials until all have ended or were asked to stop; None if all have ended."""


@contextmanager
def plan_on_ray(
    space: Space,
    resources: TrialResources,
    out: Path,
    requested: int | None,
    stop: Callable[[], int],
    keep_tune: bool = False,
) -> Iterator[Plan]:
    """Join or start Ray, and run each trial in a process of its own.

    So many trials side by side were requested, if any number was. The experiment of Ray Tune is
    kept if wanted.
    """
    with _ray(space, resources, stop) as ray:
        device, threads = space.base.train.device, threads_per_trial(space)
        wanted = concurrent_trials(space)
        machines = wait_for_capacity(ray, resources, threads, stop, wanted, device)
        resources = resources.with_gpus(machines, device)
        space = limit_concurrency(space, resources, machines, requested)
        check_cluster(ray, Folder(out), "--out with a path on a shared disk")
        request = resources.tune_request(machines, threads, concurrent_trials(space))

        def run(recorder: Recorder) -> None:
            from distvae.tune.ray_tune import run_trials

            run_trials(recorder, request, keep_tune)

        yield Plan(space, resources, run)


def _ray(
    space: Space, resources: TrialResources, stop: Callable[[], object]
) -> AbstractContextManager[RayApi]:
    """Join the Ray at an address, or start one on this machine with enough cores for all trials."""
    if resources.group:
        cpus = workers = available_cores()
    else:
        cpus, workers = concurrent_trials(space) * threads_per_trial(space), 0
    return ray_session(resources.address, cpus, object_store_bytes(workers), stop)
