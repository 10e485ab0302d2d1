"""Pushed models: folders with a trained model and its card, and nothing about the machine.

Such a folder opens as the folder of a run. Its names are those of the Hugging Face hub, and
`sha256sum -c SHA256SUMS` checks it. The card may be edited, so it has no checksum.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from distvae.config import Config, to_dict
from distvae.config.data.speech import CSV
from distvae.config.recipes import recipe_name
from distvae.data.folders import build_once, cache_folder
from distvae.files.refusal import Refusal, shown
from distvae.files.storage import Folder
from distvae.share.card import Card
from distvae.share.names import CARD, EPOCHS, LISTED, NEEDED, SUMMARIES, SUMS, WEIGHTS
from distvae.share.places import Place, place_of
from distvae.train.checkpoint import read_manifest
from distvae.train.documents import Manifest, RunInfo
from distvae.train.run import read_config, read_info, refuse_untrained, size_of_rows
from distvae.train.run_folder import config_yaml

MAX_SUMS = 2**16
"""Bytes that the file of checksums may have."""
LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
FACTS = (
    *("version", "recipe", "dims", "shape", "unit", "data", "data_digest", "rows", "val_rows"),
    *("begun", "commit", "versions", "seconds", "epochs", "range"),
)
"""What is kept of `run.json`. The others name the machine, storage, recordings and processors."""


def push(run: Path, destination: str, force: bool = False) -> str:
    """Write a trained model and its card to a folder, a URI or the hub.

    Return the place without passwords and options.
    """
    place = place_of(destination)
    place.write(export(run), force)
    return str(place)


def load_into(source: str, folder: Path, force: bool = False) -> None:
    """Copy a pushed model into a folder, after verifying it."""
    place = place_of(source)
    place_of(str(folder)).write(_read_model(place, _read_sums(place)), force)


def fetch(source: str) -> Path:
    """Return a folder of the cache with a pushed model, after verifying it."""
    place = place_of(source)
    sums = _read_sums(place)
    folder = cache_folder() / "models" / hashlib.sha256(sums).hexdigest()[:32]
    build_once(folder, lambda part: place_of(str(part)).write(_read_model(place, sums), False))
    return folder


def export(run: Path) -> dict[str, bytes]:
    """Return the files of a pushed model, by name."""
    info = read_info(run)
    size_of_rows(run, info)
    versions = info.get("versions")
    if not isinstance(versions, dict) or "distvae" not in versions:
        raise Refusal(
            f"{run}/run.json: versions: {shown(versions)}; that of distvae expected, as training"
            " wrote it"
        )
    refuse_untrained(run)
    manifest = read_manifest(run, "best.json")
    config = _without_places(read_config(run, info))
    settings = config_yaml(config)
    with Folder(run).open_verified(manifest["tensors"], manifest["sha256"]) as stream:
        weights = bytes(stream.read())
    files = {
        "best.json": _json(cast(Manifest, {**manifest, "tensors": WEIGHTS})),
        "config.json": _json({"model_type": config.model.kind, **to_dict(config)}),
        "config.yaml": settings,
        WEIGHTS: weights,
        "run.json": _json(_public_facts(info, settings)),
    }
    for name in (EPOCHS, *SUMMARIES):
        if (run / name).is_file():
            files[name] = (run / name).read_bytes()
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()]
    return {CARD: str(Card(run)).encode(), **files, SUMS: "".join(sums).encode()}


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, indent=1).encode()


def _public_facts(info: RunInfo, settings: bytes) -> dict[str, object]:
    facts: dict[str, object] = {name: value for name, value in info.items() if name in FACTS}
    facts["recipe"] = recipe_name(info["recipe"])
    return facts | {"config_sha256": hashlib.sha256(settings).hexdigest()}


def _without_places(config: Config) -> Config:
    """Return a configuration that names data by its last name, without folders and URIs, and no
    folder of populations.
    """
    changes = {}
    if "/" in config.data.path:
        changes["path"] = config.data.path.partition("?")[0].rstrip("/").rpartition("/")[2]
    table = getattr(config.data, "speakers", "")
    if table.startswith(CSV):
        changes["speakers"] = CSV + Path(table.removeprefix(CSV)).name
    named = config.with_("data", **changes)
    return named.with_("estep", mapped=None) if hasattr(config.estep, "mapped") else named


def _read_sums(place: Place) -> bytes:
    sums = place.read(SUMS)
    if len(sums) > MAX_SUMS:
        raise Refusal(f"{place}/{SUMS}: {len(sums):,} bytes; at most {MAX_SUMS:,} expected")
    return sums


def _read_model(place: Place, sums: bytes) -> dict[str, bytes]:
    """Return the files that are listed, and the card, after verifying them."""
    files = {CARD: place.read(CARD)}
    for name, digest in _listed_checksums(place, sums).items():
        content = place.read(name)
        if hashlib.sha256(content).hexdigest() != digest:
            raise Refusal(f"{place}/{name}: altered or damaged: its checksum is not that in {SUMS}")
        files[name] = content
    return {**files, SUMS: sums}


def _listed_checksums(place: Place, sums: bytes) -> dict[str, str]:
    """Return the checksums of the files that are listed. Refuse files that no model has."""
    listed = {}
    for line in sums.decode(errors="replace").splitlines():
        found = LINE.fullmatch(line)
        if not found or found[2] not in LISTED:
            raise Refusal(
                f"{place}/{SUMS}: {shown(line)}; checksums of the files that 'distvae push' writes"
                " expected"
            )
        listed[found[2]] = found[1]
    for name in NEEDED:
        if name not in listed:
            raise Refusal(f"{place}/{SUMS}: lists no {name}; a complete model expected")
    return listed
