"""Folders of pictures. They are cropped and resized once, cached by content, and then
memory-mapped.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from distvae.config import ImageData
from distvae.data import folders
from distvae.data.dataset import Labels
from distvae.data.folders import SPLITS, hinting_at_broken, split_of_word
from distvae.data.images.source import Bytes, Published, Source
from distvae.data.pictures import UNREAD, Form, opened, plain_head, refuse_deep
from distvae.data.signals import read_plain_picture
from distvae.files.kinds import PICTURES
from distvae.files.memory import require_memory
from distvae.files.refusal import Refusal
from distvae.system import available_cores, reserve_space

if TYPE_CHECKING:
    from PIL.Image import Image

FORMAT = 1
"""Version of the cached files. Another version decodes the pictures again."""
TAKEN = 6
"""Bytes of memory for a pixel while a picture is resized: colours before and after."""
PARTITION = "list_eval_partition.txt"
CELEBA = Published("CelebA", 182_637, 19_962)
"""Its 162,770 images to train on and 19,867 to validate on count together."""
SPLIT_OF = {"0": "train", "1": "val", "2": "test"}


class Picture(NamedTuple):
    """A picture file with its split and its class. Either may be empty."""

    file: str
    split: str
    class_name: str


def read_folder(root: Path, config: ImageData, quiet: bool) -> Source:
    """Return the pictures of a folder by split, from the cache or decoded now."""
    found, layout = find_pictures(root)
    broken = (
        folders.find_broken(root, [each.file for each in found], read_plain_picture, quiet)
        if config.skip_broken
        else {}
    )
    kept = [each for each in found if each.file not in broken]
    folders.refuse_lost_splits(root, broken, count_by_split(found), count_by_split(kept))
    key, pixels = _read_pixels(root, kept, config, quiet)
    return Source(
        layout,
        pixels,
        count_by_split(found),
        _labels(kept),
        hashlib.sha256(json.dumps([key, kept]).encode()).hexdigest(),
        CELEBA if layout.startswith("CelebA") else None,
        tuple(filter(None, (describe_unread(root), folders.describe_skipped(broken)))),
        tuple(place for place, each in enumerate(found) if each.file in broken),
        tuple(each.file for each in kept),
    )


def _read_pixels(
    root: Path, found: Sequence[Picture], config: ImageData, quiet: bool
) -> tuple[str, Bytes]:
    """Return the cache key of the pictures, and their pixels."""
    paths = [root / each.file for each in found]
    hinting = hinting_at_broken(root, config.skip_broken)
    form = _form(paths, config, hinting(plain_head), quiet)
    at_once = min(len(paths), available_cores())
    require_memory(
        f"data.size: {list(form[:2])}",
        TAKEN * at_once * math.prod(form[:2]),
        "pictures of that size",
        "a smaller number",
    )
    names = [each.file for each in found]
    facts = [FORMAT, form, list(zip(names, folders.digests(paths), strict=True))]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    folder = folders.cache_folder() / "pictures" / key
    read = hinting(read_to_form)
    folders.build_once(folder, lambda part: _decode(part / "pixels.npy", paths, form, read, quiet))
    return key, np.load(folder / "pixels.npy", mmap_mode="r")


def describe_unread(root: Path) -> str:
    """Return a note on the pictures of kinds that are not read, or ""."""
    return folders.describe_unread(root, UNREAD)


def count_by_split(found: Sequence[Picture]) -> dict[str, int]:
    """Return the number of pictures of each split, in the order of the pictures."""
    counts: dict[str, int] = {}
    for picture in found:
        counts[picture.split] = counts.get(picture.split, 0) + 1
    return counts


def find_pictures(root: Path) -> tuple[list[Picture], str]:
    """Return every picture below a folder, split after split, and the kind of the folder."""
    names = folders.list_files(root, PICTURES)
    above = (root, root / "Eval", root.parent, root.parent / "Eval")
    partition = next((p / PARTITION for p in above if (p / PARTITION).is_file()), None)
    found = (
        [_foldered(name) for name in names]
        if partition is None
        else _read_partition(partition, names)
    )
    if len({each.split == "" for each in found}) > 1:
        lost = next(each.file for each in found if not each.split)
        raise Refusal(
            f"{root / lost}: in no split, and others are; all in train, val or test, or none,"
            " expected"
        )
    by_split = sorted(found, key=lambda each: ("", *SPLITS).index(each.split))
    return by_split, "a folder of pictures" if partition is None else "CelebA, by its own partition"


def _foldered(file: str) -> Picture:
    """Return a picture with the split that its top folder names and the class of the next
    folder.
    """
    *above, _ = PurePosixPath(file).parts
    split = split_of_word(above[0]) if above else None
    below = above[1:] if split else above
    return Picture(file, split or "", below[0] if below else "")


def _read_partition(partition: Path, names: Sequence[str]) -> list[Picture]:
    """Return the pictures that CelebA's partition file names, each with its split."""
    try:
        rows = [line.split() for line in partition.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(
            f"{partition}: cannot be read ({error}); lines such as '000001.jpg 0' expected"
        ) from error
    if wrong := next((row for row in rows if len(row) != 2 or row[1] not in SPLIT_OF), None):
        raise Refusal(
            f"{partition}: '{' '.join(wrong)}'; lines such as '000001.jpg 0' expected, with 0, 1"
            " or 2"
        )
    known = {PurePosixPath(name).stem: SPLIT_OF[split] for name, split in rows}
    lost = next((name for name in names if PurePosixPath(name).stem not in known), None)
    if lost:
        raise Refusal(f"{lost}: not in {partition}; only the pictures that it names expected")
    return [Picture(name, known[PurePosixPath(name).stem], "") for name in names]


def _labels(found: Sequence[Picture]) -> Labels | None:
    """Return the class of each picture as a number; None if there are fewer than two classes or a
    picture has none.
    """
    kinds = sorted({each.class_name for each in found})
    if len(kinds) < 2 or "" in kinds:
        return None
    number = {kind: k for k, kind in enumerate(kinds)}
    return np.array([number[each.class_name] for each in found], np.int64)


def _form(
    paths: Sequence[Path], config: ImageData, head: Callable[[Path], Form], quiet: bool
) -> Form:
    """Return the size and colour of the settings, otherwise of all pictures."""
    asked = {"grey": "L", "rgb": "RGB"}.get(config.colour, "")
    if config.size and asked:
        return Form(*config.size, asked)
    found = folders.map_in_order(head, paths)
    heads = list(folders.with_progress(found, "Sizes of pictures", len(paths), quiet))
    mode = asked or ("L" if all(form.mode == "L" for form in heads) else "RGB")
    if config.size:
        return Form(*config.size, mode)
    first = heads[0]
    for path, form in zip(paths, heads, strict=True):
        if form[:2] != first[:2]:
            sizes = [f"{other.height} x {other.width}" for other in (form, first)]
            raise Refusal(
                f"{path}: {sizes[0]} pixels, and {paths[0]} has {sizes[1]}; set data.size=[height,"
                " width]"
            )
    return Form(first.height, first.width, mode)


def _decode(
    target: Path,
    paths: Sequence[Path],
    form: Form,
    read: Callable[[Path, Form], Bytes],
    quiet: bool,
) -> None:
    """Write all pictures to one array that can be mapped."""
    channels = len(form.mode) if form.mode == "RGB" else 1
    shape = (len(paths), channels, form.height, form.width)
    pixels = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
    with target.open("r+b") as file:
        reserve_space(file.fileno(), target.stat().st_size)
    decoded = folders.map_in_order(lambda path: read(path, form), paths)
    for place, image in enumerate(folders.with_progress(decoded, "Pictures", len(paths), quiet)):
        pixels[place] = image
    pixels.flush()


def read_to_form(path: Path, form: Form) -> Bytes:
    """Return (channels, height, width): the largest central part with the proportions of the form,
    resized.
    """
    from PIL import Image, ImageOps

    with opened(path) as image:
        refuse_deep(path, image)
        turned = ImageOps.exif_transpose(image)
        plain = (turned.convert("RGBA") if turned.has_transparency_data else turned).convert(
            form.mode
        )
        values = np.asarray(_fitted(plain, form, Image.Resampling.BILINEAR), np.uint8)
        return np.moveaxis(values if values.ndim == 3 else values[..., None], -1, 0)


def _fitted(image: "Image", form: Form, how: int) -> "Image":
    """Crop in whole pixels and resize, as torchvision's CenterCrop and Resize do."""
    width, height = image.size
    share = min(width / form.width, height / form.height)
    wide, high = round(form.width * share), round(form.height * share)
    left, top = round((width - wide) / 2), round((height - high) / 2)
    cropped = image.crop((left, top, left + wide, top + high))
    return (
        cropped
        if cropped.size == (form.width, form.height)
        else cropped.resize((form.width, form.height), how)
    )
