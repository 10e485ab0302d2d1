"""Branches of a run: another run that continues from its last state, with other settings.

A branch has the weights, the moments of the optimiser, the populations and the position of the run
that it continues. Its records begin with its own first epoch, and its best weights are the best of
its own epochs: under other settings the objectives of earlier ones need not compare.
"""

import hashlib
import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.config import Config
from distvae.files.refusal import Refusal
from distvae.files.untrusted import check_plain

if TYPE_CHECKING:
    from distvae.train.documents import CheckpointFacts, Lineage


def saved_epoch(folder: Path) -> int:
    """Return the epoch of a run's last state; 0 if there is none, -1 if it is within an epoch."""
    from distvae.train import checkpoint

    if not (folder / "run.json").exists() or not (folder / "last.json").exists():
        return 0
    facts = checkpoint.read_manifest(folder, "last.json")["facts"]
    epoch, batch = checkpoint.epoch_and_batch(facts)
    return -1 if batch else epoch


def lineage_of(folder: Path) -> "Lineage | None":
    """Return where the run in a folder continues from, if it is a branch."""
    from distvae.train.run import read_info

    return read_info(folder).get("lineage") if (folder / "run.json").exists() else None


def lineage_tags(folder: Path) -> dict[str, str]:
    """Return where a run continues from, as tags for MLflow."""
    lineage = lineage_of(folder)
    return {f"lineage.{name}": str(value) for name, value in (lineage or {}).items()}


def branch(origin: Path, target: Path, config: Config, lineage: "Lineage") -> None:
    """Make a run that continues from the last state of another; the folder appears complete.

    Raise `Refusal` if that is not its state after the epoch of the lineage.
    """
    if saved_epoch(origin) != lineage["epoch"]:
        raise Refusal(
            f"{origin}: its last state is not that of epoch {lineage['epoch']}, from which trial"
            f" {target.name} continues; the folder as the sweep left it expected"
        )
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_state(origin, partial)
    _write_settings(origin, partial, config, lineage)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _write_state(origin: Path, target: Path) -> None:
    """Copy the last state, without what it knows of earlier best weights."""
    from distvae.train import checkpoint

    manifest = checkpoint.read_manifest(origin, "last.json")
    facts = manifest["facts"]
    for name in _files(manifest["tensors"], facts):
        check_plain(name, str(origin / "last.json"))
        _link(origin / name, target / name)
    position = facts["position"]
    position["best"], position["best_epoch"] = -math.inf, position["epoch"]
    facts["best"] = None
    (target / "last.json").write_text(json.dumps(manifest, indent=1))


def _files(tensors: str, facts: "CheckpointFacts") -> list[str]:
    """Return the files of a state: tensors and populations."""
    return [tensors, *(population["file"] for population in facts.get("populations", []))]


def _link(origin: Path, target: Path) -> None:
    """Give a file, which nobody writes into, another name; copy it where that cannot be."""
    try:
        os.link(origin, target)
    except OSError:
        shutil.copyfile(origin, target)


def _write_settings(origin: Path, target: Path, config: Config, lineage: "Lineage") -> None:
    """Write the configuration and the facts of a branch."""
    from distvae.train.run import read_info
    from distvae.train.run_folder import config_yaml

    text = config_yaml(config)
    (target / "config.yaml").write_bytes(text)
    info = read_info(origin)
    info["config_sha256"] = hashlib.sha256(text).hexdigest()
    info["begun"], info["lineage"] = time.strftime("%Y-%m-%dT%H:%M:%S%z"), lineage
    info["epochs"] = lineage["epoch"]
    info.pop("config_sha256_before", None)
    (target / "run.json").write_text(json.dumps(info, indent=1))
