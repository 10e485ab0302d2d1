"""Checkpoints: a safetensors file named by its content, and a JSON manifest with its checksum.

The tensors are written first and the manifest is replaced last, so a crash at any moment leaves the
old checkpoint intact. The last two states of a training are kept, in case a file of the last state
is lost.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from torch import Tensor

from distvae.estep.store import PopulationFile
from distvae.files.paths import require_memory
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.files.untrusted import Plain, Tree, error_text, parse_json
from distvae.interface import AnyEStep, AnyModel


class PositionFacts(TypedDict):
    """The position of a training, as a checkpoint stores it."""

    epoch: int
    batch: int
    best: float
    best_epoch: int
    seconds: float
    sigma: NotRequired[float]
    shift: NotRequired[int]


class CheckpointFacts(TypedDict, total=False):
    """The facts that a checkpoint stores besides tensors. `best` stores only the epoch."""

    epoch: int
    position: PositionFacts
    populations: Sequence[PopulationFile]
    arithmetic: Mapping[str, Plain]
    best: "Manifest | None"
    """The manifest of the best weights when the state was saved."""


class Manifest(TypedDict):
    """The JSON file of a checkpoint, which names its tensors by their checksum."""

    version: int
    tensors: str
    sha256: str
    facts: CheckpointFacts


VERSION = 1
MANIFESTS = ("best.json", "last.json", "previous.json")
"""The checkpoints of a run: the best weights, the last state, and the state before that."""
REQUIRED_KEYS = {"tensors": str, "sha256": str, "facts": dict}
"""The required keys of a manifest, and the types of their values."""
TENSOR_FILES = ("best-", "last-", "population-")
"""The name prefixes of files that manifests refer to."""
Place = str | Path | Folder


def save(place: Place, name: str, tensors: dict[str, Tensor], facts: CheckpointFacts) -> None:
    """Write a checkpoint, replacing the earlier checkpoint of the same name."""
    folder = Folder.of(place)
    folder.write(f"{name}.json", _write_tensors(folder, name, tensors, facts))
    delete_unreferenced(folder)


def pack_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as the content of a safetensors file."""
    from safetensors.torch import save as pack

    return pack({key: value.detach().cpu().contiguous() for key, value in tensors.items()})


def _write_tensors(
    folder: Folder, name: str, tensors: dict[str, Tensor], facts: CheckpointFacts
) -> bytes:
    """Write tensors to a new file, and return the content of the manifest that names it."""
    content = pack_tensors(tensors)
    digest = hashlib.sha256(content).hexdigest()
    file = f"{name}-{digest[:12]}.safetensors"
    folder.write(file, content)
    manifest: Manifest = {"version": VERSION, "tensors": file, "sha256": digest, "facts": facts}
    return json.dumps(manifest, indent=1).encode()


def save_last(folder: Folder, tensors: dict[str, Tensor], facts: CheckpointFacts) -> None:
    """Write the last state, with the manifest of the best weights. The old state becomes
    `previous`.

    If the same state is saved twice, as by Ctrl-C right after an epoch, `previous` stays unchanged.
    """
    best = read_manifest(folder, "best.json") if folder.has("best.json") else None
    manifest = _write_tensors(folder, "last", tensors, {**facts, "best": best})
    if folder.has("last.json"):
        old = read_manifest(folder, "last.json")
        if epoch_and_batch(old["facts"]) != epoch_and_batch(facts):
            folder.write("previous.json", folder.read("last.json"))
    folder.write("last.json", manifest)
    delete_unreferenced(folder)


def epoch_and_batch(facts: CheckpointFacts) -> tuple[int, int]:
    """Return the epoch and the batch of a state."""
    return facts["position"]["epoch"], facts["position"]["batch"]


def previous_epoch(folder: Folder) -> int | None:
    """Return the epoch of the state before the last, or None if no such state is kept."""
    content = folder.read("previous.json") if folder.has("previous.json") else b""
    was_restored = folder.has("last.json") and folder.read("last.json") == content
    if not content or was_restored:
        return None
    epoch, _ = epoch_and_batch(read_manifest(folder, "previous.json")["facts"])
    return epoch


