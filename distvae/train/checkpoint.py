"""Checkpoints: a safetensors file named by its content, and a JSON manifest that names and checks it.

The tensors are written first and the manifest replaced last, so a crash at any moment leaves the old one whole.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from distvae.refusal import Refusal

VERSION = 1


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by new content, or leave it as it is."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def save(folder: Path, name: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write the checkpoint of a name, replacing the one before."""
    from safetensors.torch import save as pack

    content = pack({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    file = f"{name}-{digest[:12]}.safetensors"
    write_atomically(folder / file, content)
    manifest = {"version": VERSION, "tensors": file, "sha256": digest, "facts": facts}
    write_atomically(folder / f"{name}.json", json.dumps(manifest, indent=1).encode())
    for old in folder.glob(f"{name}-*.safetensors"):
        if old.name != file:
            old.unlink(missing_ok=True)


def load(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a checkpoint, after its checksum has been checked."""
    from safetensors.torch import load as unpack

    manifest = read_manifest(folder / f"{name}.json")
    path = folder / Path(manifest["tensors"]).name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; {name}.json names it") from error
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise Refusal(f"{path}: altered or damaged: its checksum is not the one in {name}.json")
    return unpack(content), manifest["facts"]


def read_manifest(path: Path) -> dict[str, Any]:
    """A JSON file of a version this program knows."""
    try:
        manifest = json.loads(path.read_bytes())
        version = int(manifest["version"])
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; a file that training writes is expected") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(f"{path}: altered or damaged: not the JSON that training writes") from error
    if version > VERSION:
        raise Refusal(
            f"{path}: written by a newer distvae (format {version}; {VERSION} is known here); upgrade to read it"
        )
    return dict(manifest)
