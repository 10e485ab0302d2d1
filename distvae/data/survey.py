"""What data there is below a path: what it is recognised as, how much of it, and what is wrong with
it.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distvae.config import IdxData, ImageData, RowsData, SpeechData
from distvae.data import audio, files, labels_of, open_dataset, pictures, remote, signals
from distvae.data.dataset import BUILT_IN, Dataset, Recording
from distvae.data.examples import PICTURE, SOUND, example
from distvae.data.images import cifar
from distvae.data.images import collection as images
from distvae.data.images.source import Places, divided
from distvae.data.signals import PICTURES, Signal
from distvae.data.signals import read as read_signal
from distvae.data.speech import layouts, recordings
from distvae.data.splits import SPLITS
from distvae.data.tables import rows
from distvae.data.tables.formats import SUFFIXES as TABLES
from distvae.files.paths import resolve_path
from distvae.files.refusal import Refusal

SHOWN = 5  # files or speakers that are named where there may be many
BUILT_INS = (BUILT_IN, PICTURE, SOUND)


@dataclass(frozen=True)
class Survey:
    """What was found below a path."""

    path: str
    layout: str
    """What it was recognised as."""
    kind: str
    """The data.kind that reads it."""
    splits: dict[str, dict[str, float]]
    """How much each split has: images, or recordings, speakers and hours."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else is worth knowing: the shape, the rates, the classes."""
    wrong: tuple[str, ...] = ()
    """How it departs from its protocol."""
    unreadable: tuple[str, ...] = ()
    """The files that cannot be read, and why."""

    @property
    def exit_code(self) -> int:
        """0 where nothing is wrong, 1 where the protocol is not kept, 2 where something cannot be
        read.
        """
        return 2 if self.unreadable else 1 if self.wrong else 0


def survey(path: str) -> Survey:
    """What there is below a path or a URI. Pictures and recordings in folders are opened, not
    decoded.
    """
    if path == BUILT_IN:
        from distvae.data.speech import synthesiser

        return _speech(path, synthesiser.folder())
    if (built_in := example(path)) is not None:
        return _signal(path, built_in)
    place = resolve_path(remote.here(path))
    if not place.exists():
        raise Refusal(
            f"{path}: no such file or folder; data, or {', '.join(map(repr, BUILT_INS))}, expected"
        )
    found = _folder(place) if place.is_dir() else _file(place)
    return replace(found, path=path) if remote.is_remote(path) else found


def _file(path: Path) -> Survey:
    if path.suffix.lower() == ".npz":
        return _images(path)
    if path.suffix.lower() in TABLES:
        raise Refusal(
            f"{path}: a table; 'distvae ingest {path} OUT' makes a folder of it that can be"
            " trained on"
        )
    return _signal(str(path), read_signal(path))


def _folder(root: Path) -> Survey:
    if (root / rows.MANIFEST).is_file():
        dataset = open_dataset(RowsData(path=str(root)))
        return Survey(
            str(root),
            "rows of numbers",
            "rows",
            _counted(dataset, "rows"),
            {"values": dataset.dims},
        )
    if any(root.glob("*-images[-.]idx3-ubyte*")):
        return _idx(root)
    if cifar.find(root) is not None or any(root.glob("*.npz")):
        return _images(root)
    sounds, seen = files.below(root, audio.SUFFIXES), files.below(root, PICTURES)
    if not sounds and not seen:
        raise Refusal(
            f"{root}: no data known here; recordings, idx files, rows of 'distvae ingest',"
            f" {images.EXPECTED}"
        )
    return _pictures(root) if len(seen) > len(sounds) else _speech(str(root), root)


def _counted(dataset: Dataset, unit: str) -> dict[str, dict[str, float]]:
    return {split: {unit: len(dataset.splits[split])} for split in dataset.named("all")}


def _signal(path: str, signal: Signal) -> Survey:
    *sides, channels = signal.values.shape
    if signal.rate is None:
        size = {"height": sides[0], "width": sides[1], "channels": channels, "bits": signal.bits}
        return Survey(path, "a picture", "patches", {}, size)
    return Survey(
        path, "a sound", "patches", {}, {"seconds": sides[0] / signal.rate, "rate": signal.rate}
    )


def _idx(root: Path) -> Survey:
    config = IdxData(path=str(root))
    dataset = open_dataset(config)
    try:
        classes = _classes(config)
    except Refusal as refusal:
        classes = {"labels": f"none: {refusal}"}
    facts = _shape(dataset.shape) | classes
    counts: dict[str, dict[str, float]] = {
        split: {"images": len(dataset.splits[split])} for split in ("train", "test")
    }
    return Survey(str(root), "idx files", "idx", counts, facts)


