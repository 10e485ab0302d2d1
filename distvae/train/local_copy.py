"""Keep a run's state on shared storage, and a local copy of its results.

The copy includes everything except the populations.
"""

import json
import secrets
from pathlib import Path

from distvae.files.paths import partial_name
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder, without_password
from distvae.train.checkpoint import delete_unreferenced, read_manifest
from distvae.train.documents import RunInfo
from distvae.train.run import read_info
from distvae.train.run_folder import delete_run

COPIED_FILES = ("config.yaml", "epochs.jsonl", "events.jsonl")
COPIED_CHECKPOINTS = ("best", "last")


def state_folder(local: Path, storage: str | None, resume: bool, force: bool) -> Folder:
    """Return the folder of a run's state: the local folder, or a subfolder of the storage.

    A storage that only `run.json` names is refused, because the file may come from a stranger.
    """
    if storage is None:
        if resume:
            _refuse_recorded_storage(local)
        return Folder(local)
    folder = Folder(storage).subfolder(local.name)
    _check_storage(folder)
    if not resume and not Folder(local).is_empty():
        delete_run(local, force)
    local.mkdir(parents=True, exist_ok=True)
    return folder


def _refuse_recorded_storage(local: Path) -> None:
    """Refuse to resume a local copy of a run whose state is on a storage."""
    recorded = read_info(local).get("storage") if (local / "run.json").is_file() else None
    if recorded:
        above = str(recorded).partition("?")[0].rstrip("/").rpartition("/")[0]
        raise Refusal(f"{local}: its state is in {recorded}; --resume --storage {above} expected")


def _check_storage(folder: Folder) -> None:
    """Write, read and delete a test file, before anything is computed."""
    folder = folder.with_short_timeout()
    name, content = partial_name("look"), secrets.token_bytes(8)
    try:
        folder.write(name, content)
        returned = folder.read(name)
        folder.delete(name)
    except OSError as error:
        raise Refusal(
            f"--storage: {folder}: {cause(error)}; a place that can be written expected"
        ) from error
    if returned != content:
        raise Refusal(f"--storage: {folder}: returns other bytes than were written")


def update_local_copy(folder: Folder, local_path: Path) -> None:
    """Copy the results of a run to the local folder, and delete the weights of earlier copies.

    Do nothing if the run's state is in the local folder.
    """
    local = Folder(local_path)
    if folder.place == local.place or not folder.has("run.json"):
        return
    for name in COPIED_FILES:
        if folder.has(name):
            local.write(name, folder.read(name))
    for name in COPIED_CHECKPOINTS:
        if folder.has(f"{name}.json"):
            tensors = read_manifest(folder, f"{name}.json")["tensors"]
            local.write(tensors, folder.read(tensors))
            local.write(f"{name}.json", folder.read(f"{name}.json"))
    delete_unreferenced(local)
    info: RunInfo = {**read_info(folder), "storage": without_password(folder.place)}
    local.write("run.json", json.dumps(info, indent=1).encode())