def restore_previous(folder: Folder) -> int:
    """Make the previous state the last state again, and return its epoch."""
    epoch = previous_epoch(folder)
    if epoch is None:
        raise Refusal(
            f"{folder}: no checkpoint before the last is kept; --resume without --previous expected"
        )
    load(folder, "previous")
    folder.write("last.json", folder.read("previous.json"))
    return epoch


def restore_best(folder: Folder) -> None:
    """Restore the best weights as of the last state.

    Better weights from later epochs are dropped, because these epochs are trained again.
    """
    if not folder.has("last.json"):
        folder.delete("best.json")
        return
    facts = read_manifest(folder, "last.json")["facts"]
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
            populations = manifest["facts"].get("populations", [])
            needed |= {manifest["tensors"], *(kept["file"] for kept in populations)}
            if best := manifest["facts"].get("best"):
                needed.add(best["tensors"])
    for file in folder.list_files():
        if file not in needed and file.lstrip(".").startswith(TENSOR_FILES):
            folder.delete(file)


def load(place: Place, name: str) -> tuple[dict[str, Tensor], CheckpointFacts]:
    """Return the tensors and facts of a checkpoint, after verifying its checksum."""
    from safetensors import SafetensorError
    from safetensors.torch import load as unpack

    folder = Folder.of(place)
    manifest = read_manifest(folder, f"{name}.json")
    file = manifest["tensors"]
    try:
        require_memory(f"{folder}/{file}", 2 * folder.size(file), "weights of this size")
        content = folder.read(file)
    except OSError as error:
        raise Refusal(f"{folder}/{file}: {_reason(error)}; {name}.json names it") from error
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise Refusal(
            f"{folder}/{file}: altered or damaged: its checksum is not the one in {name}.json"
        )
    try:
        return unpack(content), manifest["facts"]
    except SafetensorError as error:
        raise Refusal(
            f"{folder}/{file}: no safetensors ({error_text(error)}); the weights that training"
            " wrote expected"
        ) from error


def read_manifest(place: Place, name: str) -> Manifest:
    """Return the manifest of a checkpoint."""
    document = read_document(place, name)
    for key, kind in REQUIRED_KEYS.items():
        if not isinstance(document.get(key), kind):
            raise Refusal(
                f"{Folder.of(place)}/{name}: altered or damaged: no '{key}' in it; the one that"
                " training wrote expected"
            )
    return cast(Manifest, document)


def read_document(place: Place, name: str) -> Tree:
    """Return the content of a JSON file of a run folder, or refuse an unknown version."""
    folder = Folder.of(place)
    try:
        content = folder.read(name)
    except OSError as error:
        raise Refusal(
            f"{folder}/{name}: {_reason(error)}; a file that training writes is expected"
        ) from error
    document = parse_json(content, f"{folder}/{name}")
    version = document.get("version")
    if not isinstance(version, int):
        raise Refusal(
            f"{folder}/{name}: altered or damaged: no 'version' in it; the one that training wrote"
            " expected"
        )
    if version > VERSION:
        raise Refusal(
            f"{folder}/{name}: written by a newer distvae (format {version}; {VERSION} is known"
            " here); upgrade to read it"
        )
    return document


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return error.strerror or str(error)


def tensors_below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix.`, with this prefix removed."""
    found = {}
    for name, value in tensors.items():
        if name.startswith(f"{prefix}."):
            found[name.removeprefix(f"{prefix}.")] = value
    return found


def weights(model: AnyModel, estep: AnyEStep) -> dict[str, Tensor]:
    """Return the parameters and buffers of the model and the E-step, by name."""
    found = {}
    for part, module in (("model", model), ("estep", estep)):
        for name, value in module.state_dict().items():
            found[f"{part}.{name}"] = value
    return found


def load_weights(model: AnyModel, estep: AnyEStep, tensors: dict[str, Tensor]) -> None:
    """Set the parameters and buffers of the model and the E-step, by name."""
    model.load_state_dict(tensors_below("model", tensors))
    estep.load_state_dict(tensors_below("estep", tensors))
