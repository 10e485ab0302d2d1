"""The report of `distvae data check` on images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from distvae.config import IdxData, ImageData
from distvae.data import files
from distvae.data.broken import describe_skipped, find_broken, refuse_lost_splits
from distvae.data.dataset import Labels
from distvae.data.images import cifar, collection, folder, idx
from distvae.data.images.source import divide_images
from distvae.data.picture_file import plain_head
from distvae.data.signals import UNREAD, read_plain_picture
from distvae.data.survey import Survey, checked_config, count_rows
from distvae.files.kinds import PICTURES, SOUNDS
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal

SHOWN = 5
"""Sizes that are named where there may be many."""
LARGEST = 128
"""Pixels along the longer side of pictures that need not be made smaller to train on them."""


def survey_idx(path: str) -> Survey | None:
    """Return what a folder of idx files holds."""
    root = Path(path)
    if not any(root.glob("*-images[-.]idx3-ubyte*")):
        return None
    config = IdxData(path=path)
    dataset = idx.open_images(config)
    classes: dict[str, Plain]
    try:
        classes = {"classes": _count_classes(idx.read_labels(config))}
    except Refusal as refusal:
        classes = {"labels": f"none: {refusal}"}
    counts: dict[str, dict[str, float]] = {}
    for split in ("train", "test"):
        counts[split] = {"images": len(dataset.splits[split])}
    return Survey(path, "idx files", "idx", counts, _shape(dataset.shape) | classes)


def survey_images(path: str, decoded: bool, settings: Sequence[str] = ()) -> Survey | None:
    """Return what an archive, CIFAR-10's files or a folder of pictures holds under some settings.
    Decode every picture to find broken ones, if wanted.

    A folder with at least as many recordings as pictures is left to speech.
    """
    root = Path(path)
    if root.is_file():
        return _survey_arrays(path, settings) if root.suffix.lower() == ".npz" else None
    if cifar.find(root) is not None:
        return _survey_arrays(path, settings)
    recordings = files.list_files(root, SOUNDS)
    if not recordings and collection.find_archives(root):
        return _survey_arrays(path, settings)
    if len(files.list_files(root, PICTURES)) <= len(recordings):
        return None
    return _survey_pictures(path, decoded, settings)


def _survey_arrays(path: str, settings: Sequence[str]) -> Survey:
    config: ImageData = checked_config("images", path, settings)
    source = collection.read_collection(Path(path), config)
    dataset = collection.open_images(config)
    facts = _shape(dataset.shape) | {"classes": _count_classes(collection.read_labels(config))}
    counts = count_rows(dataset, "images")
    wrong = _incomplete(source.note)
    return Survey(path, source.layout, "images", counts, facts, wrong, settings=tuple(settings))


def _survey_pictures(path: str, decoded: bool, settings: Sequence[str]) -> Survey:
    """Return what a folder of pictures holds, by their headers."""
    root, config = Path(path), checked_config("images", path, settings)
    found, layout = folder.find_pictures(root)
    names = [picture.file for picture in found]
    broken = find_broken(root, names, read_plain_picture, quiet=False) if decoded else {}
    kept = [picture for picture in found if picture.file not in broken]
    paths = [root / picture.file for picture in kept]
    heads = list(files.map_in_order(files.or_refusal(plain_head), paths))
    readable = [head for head in heads if not isinstance(head, Refusal)]
    refused = (str(head) for head in heads if isinstance(head, Refusal))
    unreadable = (*({} if config.skip_broken else broken).values(), *refused)
    if config.skip_broken:
        splits_of = [[picture.split for picture in pictures] for pictures in (found, kept)]
        refuse_lost_splits(root, broken, *splits_of)
        found = kept

    counts = folder.count_by_split(found)
    sizes = Counter((head.height, head.width) for head in readable)
    most_frequent = {f"{h} x {w}": count for (h, w), count in sizes.most_common(SHOWN)}
    classes = {picture.class_name for picture in found}
    has_classes = len(classes) > 1 and "" not in classes
    facts: dict[str, Plain] = {
        "sizes": len(sizes),
        "most frequent": most_frequent,
        "grey": sum(head.mode == "L" for head in readable),
        "classes": len(classes) if has_classes else "none",
    }
    if config.skip_broken and broken:
        facts["left out"] = describe_skipped(broken)
    needed = []
    if config.size is None and sizes and not layout.startswith("CelebA"):
        needed = _needed_size(sizes)

    missing = folder.CELEBA.short_of(counts) if layout.startswith("CelebA") else ""
    wrong = [*_incomplete(missing), *filter(None, [files.describe_unread(root, UNREAD)])]
    splits: dict[str, dict[str, float]] = {}
    try:
        splits = _split_sizes(counts, config)
    except Refusal as refusal:
        wrong.append(str(refusal))
    needed_settings = (*needed, *settings)
    return Survey(path, layout, "images", splits, facts, tuple(wrong), unreadable, needed_settings)


def _needed_size(sizes: "Counter[tuple[int, int]]") -> list[str]:
    """Return the setting of the most frequent size, smaller if that is large; none if all pictures
    have one size that is not large.
    """
    size = sizes.most_common(1)[0][0]
    factor = min(1, LARGEST / max(size))
    if len(sizes) == 1 and factor == 1:
        return []
    height, width = (max(1, round(factor * side)) for side in size)
    return [f"data.size=[{height},{width}]"]


def _split_sizes(counts: Mapping[str, int], config: ImageData) -> dict[str, dict[str, float]]:
    """Return the number of images of each split that is not another one's data again."""
    sizes: dict[str, dict[str, float]] = {}
    distinct: set[int] = set()
    for split, places in divide_images(counts, config).items():
        if id(places) not in distinct:
            distinct.add(id(places))
            sizes[split] = {"images": len(places)}
    return sizes


def _incomplete(note: str) -> tuple[str, ...]:
    return (f"less than was published: {note}",) if note else ()


def _shape(shape: Sequence[int]) -> dict[str, Plain]:
    channels, height, width = shape
    return {"height": height, "width": width, "channels": channels}


def _count_classes(labels: dict[str, Labels] | None) -> Plain:
    if not labels:
        return "none"
    return len({int(label) for part in labels.values() for label in part})
