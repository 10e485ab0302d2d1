"""Training in several processes under Ray Train: the same loop in every worker, populations in
shards beside them.

The run folder is the checkpoint: workers that are started anew, as many as there are then, go on
from what it names. The driver watches the folder and tells what it sees there.
"""

import json
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distvae.config import Config, from_dict, to_dict
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.group import POLL, Group, missing, wait_for_workers
from distvae.machines.notices import Notices, leaving
from distvae.machines.roll import Roll, alive
from distvae.numerics.lanes import Lanes
from distvae.train.epoch import Epoch
from distvae.train.events import EVENTS, describe_event, record_event, starts_of
from distvae.train.loop import Diverged, Interrupted
from distvae.train.run import read_epochs, read_info, read_records
from distvae.train.run_folder import TakenOver, check_ownership, take_ownership
from distvae.train.team import ALONE, Team, WorkerLost

if TYPE_CHECKING:
    from distvae.machines.shards import ShardedStore

STOP = "stop-{}"
"""A file in the run folder that asks the workers of an owner to stop after their batch."""
REFUSED = "refused-{}.json"
"""Why a worker of an owner cannot go on, and would not if it began again."""
LEFT = tuple(name.partition("{")[0] for name in (STOP, REFUSED))
"""How what an earlier owner left begins."""
AFAR = 2.0  # seconds between two looks at a run folder that is not in a file system of this machine
RESIZE = 20.0  # seconds between two looks at whether there is room for more workers
UNDER_WAY = 50 * 2**20  # bytes of blocks that a worker may have on their way to shards and back
FAILURES = 100  # restarts of the workers before a training gives up
PATIENCE = 60.0  # seconds in which workers stop that are asked to


def train(
    config: Config,
    recipe: str,
    folder: Folder,
    group: Group,
    stop: Callable[[], object],
    begin: Callable[[], object],
) -> Iterator[Epoch | str]:
    """Train into a folder; yield epochs, and sentences about what happens beside them.

    The folder is opened by `begin`, once Ray stands and has room for the workers: what is refused
    leaves nothing there.
    """
    from distvae.machines.cluster import cores, joined
    from distvae.machines.nodes import check

    with joined(group.address, cores(), memory(group.most), stop) as ray:
        group = yield from wait_for_workers(ray, group, config.train, stop)
        check(ray, folder)
        begin()
        yield from lead(config, recipe, folder, group, stop)


