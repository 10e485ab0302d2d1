"""The folder of a run: made or found again, whose it is, what may have changed since it began."""

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from distvae.config import Config, flatten, to_dict
from distvae.data.dataset import Dataset
from distvae.files.provenance import provenance
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.train import checkpoint
from distvae.train.checkpoint import Place
from distvae.train.run import read_config, read_epochs, read_info

OWNER = "owner"
"""The file of a run folder that says who trains into it."""
FREE_TO_CHANGE = {"data.path", "estep.mapped", "estep.sweeps", "eval.processes"} | {
    f"train.{name}" for name in ("device", "threads", "products", "bits")
}
"""What may differ when a run goes on: where it runs. Whether it still computes the same bits is for
`bits.agree`, and whether it is the same data for its digest.
"""


def open_folder(
    config: Config, dataset: Dataset, folder: Folder, recipe: str, resume: bool, force: bool
) -> bool:
    """Make the run's folder, or check the one there is; True when there is something to go on
    from.
    """
    check_run_folder(config, dataset, folder, recipe, resume, force)
    if resume and folder.has("run.json"):
        _prolong(config, folder)
        return folder.has("last.json")
    if not folder.is_empty():
        delete_run(folder, force)
    _write_config(config, dataset, folder, recipe)
    return False


def check_run_folder(
    config: Config, dataset: Dataset, folder: Folder, recipe: str, resume: bool, force: bool
) -> None:
    """Refuse a folder in which the run can neither begin nor go on; change nothing."""
    if resume and folder.has("run.json"):
        _refuse_other_run(config, dataset, folder, recipe)
    elif not folder.is_empty():
        _refuse_occupied(folder, force)


def _refuse_occupied(folder: Folder, force: bool) -> None:
    """Refuse to replace what is in a folder, unless it is a run and is to be replaced."""
    if not force:
        raise Refusal(
            f"{folder}: exists; --resume goes on with it, --force replaces it; or another folder"
        )
    read_info(folder)


def delete_run(place: Place, force: bool) -> None:
    """Delete an earlier run where that is wanted; anything else that exists is refused.

    It is taken over first, so that a training that goes on in it ends instead of writing on.
    """
    folder = Folder.of(place)
    _refuse_occupied(folder, force)
    take_ownership(folder)
    try:
        folder.remove()
    except OSError as error:
        raise Refusal(
            f"{folder}: written to while it was to be replaced; its removal by hand, or another"
            " folder, expected"
        ) from error


class TakenOver(Refusal):
    """Another training goes on in the folder of this one."""


def take_ownership(folder: Folder) -> str:
    """Take a run's folder over; whoever trained into it until now will notice."""
    token = secrets.token_hex(8)
    folder.write(OWNER, token.encode())
    return token


def is_owner(folder: Folder, owner: str) -> bool:
    """Whether nobody has taken it over since, or deleted it."""
    try:
        return folder.read(OWNER).decode() == owner
    except FileNotFoundError:
        return False


def check_ownership(folder: Folder, owner: str) -> None:
    """Stop a training whose folder another one has taken over, such as a worker whose driver is
    gone.
    """
    if not is_owner(folder, owner):
        raise TakenOver(
            f"{folder}: another training goes on with this run, or it was deleted; this one ends"
            " here"
        )


def _refuse_other_run(config: Config, dataset: Dataset, folder: Folder, recipe: str) -> None:
    """Refuse to go on with a run of another recipe, other settings that matter, or other data."""
    info = read_info(folder)
    if recipe and info["recipe"] != recipe:
        raise Refusal(
            f"{folder}: holds a run of '{info['recipe']}', not of '{recipe}'; another folder"
            " expected"
        )
    stored = read_config(folder, info)
    before, now = flatten(stored), flatten(config)
    free = FREE_TO_CHANGE | ({"train.epochs"} if config.train.schedule != "cosine" else set())
    for name in now.keys() | before.keys():
        if name not in free and now.get(name) != before.get(name):
            then = f"but {before.get(name)!r} in the run in {folder}"
            then += ", whose rate is made for so many" if name == "train.epochs" else ""
            raise Refusal(
                f"{name}: {now.get(name)!r}, {then}; --resume goes on"
                f" unchanged{_as_before(name, before)}"
            )
    if info["data_digest"] != dataset.digest:
        raise Refusal(
            f"{folder}: trained on other data ({info['data']}); --resume wants the data it began"
            " with"
        )


def _as_before(name: str, before: Mapping[str, Any]) -> str:
    """Tell how to say again what a run began with, where a word says it."""
    value = before.get(name)
    return f", with {name}={value}" if isinstance(value, str) and value.isidentifier() else ""


def _prolong(config: Config, folder: Folder) -> None:
    """Let a run go on for more epochs, or fewer, than it began with; one whose rate depends on
    their number cannot.
    """
    info = read_info(folder)
    stored = read_config(folder, info)
    if config.train.epochs == stored.train.epochs:
        return
    config = stored.with_("train", epochs=config.train.epochs)
    text = _written(config)
    hashes = {
        "config_sha256": hashlib.sha256(text).hexdigest(),
        "config_sha256_before": info["config_sha256"],
    }
    update_info(folder, **hashes)
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


def drop_later_epochs(folder: Folder, finished: int) -> None:
    """Forget the epochs after one, which are trained again."""
    kept = [
        json.dumps(record) + "\n" for record in read_epochs(folder) if record["epoch"] <= finished
    ]
    folder.write("epochs.jsonl", "".join(kept).encode())


def update_info(folder: Folder, **facts: Any) -> None:
    """Say more about a run in its folder."""
    info = read_info(folder)
    folder.write("run.json", json.dumps(info | facts, indent=1).encode())