def _images(root: Path) -> Survey:
    config = ImageData(path=str(root))
    source, dataset = images.read(root, config), open_dataset(config)
    facts = _shape(dataset.shape) | _classes(config)
    return Survey(
        str(root), source.layout, "images", _counted(dataset, "images"), facts, _short(source.note)
    )


def _short(note: str) -> tuple[str, ...]:
    return (f"less than was published: {note}",) if note else ()


def _shape(shape: Sequence[int]) -> dict[str, Any]:
    channels, height, width = shape
    return {"height": height, "width": width, "channels": channels}


def _classes(config: IdxData | ImageData) -> dict[str, Any]:
    labels = labels_of(config)
    return {
        "classes": (
            len({int(label) for part in labels.values() for label in part}) if labels else "none"
        )
    }


def _pictures(root: Path) -> Survey:
    """A folder of pictures, by their headers."""
    found, layout = pictures.find(root)
    heads = list(
        files.in_order(files.attempted(pictures.plain_head), [root / each.file for each in found])
    )
    whole = [head for head in heads if not isinstance(head, Refusal)]
    sizes = Counter((head.height, head.width) for head in whole)
    named = {
        split: sum(each.split == split for each in found)
        for split in dict.fromkeys(f.split for f in found)
    }
    parts = divided(named, ImageData())
    counts: dict[str, dict[str, float]] = {
        split: {"images": len(parts[split])} for split in _own(parts)
    }
    most = {f"{h} x {w}": count for (h, w), count in sizes.most_common(SHOWN)}
    facts: dict[str, Any] = {
        "sizes": len(sizes),
        "most frequent": most,
        "grey": sum(head.mode == "L" for head in whole),
    }
    kinds = {each.kind for each in found}
    facts |= {"classes": len(kinds) if len(kinds) > 1 and "" not in kinds else "none"}
    note = pictures.CELEBA.short_of(named) if layout.startswith("CelebA") else ""
    unreadable = tuple(str(head) for head in heads if isinstance(head, Refusal))
    others = files.left_out(root, signals.UNREAD)
    wrong = (*_short(note), others) if others else _short(note)
    return Survey(str(root), layout, "images", counts, facts, wrong, unreadable)


def _own(parts: dict[str, Places]) -> list[str]:
    """The splits that are not another one's data again."""
    first: dict[int, str] = {}
    for name, places in parts.items():
        first.setdefault(id(places), name)
    return list(first.values())


def _speech(path: str, root: Path) -> Survey:
    """A tree of recordings, by their headers."""
    config = SpeechData(path=path)
    names = recordings.sound_files(root)
    layout = None if (root / recordings.TABLE).is_file() else layouts.recognise(names)
    own = [name for name in names if layout is None or layout.match(name)]
    found = recordings.spoken(root, config) if layout is None else layouts.spoken(layout, root, own)
    wrong = []
    try:
        found = recordings.divided(found, config)
    except Refusal as refusal:
        wrong.append(str(refusal))
    heads = list(files.in_order(files.attempted(audio.head), [root / each.file for each in found]))
    whole = [
        (each, head)
        for each, head in zip(found, heads, strict=True)
        if not isinstance(head, Refusal)
    ]
    rates = Counter(rate for _, (rate, _) in whole)
    splits = {
        name: _amount(name, whole)
        for name in ("", *SPLITS)
        if any(each.split == name for each, _ in whole)
    }
    facts = {
        "speakers": len({each.speaker for each in found}),
        "rates": {str(r): n for r, n in rates.most_common()},
    }
    unreadable = tuple(str(head) for head in heads if isinstance(head, Refusal))
    if layout is not None:
        wrong += layouts.departures(
            layout, root, names, {each.file: rate for each, (rate, _) in whole}
        )
    if others := recordings.left_out(root, config):
        wrong.append(others)
    title = "a tree of recordings" if layout is None else layouts.title(layout, own)
    return Survey(path, title, "speech", splits, facts, tuple(wrong), unreadable)


def _amount(split: str, whole: Iterable[tuple[Recording, tuple[int, float]]]) -> dict[str, float]:
    own = [(each.speaker, seconds) for each, (_, seconds) in whole if each.split == split]
    hours = math.fsum(seconds for _, seconds in own) / 3600
    return {
        "recordings": len(own),
        "speakers": len({speaker for speaker, _ in own}),
        "hours": hours,
    }
