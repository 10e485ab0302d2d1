"""Train in several processes under Ray Train, as the driver sees it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from distvae.config import Config, Truncation, to_dict
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.node_watch import Roll
from distvae.machines.nodes import alive
from distvae.machines.stop_files import LEFT, REFUSED_FILE, STOP_FILE, _poll, request_stop
from distvae.machines.worker import work
from distvae.machines.worker_group import WorkerGroup, missing, wait_for_workers
from distvae.numerics.lanes import Lanes
from distvae.train.epoch import Epoch
from distvae.train.events import EVENTS, describe_event, starts_of
from distvae.train.loop import Diverged, Interrupted
from distvae.train.run import read_epochs, read_info, read_records
from distvae.train.run_folder import TakenOver, take_ownership
from distvae.train.team import WorkerLost

RESIZE = 20.0  # seconds between two looks at whether there is room for more workers
UNDER_WAY = 50 * 2**20  # bytes of blocks that a worker may have on their way to shards and back
FAILURES = 100  # restarts of the workers before a training gives up
PATIENCE = 60.0  # seconds in which workers stop that are asked to


def train_with_workers(
    config: Config,
    recipe: str,
    folder: Folder,
    group: WorkerGroup,
    stop: Callable[[], object],
    begin: Callable[[], object],
) -> Iterator[Epoch | str]:
    """Train into a folder; yield epochs, and sentences about what happens beside them.

    The folder is opened by `begin`, once Ray stands and has room for the workers: what is refused
    leaves nothing there.
    """
    from distvae.machines.cluster_check import check_cluster
    from distvae.machines.ray_session import available_cores, ray_session

    with ray_session(
        group.address, available_cores(), object_store_bytes(group.max_workers), stop
    ) as ray:
        group = yield from wait_for_workers(ray, group, config.train, stop)
        check_cluster(ray, folder)
        begin()
        yield from lead_workers(config, recipe, folder, group, stop)


def lead_workers(
    config: Config, recipe: str, folder: Folder, group: WorkerGroup, stop: Callable[[], object]
) -> Iterator[Epoch | str]:
    """The same under the Ray that this process has joined; workers whom nobody listens to any more
    are stopped.
    """
    import ray

    rows = read_info(folder)["rows"]["train"]
    lanes, group = _lanes(config, rows, group), limit_to_rows(config, rows, group)
    for name in folder.list_files():
        if name == EVENTS or name.startswith(LEFT):
            folder.delete(name)
    shards = _shards(config, lanes, group)
    job = {
        "config": to_dict(with_absolute_paths(config)),
        "recipe": recipe,
        "place": folder.place,
        "shards": shards,
    }
    job["owner"] = owner = take_ownership(folder)
    ended: list[Exception | bool] = []
    threads = config.train.threads or 1
    roll = Roll(lambda: alive(ray.nodes()), lambda: missing(ray, group, threads))
    running = threading.Thread(
        target=lambda: ended.append(_fit(job, folder, group, threads)), daemon=True
    )
    running.start()
    try:
        with roll:
            for news in _watch(folder, owner, config.train.epochs, running, stop):
                yield from roll.news() if news == "" else [news]
    finally:
        _dismiss(running, folder, owner)
    _conclude(ended[0], folder, owner)


def limit_to_rows(config: Config, rows: int, group: WorkerGroup) -> WorkerGroup:
    """Return the group without workers for whom there would be no rows; refuse one whose least
    number is too large.
    """
    return replace(group, max_workers=min(group.max_workers, _lanes(config, rows, group).count))


def _lanes(config: Config, rows: int, group: WorkerGroup) -> Lanes:
    """Return how the rows of a run are shared."""
    from distvae.train.session import split_rows

    return split_rows(config, rows, group.min_workers)


def object_store_bytes(workers: int) -> int:
    """Bytes of Ray's object store that so many workers ask for."""
    from distvae.machines.ray_session import OBJECT_STORE_BYTES

    return OBJECT_STORE_BYTES + workers * UNDER_WAY


