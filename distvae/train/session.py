"""One run in its folder: begin or resume, write down every epoch, keep the best weights and the last state."""

import hashlib
import json
import os
import platform
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from distvae.config import Config, flatten, to_dict
from distvae.data.dataset import Dataset, Rows
from distvae.estep import assemble
from distvae.estep.store import PopulationStore
from distvae.lanes import Lanes
from distvae.refusal import Refusal
from distvae.storage import Folder
from distvae.train import checkpoint
from distvae.train.checkpoint import Place
from distvae.train.loop import BLOCK, Epoch, Interrupted, Trainer, weights
from distvae.train.run import read_config, read_epochs, read_info
from distvae.train.team import ALONE, Team

OWNER = "owner"
"""The file of a run folder that says who trains into it."""


def fit(
    config: Config,
    dataset: Dataset,
    out: Place,
    *,
    recipe: str = "",
    resume: bool = False,
    force: bool = False,
    stop: Callable[[], object] = lambda: False,
    team: Team = ALONE,
) -> Iterator[Epoch]:
    """Train into the folder `out`, a path or a URI, and yield a record after each epoch."""
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    return keep(
        prepare(config, dataset, team), config, dataset, out, recipe=recipe, resume=resume, force=force, stop=stop
    )


def keep(
    trainer: Trainer,
    config: Config,
    dataset: Dataset,
    out: Place,
    *,
    recipe: str = "",
    resume: bool = False,
    force: bool = False,
    stop: Callable[[], object] = lambda: False,
    hurried: Callable[[], bool] = lambda: False,
    owner: str = "",
) -> Iterator[Epoch]:
    """The same with an untrained trainer of that configuration; its owner is named if it is not this process.

    Between batches all workers ask whether they are hurried, with the same answer, and if so save at once.
    """
    team, chief, folder = trainer.team, trainer.team.rank == 0, Folder.of(out)
    if _agree(team, lambda: open_folder(config, dataset, folder, recipe, resume, force)):
        _restore(trainer, folder)
    if chief:
        _keep_epochs(folder, trainer.position.epoch)
    owner = owner or (own(folder) if chief else "")
    team.barrier()
    savings = Savings(folder, trainer, owner)
    try:
        for epoch in trainer.run(_saving(savings, hurried, stop)):
            if chief:
                _write_down(folder, trainer, epoch, owner)
            savings.after(epoch)
            yield epoch
    except Interrupted:
        savings.save()
        raise
    finally:
        if chief:
            _note(folder, seconds=trainer.position.seconds, epochs=trainer.position.epoch)


def _restore(trainer: Trainer, folder: Folder) -> None:
    """Go on from the last state; where it cannot be read, say whether the one before it can."""
    try:
        tensors, facts = checkpoint.load(folder, "last")
        trainer.restore(tensors, facts["position"])
        trainer.estep.load(folder.place, facts["populations"])
    except Refusal as error:
        if not folder.has("previous.json"):
            raise
        epoch = checkpoint.read_manifest(folder, "previous.json")["facts"]["position"]["epoch"]
        raise Refusal(f"{error}; --previous goes on from the checkpoint before it, of epoch {epoch}") from error
    trainer.estep.to(trainer.device)


def _agree(team: Team, look: Callable[[], bool]) -> bool:
    """What the first worker sees, or refuses, told to all."""
    seen, refused = False, ""
    if team.rank == 0:
        try:
            seen = look()
        except Refusal as error:
            refused = str(error)
    seen, refused = team.gather((seen, refused))[0]
    if refused:
        raise Refusal(refused)
    return bool(seen)


def prepare(config: Config, dataset: Dataset, team: Team = ALONE, store: PopulationStore | None = None) -> Trainer:
    """An untrained trainer that has seen its data; populations go to a store if one is given."""
    model, estep = assemble(config, dataset.dims, dataset.shape)
    if store is not None:
        estep.share(store)
    train = dataset.splits["train"]
    held = shared(config, len(train), team.size).held(team.rank, team.size)
    model.begin(_blocks(train))
    estep.begin(_blocks(train), held, config.train.seed)
    val = train if estep.block else dataset.splits["val"]  # states are kept for rows in training alone
    return Trainer(config.train, model, estep, train, val, team)


def shared(config: Config, rows: int, size: int) -> Lanes:
    """The lanes in which so many workers share the rows."""
    lanes, batch = Lanes.of(rows, config.train.batch), config.train.batch
    if size > lanes.count:
        raise Refusal(f"train.batch: {batch} can be shared by {lanes.count} workers at most, not by {size}")
    return lanes


def _blocks(rows: Rows) -> Iterator[torch.Tensor]:
    return (torch.from_numpy(rows[i : i + BLOCK].copy()) for i in range(0, len(rows), BLOCK))


def open_folder(config: Config, dataset: Dataset, folder: Folder, recipe: str, resume: bool, force: bool) -> bool:
    """Make the run's folder, or check the one there is; True when there is something to go on from."""
    if resume and folder.has("run.json"):
        _same_run(config, dataset, folder, recipe)
        return folder.has("last.json")
    if not folder.empty():
        clear(folder, force)
    _write_config(config, dataset, folder, recipe)
    return False


def clear(place: Place, force: bool) -> None:
    """Delete an earlier run where that is wanted; anything else that exists is refused."""
    folder = Folder.of(place)
    if not force:
        raise Refusal(f"{folder}: exists; --resume goes on with it, --force replaces it; or another folder")
    read_info(folder)
    folder.remove()


def own(folder: Folder) -> str:
    """Take a run's folder over; whoever trained into it until now will notice."""
    token = secrets.token_hex(8)
    folder.write(OWNER, token.encode())
    return token