def lead(
    config: Config, recipe: str, folder: Folder, group: Group, stop: Callable[[], object]
) -> Iterator[Epoch | str]:
    """The same under the Ray that this process has joined; workers whom nobody listens to any more
    are stopped.
    """
    import ray

    rows = read_info(folder)["rows"]["train"]
    lanes, group = _lanes(config, rows, group), limited(config, rows, group)
    for name in folder.names():
        if name == EVENTS or name.startswith(LEFT):
            folder.delete(name)
    shards = _shards(config, lanes, group)
    job = {
        "config": to_dict(anywhere(config)),
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


def limited(config: Config, rows: int, group: Group) -> Group:
    """Return the group without workers for whom there would be no rows; refuse one whose least
    number is too large.
    """
    return replace(group, most=min(group.most, _lanes(config, rows, group).count))


def _lanes(config: Config, rows: int, group: Group) -> Lanes:
    """Return how the rows of a run are shared."""
    from distvae.train.session import shared

    return shared(config, rows, group.least)


def memory(workers: int) -> int:
    """Bytes of Ray's object store that so many workers ask for."""
    from distvae.machines.cluster import MEMORY

    return MEMORY + workers * UNDER_WAY


def anywhere(config: Config) -> Config:
    """The configuration for processes that run in another folder."""
    path = Path(config.data.path)
    return (
        config.with_("data", path=str(path.absolute()))
        if config.data.path and path.exists()
        else config
    )


def _shards(config: Config, lanes: Lanes, group: Group) -> Any:
    """The holders of the populations, one for each worker; nothing where there are none."""
    from distvae.machines.shards import launch
    from distvae.models.population import words_of

    if config.estep.kind not in ("evolution", "random"):
        return None
    estep, width = config.estep, words_of(config.model.latent)
    return launch(lanes, min(group.most, lanes.count), estep.states, width, estep.mapped)


def _fit(job: dict[str, Any], folder: Folder, group: Group, threads: int) -> Exception | bool:
    """Run the workers to their end: whether they were asked to stop before it, or the error."""
    from ray.train import FailureConfig, RunConfig
    from ray.train.torch import TorchTrainer

    from distvae.machines.meeting import Unmet

    again, notes = FailureConfig(max_failures=FAILURES), folder.below(f"ray-{job['owner']}")
    try:
        trainer = TorchTrainer(
            work,
            train_loop_config=job,
            torch_config=Unmet(),
            scaling_config=scaling(group, threads),
            run_config=RunConfig(name="workers", storage_path=notes.place, failure_config=again),
        )
        return bool(trainer.fit().return_value)
    except Exception as error:  # told by the thread that waits for this one
        return error
    finally:
        notes.remove()


def scaling(group: Group, threads: int) -> Any:
    """Return how many workers Ray Train is to start, and what each of them asks Ray for."""
    from ray.train import ScalingConfig

    gpus = group.gpus or 0.0
    return ScalingConfig(
        num_workers=group.most if group.least == group.most else (group.least, group.most),
        resources_per_worker={"CPU": threads} | ({"GPU": gpus} if gpus else {}),
        use_gpu=gpus > 0,
        elastic_resize_monitor_interval_s=RESIZE,
    )


def work(job: dict[str, Any]) -> bool:
    """Meet the other workers and train with them; return whether this one was asked to stop."""
    from distvae.machines.meeting import met

    if Folder(job["place"]).has(REFUSED.format(job["owner"])):
        return False
    with met():
        return _work(job)


def _work(job: dict[str, Any]) -> bool:
    """One worker: train to the end, or until asked to stop; whether it was.

    What would happen again is written down before it is raised: Ray then ends the workers that wait
    for this one, and those that it starts in their place find it and end.
    """
    import ray.train
    from ray.exceptions import RayError

    from distvae.data import open_dataset
    from distvae.estep.shard import StaleShard
    from distvae.machines.nodes import assigned_gpus
    from distvae.machines.shards import ShardedStore
    from distvae.train.bits import agree_on_arithmetic
    from distvae.train.devices import select_device
    from distvae.train.session import keep, prepare
    from distvae.train.team import join_team

    config, folder, owner = from_dict(job["config"]), Folder(job["place"]), job["owner"]
    team: Team = ALONE
    try:
        device = select_device(config.train.device, assigned_gpus())
        team = join_team(device)
        store = ShardedStore(job["shards"], team.rank == 0) if job["shards"] else None
        dataset = open_dataset(config.data, quiet=True)
        agree_on_arithmetic(config.train, device, team, folder).obey()
        trainer = prepare(config, dataset, team, store, device)
        tell = partial(_tell, folder, owner, team, store)
        tell()
        notices = Notices(team, leaving, tell)
        known = {"recipe": job["recipe"], "owner": owner, "resume": True}
        for epoch in keep(
            trainer, config, dataset, folder, stop=asked(folder, owner), hurried=notices, **known
        ):
            ray.train.report({"epoch": epoch.epoch})
    except Interrupted:
        return True
    except (WorkerLost, StaleShard, RayError, OSError):  # it may go better next time
        raise
    except Exception as error:
        _give_up(folder, owner, error)
        raise
    finally:
        team.close()
    return False


def _tell(
    folder: Folder,
    owner: str,
    team: Team,
    store: "ShardedStore | None",
    leaving: Collection[str] = (),
) -> None:
    """Write down that the team trains, or that machines will be taken away from it."""
    if team.rank == 0:
        check_ownership(folder, owner)
        record_event(folder, team.size, store.status() if store else [], len(leaving))


def _give_up(folder: Folder, owner: str, error: Exception) -> None:
    """Write down why training cannot go on; of an error that nobody foresaw, where it came from as
    well.
    """
    foreseen = isinstance(error, (Refusal, Diverged))
    text = str(error) if foreseen else "".join(traceback.format_exception(error))
    folder.write(
        REFUSED.format(owner), json.dumps({"kind": type(error).__name__, "text": text}).encode()
    )


def ask(folder: Folder, owner: str) -> None:
    """Ask those who train for an owner to stop; whoever trains for another goes on."""
    folder.write(STOP.format(owner), b"")


def asked(folder: Folder, owner: str) -> Callable[[], bool]:
    """Whether a file in a folder asks to stop, looked for now and then."""
    found, due = False, 0.0

    def look() -> bool:
        nonlocal found, due
        if not found and time.monotonic() >= due:
            found, due = folder.has(STOP.format(owner)), time.monotonic() + _poll(folder)
        return found

    return look


def _poll(folder: Folder) -> float:
    """Seconds between two looks at a folder."""
    return AFAR if folder.remote else POLL


def _watch(
    folder: Folder, owner: str, epochs: int, running: threading.Thread, stop: Callable[[], object]
) -> Iterator[Epoch | str]:
    """What the run folder tells, as it comes, and an empty sentence after each look."""
    seen, told, asked = len(read_epochs(folder)), 0, False
    while True:
        over = not running.is_alive()
        if stop() and not asked:
            ask(folder, owner)
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
            ask(folder, owner)
            running.join(PATIENCE)
            if not running.is_alive():
                folder.delete(STOP.format(owner))


def _conclude(ended: Exception | bool, folder: Folder, owner: str) -> None:
    """Raise here what ended the workers there."""
    stop, refused = STOP.format(owner), REFUSED.format(owner)
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
