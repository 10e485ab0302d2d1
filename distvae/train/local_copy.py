"""A run whose folder is on a storage that many machines share, and the copy of it here: all but the
populations.
"""

import json
import secrets
from pathlib import Path

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder, without_password
from distvae.train.checkpoint import delete_unreferenced, read_manifest
from distvae.train.run import read_info
from distvae.train.run_folder import delete_run

COPIED = ("config.yaml", "epochs.jsonl", "events.jsonl")
WEIGHTS = ("best", "last")


def state_folder(local: Path, storage: str | None, resume: bool, force: bool) -> Folder:
    """Where a run's state is kept: in its folder here, or below a storage that was named now or
    when it began.
    """
    if storage is None:
        known = (
            read_info(local).get("storage") if resume and (local / "run.json").is_file() else None
        )
        if known:
            _refuse_out_of_reach(Folder(known))
        return Folder(known or local)
    there = Folder(storage).subfolder(local.name)
    _refuse_out_of_reach(there)
    if not resume and not Folder(local).is_empty():
        delete_run(local, force)
    local.mkdir(parents=True, exist_ok=True)
    return there


def _refuse_out_of_reach(folder: Folder) -> None:
    """Write a file and read it again, before anything is computed."""
    folder = folder.with_short_timeout()
    name, content = f"look-{secrets.token_hex(4)}", secrets.token_bytes(8)
    try:
        folder.write(name, content)
        kept = folder.read(name)
        folder.delete(name)
    except OSError as error:
        cause = " ".join(str(error).split())
        raise Refusal(
            f"--storage: {folder}: {cause}; a place that can be written expected"
        ) from error
    if kept != content:
        raise Refusal(f"--storage: {folder}: gives back other bytes than were written")


def update_local_copy(there: Folder, local: Path) -> None:
    """Copy here what can be looked at, and delete the weights of earlier copies; nothing where the
    run is here.
    """
    here = Folder(local)
    if there.place == here.place or not there.has("run.json"):
        return
    for name in COPIED:
        if there.has(name):
            here.write(name, there.read(name))
    for name in WEIGHTS:
        if there.has(f"{name}.json"):
            file = read_manifest(there, f"{name}.json")["tensors"]
            here.write(file, there.read(file))
            here.write(f"{name}.json", there.read(f"{name}.json"))
    delete_unreferenced(here)
    here.write(
        "run.json",
        json.dumps(
            read_info(there) | {"storage": without_password(there.place)}, indent=1
        ).encode(),
    )
