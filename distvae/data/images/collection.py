"""Images from any supported source: batches of CIFAR-10, an .npz archive, or a folder of
pictures.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from distvae.config import ImageData
from distvae.data import files, folders
from distvae.data.dataset import Dataset, Labels
from distvae.data.images import archive, cifar, folder
from distvae.data.images.source import Scaled, Source
from distvae.files.kinds import PICTURES
from distvae.files.paths import resolve_path
from distvae.files.refusal import Refusal

FORMAT = 1  # of the preparation; a change gives another digest
EXPECTED = f"CIFAR-10's batches, an .npz archive, or pictures ({', '.join(PICTURES)}) expected"


def open_images(config: ImageData, quiet: bool = False) -> Dataset:
    """Return images by split, flat and scaled to [0, 1] when they are indexed."""
    root = _root(config)
    source = read_collection(root, config, quiet)
    parts = source.divide(config)
    distinct: dict[int, Scaled] = {}
    rows = {
        name: distinct.setdefault(id(places), Scaled(source.pixels, places))
        for name, places in parts.items()
    }
    name = f"{root.stem}: {source.note}" if source.note else root.stem
    digest, shape = _digest(source, config), source.pixels.shape[1:]
    named = parts if source.files else {}
    pictures = {name: [source.files[place] for place in places] for name, places in named.items()}
    return Dataset(name, "image", digest, rows, root, pictures=pictures, shape=shape)


def _digest(source: Source, config: ImageData) -> str:
    """Return a digest of the images and their splits. That broken ones are left out is not a part
    of it, unless it changes the split of the others.
    """
    settings = asdict(config) | {"path": ""}
    del settings["skip_broken"]
    if config.split == "auto":  # digests are older than this setting
        del settings["split"]
    facts = [FORMAT, settings, source.digest, *source.drawn_from(config)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def read_labels(config: ImageData) -> dict[str, Labels] | None:
    """Return the class of every image by split, in the order of the images; None if the source has
    no classes.
    """
    source = read_collection(_root(config), config, quiet=True)
    if source.labels is None:
        return None
    return {name: source.labels[places] for name, places in source.divide(config).items()}


def find_archives(root: Path) -> list[Path]:
    """Return the .npz archives of a folder that are not hidden."""
    return sorted(path for path in root.glob("*.npz") if not path.name.startswith("."))


def read_collection(root: Path, config: ImageData, quiet: bool = False) -> Source:
    """Return all images at a path."""
    if root.suffix.lower() == ".npz":
        return _as_asked(archive.read_archive(root), root, config)
    if (found := cifar.find(root)) is not None:
        return _as_asked(cifar.read_cifar(*found), root, config)
    archives = find_archives(root)
    if len(archives) > 1:
        raise Refusal(
            f"{root}: holds {', '.join(path.name for path in archives)}; name one of them in"
            " data.path"
        )
    if archives:
        return _as_asked(archive.read_archive(archives[0]), root, config)
    if not files.list_files(root, PICTURES):
        raise Refusal(f"{root}: holds no images known here; {EXPECTED}")
    return folder.read_folder(root, config, quiet)


def _root(config: ImageData) -> Path:
    path = resolve_path(config.path, "data.path")
    if config.path and path.suffix.lower() == ".npz":
        if not path.is_file():
            raise Refusal(f"data.path: {config.path} is no file; an .npz archive expected")
        return path
    root = folders.find_data_folder(config.path, "images")
    if root is None:
        raise Refusal(
            f"data.path: empty, and $DISTVAE_DATA is not set; {EXPECTED}; docs/data.md says where"
            " to get them"
        )
    return root


def _as_asked(source: Source, root: Path, config: ImageData) -> Source:
    """Return the source, or refuse a size or colour that its arrays do not have."""
    channels, *size = source.pixels.shape[1:]
    colour = {1: "grey", 3: "rgb"}[channels]
    if config.size not in (None, tuple(size)):
        raise Refusal(
            f"data.size: {list(config.size)}, and {root} has images of {size}; that or null"
            " expected"
        )
    if config.colour not in ("keep", colour):
        raise Refusal(
            f"data.colour: '{config.colour}', and {root} has images in {colour}; that or keep"
            " expected"
        )
    return source
