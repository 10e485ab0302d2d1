"""The run folder: create it, or check that a run can resume in it, and record its owner."""

import hashlib
import json
import secrets
import time
from dataclasses import asdict
from typing import Unpack

from distvae.config import Config, flatten, to_dict
from distvae.data.dataset import Dataset
from distvae.files.paths import finished_name
from distvae.files.program import provenance
from distvae.files.refusal import DISK_FAILED, Refusal
from distvae.files.storage import Folder
from distvae.train import checkpoint
from distvae.train.checkpoint import Place
from distvae.train.documents import RunInfo
from distvae.train.run import EPOCHS, read_config, read_epochs, read_info, refuse_other_folder

OWNER = "owner"
"""The file of a run folder with the token of the training that owns the folder."""
RUN_FILES = ("run.json", "config.yaml", OWNER, EPOCHS, *checkpoint.MANIFESTS)
"""The files of a run folder that training replaces, besides files of tensors."""
FREE_TO_CHANGE = {
    "data.path",
    "estep.mapped",
    "estep.sweeps",
    "eval.processes",
    "train.device",
    "train.threads",
    "train.products",
    "train.graphs",
    "train.tf32",
    "train.bits",
    "train.sinks",
}
"""Settings that may change when a run is resumed. They only say where and how to compute, and where
to report.

`bits.agree_on_arithmetic` checks that the run still computes the same bits. The digest of the data
checks that the data are the same.
"""


def open_folder(
    config: Config, dataset: Dataset, folder: Folder, recipe: str, resume: bool, force: bool
) -> bool:
    """Create the folder of a run, or check the existing one.

    Return whether the folder has a state to resume from.
    """
    check_run_folder(config, dataset, folder, recipe, resume, force)
    if resume and has_begun(folder):
        _delete_partials(folder)
        _update_epochs(config, folder)
        return has_saved_state(folder)
    if not _may_begin(folder, resume):
        delete_run(folder, force)
    _delete_partials(folder)
    _write_config(config, dataset, folder, recipe)
    return False


def has_begun(folder: Folder) -> bool:
    """Return whether a folder has a run to resume: `run.json`, and a file that is written later."""
    later = ("config.yaml", *checkpoint.MANIFESTS)
    return folder.has("run.json") and any(folder.has(name) for name in later)


def _may_begin(folder: Folder, resume: bool) -> bool:
    """Return whether a run can begin in a folder without deleting another run.

    The folder must be empty, or contain only the incomplete files of a training that was killed.
    """
    if folder.is_empty() or (resume and folder.has("run.json")):
        return True
    try:
        entries = folder.list_subfolders() or folder.list_files()
    except NotADirectoryError:
        return False
    return all(map(finished_name, entries))


def _delete_partials(folder: Folder) -> None:
    """Delete the incomplete files of earlier trainings that were killed."""
    for name in folder.list_files():
        finished = finished_name(name)
        if finished in RUN_FILES or finished.startswith(checkpoint.TENSOR_FILES):
            folder.delete(name)


def has_saved_state(folder: Folder) -> bool:
    """Return whether a folder has a run with a state to resume from."""
    return folder.has("run.json") and folder.has("last.json")


def check_run_folder(
    config: Config, dataset: Dataset, folder: Folder, recipe: str, resume: bool, force: bool
) -> None:
    """Raise `Refusal` if the run can neither start nor resume in a folder. Change nothing."""
    if resume and has_begun(folder):
        _check_same_run(config, dataset, folder, recipe)
    elif not _may_begin(folder, resume):
        _check_replaceable(folder, force)


def _check_replaceable(folder: Folder, force: bool) -> None:
    """Raise `Refusal` unless a folder has a run that may be replaced."""
    if not force:
        raise Refusal(
            f"{folder}: exists; --resume continues it, --force replaces it and deletes all files in"
            " it; or name another folder"
        )
    refuse_other_folder(folder)
    refuse_others_inside(folder)


def refuse_others_inside(folder: Folder, own: tuple[str, ...] = ()) -> None:
    """Refuse to delete a folder with other runs or sweeps in its subfolders, except below `own`."""
    for path in folder.find("run.json", "sweep.json"):
        if not path.startswith(own):
            other = folder.subfolder(path.rpartition("/")[0])
            raise Refusal(
                f"{other}: another run or sweep, which would be lost with {folder}; another folder"
                " expected"
            )


def delete_run(place: Place, force: bool) -> None:
    """Delete an earlier run if `force` is true. Refuse to delete anything else.

    This process takes ownership first, so that a training still running in the folder ends.
    """
    folder = Folder.of(place)
    _check_replaceable(folder, force)
    take_ownership(folder)
    remove_run(folder)


def remove_run(folder: Folder) -> None:
    """Delete a run and its folder.

    The checkpoints are deleted first and `run.json` last, so that a deletion that is cut short can
    be repeated.
    """
    try:
        for name in checkpoint.MANIFESTS:
            folder.delete(name)
        for name in folder.list_subfolders():
            folder.subfolder(name).remove()
        for name in folder.list_files():
            if name != "run.json":
                folder.delete(name)
        folder.remove()
    except OSError as error:
        if error.errno in DISK_FAILED:
            raise
        raise Refusal(
            f"{folder}: written to while it was to be replaced; its removal by hand, or another"
            " folder, expected"
        ) from error


