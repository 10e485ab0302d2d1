"""Pushed models: folders with a trained model and its card, and no facts about the machine.

A pushed folder opens like a run folder. Its file names follow the Hugging Face hub.
"""

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path

from distvae.config import Config, to_dict
from distvae.config.data import CSV
from distvae.config.recipes import recipe_name
from distvae.files.paths import check_writable_folder
from distvae.files.program import refuse_missing
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.files.untrusted import error_text
from distvae.share.card import CARD, EPOCHS, SUMMARIES, Card, summaries
from distvae.train.checkpoint import read_manifest
from distvae.train.run_folder import (
    config_yaml,
    read_config,
    read_info,
    refuse_untrained,
    size_of_rows,
)

HUB = re.compile(r"hf://([\w-][\w.-]*/[\w-][\w.-]*)")
"""A repository of the hub."""
WEIGHTS = "model.safetensors"
FACTS = (
    *("version", "dims", "shape", "unit", "data", "data_digest", "rows", "val_rows"),
    *("begun", "commit", "versions", "seconds", "epochs", "range"),
)
"""The fields of `run.json` to keep. All other fields name the machine, storage, recordings or
processors.
"""


def push(run: Path, destination: str) -> None:
    """Write a trained model and its card to a new folder, or to a repository of the hub."""
    if repository := HUB.fullmatch(destination):
        _upload(run, repository[1])
    elif "://" in destination or Path(destination).exists():
        raise Refusal(f"{destination}: a new folder or hf://OWNER/NAME expected")
    else:
        check_writable_folder(Path(destination))
        _export(run, Path(destination))


def _upload(run: Path, repository: str) -> None:
    """Write a model to the hub in one commit. A new repository is private."""
    refuse_missing(f"hf://{repository}", "huggingface_hub")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        _export(run, folder)
        try:
            from huggingface_hub import HfApi

            HfApi().create_repo(repository, private=True, exist_ok=True)
            HfApi().upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message="Push a model of distvae",
                delete_patterns=[EPOCHS, *SUMMARIES],
            )
        except Exception as error:  # the hub's client and the network raise errors of many types
            raise Refusal(
                f"hf://{repository}: {error_text(error)}; a repository that can be reached expected"
            ) from error


def _export(run: Path, folder: Path) -> None:
    """Write the files of a pushed model. The file that makes it openable is written last."""
    info = read_info(run)
    size_of_rows(run, info)
    refuse_untrained(run)
    manifest = read_manifest(run, "best.json")
    config = _without_places(read_config(run, info))
    settings = config_yaml(config)
    facts = {name: value for name, value in info.items() if name in FACTS}
    facts["recipe"] = recipe_name(info["recipe"])
    facts["config_sha256"] = hashlib.sha256(settings).hexdigest()
    with Folder(run).open_verified(manifest["tensors"], manifest["sha256"]) as weights:
        folder.mkdir(parents=True)
        with (folder / WEIGHTS).open("wb") as file:
            shutil.copyfileobj(weights, file)
    for name in (*summaries(run), EPOCHS):
        if (run / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / name, folder / name)
    (folder / CARD).write_bytes(str(Card(run)).encode())
    (folder / "config.yaml").write_bytes(settings)
    documents = {
        "config.json": {"model_type": config.model.kind, **to_dict(config)},
        "run.json": facts,
        "best.json": {**manifest, "tensors": WEIGHTS},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=1))


def _without_places(config: Config) -> Config:
    """Return a configuration in which a path or URI is cut to its last name."""
    changes = {}
    if "/" in config.data.path:
        changes["path"] = config.data.path.partition("?")[0].rstrip("/").rpartition("/")[2]
    table = getattr(config.data, "speakers", "")
    if table.startswith(CSV):
        changes["speakers"] = CSV + Path(table.removeprefix(CSV)).name
    named = config.with_("data", **changes)
    return named.with_("estep", mapped=None) if hasattr(config.estep, "mapped") else named
