"""One run in its folder: begin or resume, write down every epoch, keep the best weights and the last state."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from distvae.config import Config, flatten, to_dict
from distvae.data.dataset import Array, Dataset
from distvae.estep import assemble
from distvae.estep.store import PopulationStore, forget
from distvae.lanes import Lanes
from distvae.refusal import Refusal
from distvae.train import checkpoint
from distvae.train.checkpoint import write_atomically
from distvae.train.loop import BLOCK, Epoch, Interrupted, Trainer, weights
from distvae.train.run import read_config, read_epochs, read_info
from distvae.train.team import ALONE, Team


def fit(
    config: Config,
    dataset: Dataset,
    out: Path,
    *,
    recipe: str = "",
    resume: bool = False,
    force: bool = False,
    stop: Callable[[], object] = lambda: False,
    team: Team = ALONE,
) -> Iterator[Epoch]:
    """Train into the folder `out`, and yield a record after each epoch."""
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    return keep(
        prepare(config, dataset, team), config, dataset, out, recipe=recipe, resume=resume, force=force, stop=stop
    )


def keep(
    trainer: Trainer,
    config: Config,
    dataset: Dataset,
    out: Path,
    *,
    recipe: str = "",
    resume: bool = False,
    force: bool = False,
    stop: Callable[[], object] = lambda: False,
) -> Iterator[Epoch]:
    """The same with an untrained trainer of that configuration."""
    team, chief = trainer.team, trainer.team.rank == 0
    if _agree(team, lambda: open_folder(config, dataset, out, recipe, resume, force)) and (out / "last.json").exists():
        tensors, facts = checkpoint.load(out, "last")
        trainer.restore(tensors, facts["position"])
        trainer.estep.load(out, facts["populations"])
        trainer.estep.to(trainer.device)
        if chief:
            _keep_epochs(out, trainer.position.epoch)
    team.barrier()
    savings = Savings(out, trainer)
    try:
        for epoch in trainer.run(stop):
            if chief:
                _write_down(out, trainer, epoch)
            savings.after(epoch)
            yield epoch
    except Interrupted:
        savings.save()
        raise
    finally:
        if chief:
            _note(out, seconds=trainer.position.seconds, epochs=trainer.position.epoch)


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
    model, estep = assemble(config, dataset.dims)
    if store is not None:
        estep.share(store)
    train = dataset.splits["train"]
    held = shared(config, len(train), team.size).held(team.rank, team.size)
    model.begin(_blocks(train))
    estep.begin(_blocks(train), held, config.train.seed)
    return Trainer(config.train, model, estep, train, dataset.splits["val"], team)


def shared(config: Config, rows: int, size: int) -> Lanes:
    """The lanes in which so many workers share the rows."""
    lanes, batch = Lanes.of(rows, config.train.batch), config.train.batch
    if size > lanes.count:
        raise Refusal(f"train.batch: {batch} can be shared by {lanes.count} workers at most, not by {size}")
    return lanes


def _blocks(rows: Array) -> Iterator[torch.Tensor]:
    return (torch.from_numpy(rows[i : i + BLOCK].copy()) for i in range(0, len(rows), BLOCK))


def open_folder(config: Config, dataset: Dataset, out: Path, recipe: str, resume: bool, force: bool) -> bool:
    """Make the run's folder, or check the one there is; True when there is something to go on from."""
    if resume and (out / "run.json").exists():
        _same_run(config, dataset, out)
        return True
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        clear(out, force)
    out.mkdir(parents=True, exist_ok=True)
    _write_config(config, dataset, out, recipe)
    return False


def clear(out: Path, force: bool) -> None:
    """Delete an earlier run where that is wanted; anything else that exists is refused."""
    if not force:
        raise Refusal(f"{out}: exists; --resume goes on with it, --force replaces it; or another folder")
    read_info(out)
    shutil.rmtree(out)


FREE_TO_CHANGE = {"data.path", "estep.mapped", "estep.sweeps", "train.device", "train.threads", "eval.processes"}
"""What may differ when a run goes on: where it runs, not what it computes. The data's digest still decides."""


def _same_run(config: Config, dataset: Dataset, out: Path) -> None:
    info = read_info(out)
    before, now = flatten(read_config(out, info)), flatten(config)
    for name in now.keys() | before.keys():
        if name not in FREE_TO_CHANGE and now.get(name) != before.get(name):
            raise Refusal(
                f"{name}: {now.get(name)!r}, but {before.get(name)!r} in the run in {out}; --resume goes on unchanged"
            )
    if info["data_digest"] != dataset.digest:
        raise Refusal(f"{out}: trained on other data ({info['data']}); --resume wants the data it began with")


def _write_config(config: Config, dataset: Dataset, out: Path, recipe: str) -> None:
    import yaml

    text = yaml.safe_dump(to_dict(config), sort_keys=False).encode()
    write_atomically(out / "config.yaml", text)
    facts = {
        "version": checkpoint.VERSION,
        "recipe": recipe,
        "dims": dataset.dims,
        "unit": dataset.unit,
        "data": dataset.name,
        "data_digest": dataset.digest,
        "rows": {split: len(x) for split, x in dataset.splits.items()},
        "recordings": [asdict(recording) for recording in dataset.recordings],
        "config_sha256": hashlib.sha256(text).hexdigest(),
        "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **provenance(),
    }
    write_atomically(out / "run.json", json.dumps(facts, indent=1).encode())


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


def _write_down(out: Path, trainer: Trainer, epoch: Epoch) -> None:
    if epoch.best:
        checkpoint.save(out, "best", weights(trainer.model, trainer.estep), {"epoch": epoch.epoch})
    with (out / "epochs.jsonl").open("a") as file:
        file.write(json.dumps(epoch.metrics()) + "\n")


class Savings:
    """The state that a resumed run goes on from, saved as often as costs little."""

    share = 0.05
    """Of the time, at most, that saving takes; what is lost to a crash is trained again, to the same result."""

    def __init__(self, out: Path, trainer: Trainer) -> None:
        self.out, self.trainer = out, trainer
        self.due = 0.0

    def after(self, epoch: Epoch) -> None:
        """Save after an epoch, if it is the last or enough time went by since."""
        over = epoch.epoch == epoch.epochs or self.trainer.out_of_patience()
        if over or self.trainer.team.gather(time.monotonic() >= self.due)[0]:
            self.save()

    def save(self) -> None:
        """Populations first, then the checkpoint that names them; older populations go last."""
        began, trainer, team = time.monotonic(), self.trainer, self.trainer.team
        tensors, position = trainer.state()
        trainer.estep.drain()
        team.barrier()
        saved = team.gather(trainer.estep.save(self.out, f"{position['epoch']:05}-{position['batch']:05}"))
        if team.rank == 0:
            populations = [kept for worker in saved for kept in worker]
            checkpoint.save(self.out, "last", tensors, {"position": position, "populations": populations})
            forget(self.out, [kept["file"] for kept in populations])
        now = time.monotonic()
        self.due = now + (now - began) / self.share


def _keep_epochs(out: Path, finished: int) -> None:
    kept = [json.dumps(record) + "\n" for record in read_epochs(out) if record["epoch"] <= finished]
    write_atomically(out / "epochs.jsonl", "".join(kept).encode())


def _note(out: Path, **facts: Any) -> None:
    info = json.loads((out / "run.json").read_bytes())
    write_atomically(out / "run.json", json.dumps(info | facts, indent=1).encode())
