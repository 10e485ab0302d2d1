"""The split of each speaker, as given or drawn with a seed. No speaker is in two splits."""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256

from distvae.files.refusal import Refusal

SPLITS = ("train", "val", "test")
_NAMES = {
    "train": "train",
    "val": "val",
    "dev": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def split_of_word(word: str) -> str | None:
    """Return the split that a word stands for (train, val, dev, valid, validation, test, also as in
    dev-clean), or None.
    """
    return _NAMES.get(re.split(r"[-_]", word.lower())[0])


def split_by_speaker(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the split of each speaker from (speaker, split) pairs; refuse a speaker in two
    splits.
    """
    found: dict[str, str] = {}
    for speaker, split in pairs:
        if found.setdefault(speaker, split) != split:
            raise Refusal(
                f"speaker '{speaker}' is in {found[speaker]} and in {split}; one split per speaker"
                " expected, or data.split=seeded to draw them anew"
            )
    return found


def draw_missing_splits(
    splits: Mapping[str, str], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Return the assignment with every split that lacks speakers filled from train's.

    The draw depends only on the names of train's speakers and on the seed. A share is of those
    speakers, rounded, and at least one speaker.
    """
    missing = [name for name in shares if name not in splits.values()]
    pool = sorted(
        (s for s in splits if splits[s] == "train"),
        key=lambda s: sha256(f"{seed}:{s}".encode()).digest(),
    )
    counts = {name: max(1, round(shares[name] * len(pool))) for name in missing}
    if len(pool) <= sum(counts.values()):
        raise Refusal(_too_few(pool, counts))
    result = dict(splits)
    for name, count in counts.items():
        drawn, pool = pool[:count], pool[count:]
        result |= dict.fromkeys(drawn, name)
    return result


def _too_few(pool: list[str], counts: Mapping[str, int]) -> str:
    who = f"one speaker, '{pool[0]}'," if len(pool) == 1 else f"{len(pool) or 'no'} speakers"
    drawn = " and ".join(f"{count} for {name}" for name, count in counts.items())
    task = f"to draw {drawn} from and to train on" if counts else "to train on"
    return f"{who} {task}; {sum(counts.values()) + 1} or more expected"