def with_absolute_paths(config: Config) -> Config:
    """The configuration for processes that run in another folder."""
    path = Path(config.data.path)
    return (
        config.with_("data", path=str(path.absolute()))
        if config.data.path and path.exists()
        else config
    )


def _shards(config: Config, lanes: Lanes, group: WorkerGroup) -> Any:
    """The holders of the populations, one for each worker; nothing where there are none."""
    from distvae.machines.shards import launch_shards
    from distvae.models.population import words_of

    if not isinstance(config.estep, Truncation):
        return None
    estep, width = config.estep, words_of(config.model.latent)
    return launch_shards(
        lanes, min(group.max_workers, lanes.count), estep.states, width, estep.mapped
    )


def _fit(job: dict[str, Any], folder: Folder, group: WorkerGroup, threads: int) -> Exception | bool:
    """Run the workers to their end: whether they were asked to stop before it, or the error."""
    from ray.train import FailureConfig, RunConfig
    from ray.train.torch import TorchTrainer

    from distvae.machines.rendezvous import Unmet

    again, notes = FailureConfig(max_failures=FAILURES), folder.subfolder(f"ray-{job['owner']}")
    try:
        trainer = TorchTrainer(
            work,
            train_loop_config=job,
            torch_config=Unmet(),
            scaling_config=scaling_config(group, threads),
            run_config=RunConfig(name="workers", storage_path=notes.place, failure_config=again),
        )
        return bool(trainer.fit().return_value)
    except Exception as error:  # told by the thread that waits for this one
        return error
    finally:
        notes.remove()


def scaling_config(group: WorkerGroup, threads: int) -> Any:
    """Return how many workers Ray Train is to start, and what each of them asks Ray for."""
    from ray.train import ScalingConfig

    gpus = group.gpus or 0.0
    return ScalingConfig(
        num_workers=group.max_workers
        if group.min_workers == group.max_workers
        else (group.min_workers, group.max_workers),
        resources_per_worker={"CPU": threads} | ({"GPU": gpus} if gpus else {}),
        use_gpu=gpus > 0,
        elastic_resize_monitor_interval_s=RESIZE,
    )


def _watch(
    folder: Folder, owner: str, epochs: int, running: threading.Thread, stop: Callable[[], object]
) -> Iterator[Epoch | str]:
    """What the run folder tells, as it comes, and an empty sentence after each look."""
    seen, told, asked = len(read_epochs(folder)), 0, False
    while True:
        over = not running.is_alive()
        if stop() and not asked:
            request_stop(folder, owner)
            asked = True
        events = read_records(folder, EVENTS)
        for event in events[told:]:
            told += 1
            yield describe_event(event, len(starts_of(events[:told])))
        for record in read_epochs(folder):
            if record["epoch"] > seen:
                seen = int(record["epoch"])
                crew = {"workers": events[-1]["workers"], "restarts": len(starts_of(events)) - 1}
                yield Epoch.read(record | crew, epochs)
        if over:
            return
        yield ""
        running.join(_poll(folder))


def _dismiss(running: threading.Thread, folder: Folder, owner: str) -> None:
    """Have workers stop that still train, and wait a while; nothing here may hide what ended the
    training.
    """
    if running.is_alive():
        with suppress(OSError, Refusal):
            request_stop(folder, owner)
            running.join(PATIENCE)
            if not running.is_alive():
                folder.delete(STOP_FILE.format(owner))


def _conclude(ended: Exception | bool, folder: Folder, owner: str) -> None:
    """Raise here what ended the workers there."""
    stop, refused = STOP_FILE.format(owner), REFUSED_FILE.format(owner)
    folder.delete(stop)
    if folder.has(refused):
        facts = json.loads(folder.read(refused))
        folder.delete(refused)
        foreseen: dict[str, type[Exception]] = {
            kind.__name__: kind for kind in (Refusal, TakenOver, Diverged)
        }
        raise foreseen.get(facts["kind"], RuntimeError)(facts["text"])
    if isinstance(ended, Exception):
        raise WorkerLost(f"the workers could not go on: {ended}") from ended
    if ended:
        raise Interrupted