class TakenOver(Refusal):
    """Another training has taken ownership of this training's folder."""


def take_ownership(folder: Folder) -> str:
    """Make this process the owner of a run folder, and return the owner's token."""
    token = secrets.token_hex(8)
    folder.write(OWNER, token.encode())
    return token


def is_owner(folder: Folder, owner: str) -> bool:
    """Return whether a token still owns the folder; False if the folder was deleted."""
    try:
        return folder.read(OWNER).decode() == owner
    except FileNotFoundError:
        return False


def check_ownership(folder: Folder, owner: str) -> None:
    """Raise `TakenOver` if another training owns the folder.

    The error ends, for example, a worker that has outlived its driver.
    """
    if not is_owner(folder, owner):
        raise TakenOver(
            f"{folder}: another process trains this run, or the run was deleted; this process ends"
        )


def _check_same_run(config: Config, dataset: Dataset, folder: Folder, recipe: str) -> None:
    """Raise `Refusal` to resume a run of another recipe, other settings, or other data."""
    info = read_info(folder)
    if recipe and info["recipe"] != recipe:
        raise Refusal(
            f"{folder}: holds a run of '{info['recipe']}', not of '{recipe}'; another folder"
            " expected"
        )
    _refuse_other_settings(config, read_config(folder, info), folder)
    trained = max((epoch["epoch"] for epoch in read_epochs(folder)), default=0)
    if config.train.epochs < trained:
        raise Refusal(
            f"train.epochs: {config.train.epochs}, but the run in {folder} has {trained:.0f}"
            f" already; {trained:.0f} or more expected"
        )
    if info["data_digest"] != dataset.digest:
        raise Refusal(
            f"{folder}: trained on other data ({info['data']}); --resume needs the data it was"
            " started on"
        )


def _refuse_other_settings(config: Config, stored: Config, folder: Folder) -> None:
    """Raise `Refusal` for a changed setting that may not change when a run is resumed."""
    before, now = flatten(stored), flatten(config)
    free = set(FREE_TO_CHANGE)
    if config.train.schedule != "cosine":
        free.add("train.epochs")
    for name in now.keys() | before.keys():
        old, new = before.get(name), now.get(name)
        if old == new or name in free:
            continue
        reason = ", on which its cosine schedule depends" if name == "train.epochs" else ""
        # words and numbers can be copied from the hint to the command line
        is_plain = old.isidentifier() if isinstance(old, str) else isinstance(old, int | float)
        hint = f": {name}={old if isinstance(old, str) else json.dumps(old)}" if is_plain else ""
        raise Refusal(
            f"{name}: {new!r}, but the run in {folder} has {old!r}{reason}; --resume needs the same"
            f" value{hint}"
        )


def _update_epochs(config: Config, folder: Folder) -> None:
    """Store a changed number of epochs, so that a run continues for more or fewer epochs."""
    info = read_info(folder)
    stored = read_config(folder, info)
    if config.train.epochs == stored.train.epochs:
        return
    text = config_yaml(stored.with_("train", epochs=config.train.epochs))
    update_info(
        folder,
        config_sha256=hashlib.sha256(text).hexdigest(),
        config_sha256_before=info["config_sha256"],
    )
    folder.write("config.yaml", text)


def config_yaml(config: Config) -> bytes:
    """Return the content of config.yaml for a configuration."""
    import yaml

    return yaml.safe_dump(to_dict(config), sort_keys=False).encode()


def _write_config(config: Config, dataset: Dataset, folder: Folder, recipe: str) -> None:
    """Write run.json first, which marks the folder as a run, and then config.yaml."""
    text = config_yaml(config)
    program = provenance()
    info: RunInfo = {
        "version": checkpoint.VERSION,
        "recipe": recipe,
        "dims": dataset.dims,
        "shape": dataset.shape,
        "unit": dataset.unit,
        "data": dataset.name,
        "data_digest": dataset.digest,
        "rows": {split: len(rows) for split, rows in dataset.splits.items()},
        "recordings": [asdict(recording) for recording in dataset.recordings],
        "config_sha256": hashlib.sha256(text).hexdigest(),
        "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": program["commit"],
        "versions": program["versions"],
        "machine": program["machine"],
    }
    folder.write("run.json", json.dumps(info, indent=1).encode())
    folder.write("config.yaml", text)


def drop_later_epochs(folder: Folder, finished: int) -> None:
    """Delete the records of epochs after `finished`, because these epochs are trained again."""
    lines = [
        json.dumps(record) + "\n" for record in read_epochs(folder) if record["epoch"] <= finished
    ]
    folder.write("epochs.jsonl", "".join(lines).encode())


def update_info(folder: Folder, **changes: Unpack[RunInfo]) -> None:
    """Add or change facts in `run.json`."""
    info: RunInfo = {**read_info(folder), **changes}
    folder.write("run.json", json.dumps(info, indent=1).encode())
