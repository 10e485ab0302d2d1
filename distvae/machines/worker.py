"""Training in several processes under Ray Train: the same loop in every worker, populations in
shards beside them.

The run folder is the checkpoint: workers that are started anew, as many as there are then, go on
from what it names. The driver watches the folder and tells what it sees there.
"""

import json
import traceback
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from distvae.config import from_dict
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.preemption import Notices, leaving
from distvae.machines.stop_files import REFUSED_FILE, stop_requested
from distvae.train.events import record_event
from distvae.train.loop import Diverged, Interrupted
from distvae.train.run_folder import check_ownership
from distvae.train.team import ALONE, Team, WorkerLost

if TYPE_CHECKING:
    from distvae.machines.shards import ShardedStore


def work(job: dict[str, Any]) -> bool:
    """Meet the other workers and train with them; return whether this one was asked to stop."""
    from distvae.machines.rendezvous import met

    if Folder(job["place"]).has(REFUSED_FILE.format(job["owner"])):
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
    from distvae.machines.placement import assigned_gpus
    from distvae.machines.shards import ShardedStore
    from distvae.train.bits import agree_on_arithmetic
    from distvae.train.devices import select_device
    from distvae.train.session import build_trainer, train_in_folder
    from distvae.train.team import join_team

    config, folder, owner = from_dict(job["config"]), Folder(job["place"]), job["owner"]
    team: Team = ALONE
    try:
        device = select_device(config.train.device, assigned_gpus())
        team = join_team(device)
        store = ShardedStore(job["shards"], team.rank == 0) if job["shards"] else None
        dataset = open_dataset(config.data, quiet=True)
        agree_on_arithmetic(config.train, device, team, folder).apply()
        trainer = build_trainer(config, dataset, team, store, device)
        tell = partial(_tell, folder, owner, team, store)
        tell()
        notices = Notices(team, leaving, tell)
        known = {"recipe": job["recipe"], "owner": owner, "resume": True}
        for epoch in train_in_folder(
            trainer,
            config,
            dataset,
            folder,
            stop=stop_requested(folder, owner),
            hurried=notices,
            **known,
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
        REFUSED_FILE.format(owner),
        json.dumps({"kind": type(error).__name__, "text": text}).encode(),
    )