def _refuse_intruders(folder: Folder, owner: str) -> None:
    """Stop a training whose folder another one has taken over, such as a worker whose driver is gone."""
    if folder.read(OWNER).decode() != owner:
        raise Refusal(f"{folder}: another training goes on with this run; this one ends here")


FREE_TO_CHANGE = {"data.path", "estep.mapped", "estep.sweeps", "train.device", "train.threads", "eval.processes"}
"""What may differ when a run goes on: where it runs, not what it computes. The data's digest still decides."""


def _same_run(config: Config, dataset: Dataset, folder: Folder, recipe: str) -> None:
    info = read_info(folder)
    if recipe and info["recipe"] != recipe:
        raise Refusal(f"{folder}: holds a run of '{info['recipe']}', not of '{recipe}'; another folder expected")
    stored = read_config(folder, info)
    before, now = flatten(stored), flatten(config)
    free = FREE_TO_CHANGE | ({"train.epochs"} if config.train.schedule != "cosine" else set())
    for name in now.keys() | before.keys():
        if name not in free and now.get(name) != before.get(name):
            then = f"but {before.get(name)!r} in the run in {folder}"
            raise Refusal(f"{name}: {now.get(name)!r}, {then}; --resume goes on unchanged")
    if info["data_digest"] != dataset.digest:
        raise Refusal(f"{folder}: trained on other data ({info['data']}); --resume wants the data it began with")
    if config.train.epochs != stored.train.epochs:
        _prolong(folder, stored.with_("train", epochs=config.train.epochs), info)


def _prolong(folder: Folder, config: Config, info: dict[str, Any]) -> None:
    """Let a run go on for more epochs, or fewer, than it began with; one whose rate depends on their number cannot."""
    text = _written(config)
    hashes = {"config_sha256": hashlib.sha256(text).hexdigest(), "config_sha256_before": info["config_sha256"]}
    _note(folder, **hashes)
    folder.write("config.yaml", text)


def _written(config: Config) -> bytes:
    import yaml

    return yaml.safe_dump(to_dict(config), sort_keys=False).encode()


def _write_config(config: Config, dataset: Dataset, folder: Folder, recipe: str) -> None:
    text = _written(config)
    folder.write("config.yaml", text)
    facts = {
        "version": checkpoint.VERSION,
        "recipe": recipe,
        "dims": dataset.dims,
        "shape": dataset.shape,
        "unit": dataset.unit,
        "data": dataset.name,
        "data_digest": dataset.digest,
        "rows": {split: len(x) for split, x in dataset.splits.items()},
        "recordings": [asdict(recording) for recording in dataset.recordings],
        "config_sha256": hashlib.sha256(text).hexdigest(),
        "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **provenance(),
    }
    folder.write("run.json", json.dumps(facts, indent=1).encode())


def provenance() -> dict[str, Any]:
    """The program and the machine."""
    packages = {name: version(name) for name in ("distvae", "torch", "numpy")}
    machine = {"system": platform.platform(), "cpus": os.cpu_count(), "cuda": torch.version.cuda}
    return {"commit": commit(), "versions": {"python": platform.python_version(), **packages}, "machine": machine}


def commit() -> str | None:
    """The commit of the checkout that holds this package, marked when changed since; None outside one."""
    here = Path(__file__)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _write_down(folder: Folder, trainer: Trainer, epoch: Epoch, owner: str) -> None:
    _refuse_intruders(folder, owner)
    if epoch.best:
        checkpoint.save(folder, "best", weights(trainer.model, trainer.estep), {"epoch": epoch.epoch})
    folder.append("epochs.jsonl", json.dumps(epoch.metrics()).encode() + b"\n")


class Savings:
    """The state that a resumed run goes on from, saved as often as costs little."""

    share = 0.05
    """Of the time, at most, that saving takes; what is lost to a crash is trained again, to the same result."""

    def __init__(self, folder: Folder, trainer: Trainer, owner: str) -> None:
        self.folder, self.trainer, self.owner = folder, trainer, owner
        self.due = 0.0

    def after(self, epoch: Epoch) -> None:
        """Save after an epoch, if it is the last or enough time went by since."""
        over = epoch.epoch == epoch.epochs or self.trainer.out_of_patience()
        if over or self.trainer.team.gather(time.monotonic() >= self.due)[0]:
            self.save()

    def save(self) -> None:
        """Populations first, then the checkpoint that names them."""
        began, trainer, team = time.monotonic(), self.trainer, self.trainer.team
        tensors, position = trainer.state()
        trainer.estep.drain()
        team.barrier()
        generation = f"{position['epoch']:05}-{position['batch']:05}"
        saved = team.gather(trainer.estep.save(self.folder.place, generation))
        if team.rank == 0:
            _refuse_intruders(self.folder, self.owner)
            populations = [kept for worker in saved for kept in worker]
            checkpoint.advance(self.folder, tensors, {"position": position, "populations": populations})
        now = time.monotonic()
        self.due = now + (now - began) / self.share


def _saving(savings: Savings, hurried: Callable[[], bool], stop: Callable[[], object]) -> Callable[[], object]:
    """Whether to stop, asked between batches; where hurried, the state is saved before."""

    def asked() -> object:
        if hurried():
            savings.save()
        return stop()

    return asked


def _keep_epochs(folder: Folder, finished: int) -> None:
    kept = [json.dumps(record) + "\n" for record in read_epochs(folder) if record["epoch"] <= finished]
    folder.write("epochs.jsonl", "".join(kept).encode())


def _note(folder: Folder, **facts: Any) -> None:
    info = json.loads(folder.read("run.json"))
    folder.write("run.json", json.dumps(info | facts, indent=1).encode())
