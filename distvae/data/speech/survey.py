"""The report of `distvae data check` on folders of recordings."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from distvae.config import SpeechData
from distvae.data import audio, files
from distvae.data.broken import find_broken
from distvae.data.dataset import BUILT_IN, Recording
from distvae.data.speech import layouts, recordings, synthesiser
from distvae.data.splits import SPLITS
from distvae.data.survey import Survey, checked_config
from distvae.files.kinds import SOUNDS
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.numerics.numbers import counted


class Readable(NamedTuple):
    """A recording whose header could be read."""

    recording: Recording
    rate: int
    seconds: float


def survey_recordings(path: str, decoded: bool, settings: Sequence[str] = ()) -> Survey | None:
    """Return what the built-in speech or a folder of recordings holds under some settings, by their
    headers. Decode every recording to find broken ones, if wanted.
    """
    if path == BUILT_IN:
        return _survey(path, synthesiser.folder(), decoded, settings)
    root = Path(path)
    if not root.is_dir() or not files.list_files(root, SOUNDS):
        return None
    return _survey(path, root, decoded, settings)


def _survey(path: str, root: Path, decoded: bool, settings: Sequence[str]) -> Survey:
    config: SpeechData = checked_config("speech", path, settings)
    names = recordings.sound_files(root)
    is_told = config.speakers != "auto" or (root / recordings.TABLE).is_file()
    layout = None if is_told else layouts.recognise(names)
    wrong = []

    if layout is None:
        title = "a tree of recordings"
        found = recordings.find_speakers(root, config)
    else:
        in_layout = [name for name in names if layout.match(name)]
        title = layouts.title(layout, in_layout)
        found = layouts.find_speakers(layout, root, in_layout)
    try:
        found = recordings.assign_splits(found, config)
    except Refusal as refusal:
        wrong.append(str(refusal))

    found, skipped = recordings.skip_broken(root, found, config)
    readable, unreadable = _read_heads(root, found, decoded)
    if layout is not None:
        rates = {each.recording.file: each.rate for each in readable}
        wrong += layouts.departures(layout, root, names, rates)
    unnamed = recordings.without_speakers(root, found, config)
    wrong += filter(None, (recordings.left_out(root, config), unnamed, _short(readable, config)))

    rate_counts = Counter(each.rate for each in readable)
    facts: dict[str, Plain] = {
        "speakers": len({each.speaker for each in found}),
        "rates": {str(rate): count for rate, count in rate_counts.most_common()},
    }
    if skipped:
        facts["left out"] = skipped
    splits, problems = _amounts(readable), tuple(wrong)
    return Survey(path, title, "speech", splits, facts, problems, unreadable, tuple(settings))


def _read_heads(
    root: Path, found: Sequence[Recording], decoded: bool
) -> tuple[list[Readable], tuple[str, ...]]:
    """Return the recordings that can be read, and why the others cannot."""
    names = [recording.file for recording in found]
    broken = find_broken(root, names, audio.decode_audible, quiet=False) if decoded else {}
    whole = [recording for recording in found if recording.file not in broken]
    heads = files.map_in_order(files.or_refusal(audio.head), [root / each.file for each in whole])
    readable, unreadable = [], list(broken.values())
    for recording, head in zip(whole, heads, strict=True):
        if isinstance(head, Refusal):
            unreadable.append(str(head))
        else:
            readable.append(Readable(recording, *head))
    return readable, tuple(unreadable)


def _short(readable: Sequence[Readable], config: SpeechData) -> str:
    """Return which recordings are shorter than a window, '' if none is."""
    short = [
        each.recording.file
        for each in readable
        if round(each.seconds * config.rate) < config.window
    ]
    if not short:
        return ""
    return (
        f"{counted(len(short), 'recording')} shorter than a window of {config.window} samples at"
        f" {config.rate:,} Hz, which training refuses: {files.some_names(short)}"
    )


def _amounts(readable: Sequence[Readable]) -> dict[str, dict[str, float]]:
    """Return what each split holds; '' is that of recordings without one."""
    splits = {}
    for split in ("", *SPLITS):
        chosen = [each for each in readable if each.recording.split == split]
        if chosen:
            splits[split] = _amount(chosen)
    return splits


def _amount(chosen: Sequence[Readable]) -> dict[str, float]:
    return {
        "recordings": len(chosen),
        "speakers": len({each.recording.speaker for each in chosen}),
        "hours": math.fsum(each.seconds for each in chosen) / 3600,
    }
