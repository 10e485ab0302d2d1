"""Checkpoints: a safetensors file named by its content, and a JSON manifest that names and checks
it.

The tensors are written first and the manifest replaced last, so a crash at any moment leaves the
old one whole. The last two states of a training are kept: should a file of the newer be lost, there
is the one before it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.files.untrusted import parse_json

VERSION = 1
MANIFESTS = ("best.json", "last.json", "previous.json")
"""What checkpoints there are: the best weights, the state to go on from, and the state before that.
"""

NEEDED = ("tensors", "sha256", "facts")
"""What each of them says."""

Place = str | Path | Folder


def save(place: Place, name: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write the checkpoint of a name, replacing the one before."""
    folder = Folder.of(place)
    folder.write(f"{name}.json", _stored(folder, name, tensors, facts))
    delete_unreferenced(folder)


def _stored(folder: Folder, name: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> bytes:
    """Write tensors to a new file; the manifest that will name it."""
    from safetensors.torch import save as pack

    content = pack({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    file = f"{name}-{digest[:12]}.safetensors"
    folder.write(file, content)
    manifest = {"version": VERSION, "tensors": file, "sha256": digest, "facts": facts}
    return json.dumps(manifest, indent=1).encode()


def save_last(folder: Folder, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write the last state, which names the best weights until then; what was the last is the
    previous one now.

    A state saved twice, as by Ctrl-C right after an epoch, replaces itself: the previous one stays
    an earlier one.
    """
    best = read_manifest(folder, "best.json") if folder.has("best.json") else None
    manifest = _stored(folder, "last", tensors, facts | {"best": best})
    if folder.has("last.json") and _reached(
        read_manifest(folder, "last.json")["facts"]
    ) != _reached(facts):
        folder.write("previous.json", folder.read("last.json"))
    folder.write("last.json", manifest)
    delete_unreferenced(folder)


def _reached(facts: dict[str, Any]) -> tuple[int, int]:
    """How far the training was whose state was saved."""
    return facts["position"]["epoch"], facts["position"]["batch"]


def previous_epoch(folder: Folder) -> int | None:
    """The epoch of the state before the last, if one is kept."""
    kept = folder.read("previous.json") if folder.has("previous.json") else b""
    if not kept or (
        folder.has("last.json") and folder.read("last.json") == kept
    ):  # it has been gone back to
        return None
    return _reached(read_manifest(folder, "previous.json")["facts"])[0]


def restore_previous(folder: Folder) -> int:
    """Make the previous state the last again; the epoch it goes on from."""
    if (epoch := previous_epoch(folder)) is None:
        raise Refusal(
            f"{folder}: no checkpoint before the last is kept; --resume without --previous expected"
        )
    load(folder, "previous")
    folder.write("last.json", folder.read("previous.json"))
    return epoch


def restore_best(folder: Folder) -> None:
    """Make the best weights those that the last state knows; what was better since then is trained
    again.
    """
    facts = (
        read_manifest(folder, "last.json")["facts"] if folder.has("last.json") else {"best": None}
    )
    if facts.get("best"):
        folder.write("best.json", json.dumps(facts["best"], indent=1).encode())
    elif "best" in facts:
        folder.delete("best.json")


def delete_unreferenced(folder: Folder) -> None:
    """Delete the tensors and populations that no checkpoint names."""
    needed: set[str] = set()
    for name in MANIFESTS:
        if folder.has(name):
            manifest = read_manifest(folder, name)
            facts = manifest["facts"]
            needed |= {
                manifest["tensors"],
                *(kept["file"] for kept in facts.get("populations", [])),
            }
            needed |= {facts["best"]["tensors"]} if facts.get("best") else set()
    for file in folder.list_files():
        if file not in needed and file.lstrip(".").startswith(("best-", "last-", "population-")):
            folder.delete(file)


def load(place: Place, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a checkpoint, after its checksum has been checked."""
    from safetensors.torch import load as unpack

    folder = Folder.of(place)
    manifest = read_manifest(folder, f"{name}.json")
    file = Path(manifest["tensors"]).name
    try:
        content = folder.read(file)
    except OSError as error:
        raise Refusal(f"{folder}/{file}: {read_error(error)}; {name}.json names it") from error
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise Refusal(
            f"{folder}/{file}: altered or damaged: its checksum is not the one in {name}.json"
        )
    return unpack(content), manifest["facts"]


def read_manifest(place: Place, name: str) -> dict[str, Any]:
    """A JSON file of a version this program knows."""
    folder = Folder.of(place)
    try:
        content = folder.read(name)
    except OSError as error:
        raise Refusal(
            f"{folder}/{name}: {read_error(error)}; a file that training writes is expected"
        ) from error
    manifest = parse_json(content, f"{folder}/{name}")
    if not isinstance(version := manifest.get("version"), int):
        raise Refusal(
            f"{folder}/{name}: altered or damaged: no 'version' in it; the one that training wrote"
            " expected"
        )
    if version > VERSION:
        raise Refusal(
            f"{folder}/{name}: written by a newer distvae (format {version}; {VERSION} is known"
            " here); upgrade to read it"
        )
    if name in MANIFESTS and (missing := [key for key in NEEDED if key not in manifest]):
        raise Refusal(
            f"{folder}/{name}: altered or damaged: no '{missing[0]}' in it; the one that training"
            " wrote expected"
        )
    return manifest


def read_error(error: OSError) -> str:
    """Why a file cannot be read, in a few words."""
    return (
        "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
    )
