"""Training in several processes under Ray Train: the same loop in every worker, populations in shards beside them.

The run folder is the checkpoint: workers that are started anew, as many as there are then, go on from what it names.
The driver watches the folder and tells what it sees there.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distvae.config import Config, from_dict, to_dict
from distvae.lanes import Lanes
from distvae.refusal import Refusal
from distvae.train.checkpoint import read_manifest, write_atomically
from distvae.train.loop import Diverged, Epoch, Interrupted
from distvae.train.run import read_records
from distvae.train.team import WorkerLost

STOP = "stop"
"""A file in the run folder that asks the workers to stop after their batch."""
EVENTS = "events.jsonl"
"""When training began or went on, from which epoch, and with how many workers."""
REFUSED = "refused.json"
"""Why a worker cannot go on, and would not if it began again."""
POLL = 0.3  # seconds between two looks at the run folder
UNDER_WAY = 50 * 2**20  # bytes of blocks that a worker may have on their way to shards and back
FAILURES = 100  # restarts of the workers before a training gives up


@dataclass(frozen=True)
class Group:
    """Who trains."""

    least: int
    most: int
    gpus: float = 0.0
    """Of each worker."""
    address: str | None = None
    """Of a Ray that runs; without one it is started here."""

    @classmethod
    def parse(cls, text: str, gpus: float = 0.0, address: str | None = None) -> "Group":
        """`N`, or `LEAST:MOST` for as many as there are."""
        parts = text.split(":")
        if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise Refusal(f"--workers: '{text}'; a number such as 4, or a range such as 1:4, expected")
        least, most = int(parts[0]), int(parts[-1])
        if least > most:
            raise Refusal(f"--workers: '{text}' falls; a range such as 1:4 expected")
        return cls(least, most, gpus, address)


def train(config: Config, recipe: str, out: Path, group: Group, stop: Callable[[], object]) -> Iterator[Epoch | str]:
    """Train into a folder that is open already; yield epochs, and sentences about what happens beside them."""
    from distvae.cluster import MEMORY, cores, joined
    from distvae.train.run import read_info
    from distvae.train.session import shared

    threads = config.train.threads or 1
    lanes = shared(config, read_info(out)["rows"]["train"], group.least)
    for name in (STOP, EVENTS, REFUSED):
        (out / name).unlink(missing_ok=True)
    with joined(group.address, cores(), MEMORY + group.most * UNDER_WAY) as ray:
        _refuse_too_many(ray, group, threads)
        shards = _shards(config, lanes, group)
        job = {"config": _anywhere(config), "recipe": recipe, "out": str(out.absolute()), "shards": shards}
        ended: list[Exception | bool] = []
        running = threading.Thread(target=lambda: ended.append(_fit(job, group, threads)), daemon=True)
        running.start()
        yield from _watch(out, config.train.epochs, running, stop)
        _conclude(ended[0], out)


def _anywhere(config: Config) -> dict[str, Any]:
    """The configuration for processes that run in another folder."""
    path = Path(config.data.path)
    return to_dict(config.with_("data", path=str(path.absolute())) if config.data.path and path.exists() else config)


def _refuse_too_many(ray: Any, group: Group, threads: int) -> None:
    there = ray.cluster_resources()
    for name, each in {"CPU": threads, "GPU": group.gpus}.items():
        if group.least * each > there.get(name, 0):
            raise Refusal(
                f"--workers: {group.least} workers need {group.least * each:g} {name}s, and Ray has "
                f"{there.get(name, 0):g}; fewer workers, or more machines, expected"
            )


def _shards(config: Config, lanes: Lanes, group: Group) -> Any:
    """The holders of the populations, one for each worker; nothing where there are none."""
    from distvae.estep.actors import launch
    from distvae.models.population import words_of

    if config.estep.kind not in ("evolution", "random"):
        return None
    estep, width = config.estep, words_of(config.model.latent)
    return launch(lanes, min(group.most, lanes.count), estep.states, width, estep.mapped)


def _fit(job: dict[str, Any], group: Group, threads: int) -> Exception | bool:
    """Run the workers to their end: whether they were asked to stop before it, or the error."""
    import tempfile

    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    each = {"CPU": threads} | ({"GPU": group.gpus} if group.gpus else {})
    count = group.most if group.least == group.most else (group.least, group.most)
    again = FailureConfig(max_failures=FAILURES)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            trainer = TorchTrainer(
                work,
                train_loop_config=job,
                scaling_config=ScalingConfig(num_workers=count, resources_per_worker=each, use_gpu=group.gpus > 0),
                run_config=RunConfig(name=Path(job["out"]).name, storage_path=scratch, failure_config=again),
            )
            return bool(trainer.fit().return_value)
        except Exception as error:  # told by the thread that waits for this one
            return error


def work(job: dict[str, Any]) -> bool:
    """One worker: train to the end, or until asked to stop; whether it was.

    What would happen again is written down, for others may hear of it only by missing this worker, and begin again.
    """
    import ray.train

    from distvae.data import open_dataset
    from distvae.estep.actors import ShardedStore
    from distvae.train.loop import device_of
    from distvae.train.session import keep, prepare
    from distvae.train.team import of_environment

    config, out = from_dict(job["config"]), Path(job["out"])
    if (out / REFUSED).exists():
        return False
    team = of_environment(device_of(config.train.device))
    store = ShardedStore(job["shards"], team.rank == 0) if job["shards"] else None
    try:
        dataset = open_dataset(config.data, quiet=True)
        trainer = prepare(config, dataset, team, store)
        if team.rank == 0:
            note(out, _finished(out), team.size)
        asked = (out / STOP).exists
        for epoch in keep(trainer, config, dataset, out, recipe=job["recipe"], resume=True, stop=asked):
            ray.train.report({"epoch": epoch.epoch})
    except Interrupted:
        return True
    except (Refusal, Diverged) as error:
        facts = {"refused": isinstance(error, Refusal), "text": str(error)}
        write_atomically(out / REFUSED, json.dumps(facts).encode())
    finally:
        team.close()
    return False


def _watch(out: Path, epochs: int, running: threading.Thread, stop: Callable[[], object]) -> Iterator[Epoch | str]:
    """What the run folder tells, as it comes."""
    seen, told = len(read_records(out / "epochs.jsonl")), 0
    while True:
        over = not running.is_alive()
        if stop():
            (out / STOP).touch()
        for event in read_records(out / EVENTS)[told:]:
            told += 1
            yield _sentence(event, told)
        for record in read_records(out / "epochs.jsonl"):
            if record["epoch"] > seen:
                seen = int(record["epoch"])
                yield Epoch.read(record, epochs)
        if over:
            return
        time.sleep(POLL)


def _sentence(event: dict[str, float], count: int) -> str:
    who = f"{event['workers']:.0f} worker" + ("s" if event["workers"] > 1 else "")
    start = f"from epoch {event['epoch']:.0f}"
    return f"{who}, {start}" if count == 1 else f"workers lost or changed; {who} go on {start}"


def _conclude(ended: Exception | bool, out: Path) -> None:
    """Raise here what ended the workers there."""
    (out / STOP).unlink(missing_ok=True)
    if (out / REFUSED).exists():
        facts = json.loads((out / REFUSED).read_text())
        raise (Refusal if facts["refused"] else Diverged)(facts["text"])
    if isinstance(ended, Exception):
        raise WorkerLost(f"the workers could not go on: {ended}") from ended
    if ended:
        raise Interrupted


def _finished(out: Path) -> int:
    """The epoch that a resumed run goes on from."""
    if not (out / "last.json").exists():
        return 0
    return int(read_manifest(out / "last.json")["facts"]["position"]["epoch"])


def note(out: Path, epoch: int, workers: int) -> None:
    """Write down that training begins or goes on."""
    known = (out / EVENTS).read_bytes() if (out / EVENTS).exists() else b""
    event = {"epoch": epoch, "workers": workers, "time": time.time()}
    write_atomically(out / EVENTS, known + json.dumps(event).encode() + b"\n")
