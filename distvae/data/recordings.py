"""The recordings of a dataset, their speakers and splits. No speaker is in two splits."""

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from distvae.config import SpeechData
from distvae.config.data import CSV
from distvae.data import audio, folders, synthesiser
from distvae.data.dataset import BUILT_IN, Recording
from distvae.data.folders import SPLITS, split_of_word
from distvae.files.paths import SOUNDS
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, require_regular_file

TABLE = "speakers.csv"
MIN_SHARE = 0.9
"""Share of the files that must lie as a layout says for the corpus to be recognised."""


class Layout(NamedTuple):
    """The folders of a published corpus."""

    name: str
    path: str
    """A regular expression of a recording's path inside the corpus, without its suffix. It has a
    group `speaker` and may have a group `subset`.
    """
    beside: str = "(?!)"
    """A regular expression of files that come with the corpus and are not its recordings."""

    def match(self, file: str) -> "re.Match[str] | None":
        """Match the path of a recording; None for a file that is not a recording of the corpus."""
        path = rf"(?P<above>(?:.*/)?){self.path}\.(?:wav|flac|ogg|mp3)$"
        return re.match(path, file, re.IGNORECASE)

    def is_beside(self, file: str) -> bool:
        """Return whether a file comes with the corpus and is not a recording of it."""
        return re.search(self.beside, file, re.IGNORECASE) is not None


LAYOUTS = (
    Layout(
        "TIMIT",
        r"(?P<subset>train|test)/dr[1-8]/(?P<speaker>[fm][a-z]{3}\d)/s[aix]\d+",
        beside=r"\.wav\.wav$",  # copies in another format, in some distributions
    ),
    Layout(
        "TCD-TIMIT",
        r"(?P<subset>volunteers|lipspeakers)/(?P<speaker>\d\d[mf]|lipspkr\d)/(?:[^/]+/)*[^/]+",
    ),
    Layout(
        "LibriSpeech",
        r"(?P<subset>(?:train|dev|test)-(?:clean|other)(?:-\d+)?)/(?P<speaker>\d+)/(?P<c>\d+)/(?P=speaker)-(?P=c)-\d+",
    ),
)


def find_recordings(config: SpeechData) -> tuple[Path, list[Recording]]:
    """Return the root of a dataset and its recordings, sorted by file.

    The root is data.path, otherwise $DISTVAE_DATA (or its sub-folder `speech`), otherwise the
    built-in speech.

    The speaker comes from the table or the pattern, otherwise from the layout of a published
    corpus, otherwise from the folder whose name begins the file's name
    (103/1240/103-1240-0000.flac), otherwise from the folder of the file. If no recording is in a
    speaker's folder, each counts as a speaker.

    The split comes from the table, the corpus or the top folders (train, val, test; TRAIN,
    dev-clean). A missing split is drawn from train's speakers; without any split, all speakers are
    drawn. `seeded` draws all speakers in any case, `given` draws none.
    """
    is_built_in = config.path == BUILT_IN or not (config.path or os.environ.get("DISTVAE_DATA"))
    root = (
        synthesiser.folder()
        if is_built_in
        else folders.find_data_folder(config.path, "speech", "a folder of recordings expected")
    )
    return root, assign_splits(find_speakers(root, config), config)


def find_speakers(root: Path, config: SpeechData) -> list[Recording]:
    """Return every recording with its speaker and the split it was given, which may be ''."""
    rule, _, argument = config.speakers.partition(":")
    if rule == "auto":
        rule, argument = ("csv", TABLE) if (root / TABLE).is_file() else ("folder", "")
        if rule == "folder" and (layout := recognise(names := sound_files(root))):
            return speakers_of_corpus(layout, root, names)
    if rule == "csv" and argument:
        return _tabled(root, root / argument)
    if rule == "pattern" and argument:
        return [_foldered(file, _matched(file, argument)) for file in sound_files(root)]
    if rule == "folder" and not argument:
        names = sound_files(root)
        fallback = root.name if config.split == "loose" else ""
        if config.speakers == "auto" and not fallback and not any(map(_nearest_folder, names)):
            return [_foldered(file, file) for file in names]
        speakers = {file: _nearest_folder(file) or fallback for file in names}
        if lost := next((file for file in names if not speakers[file]), None):
            raise Refusal(
                f"{lost}: in no speaker's folder; folders, {TABLE} or data.speakers=pattern:REGEX"
                " expected"
            )
        return [_foldered(file, speaker) for file, speaker in speakers.items()]
    raise Refusal(
        f"data.speakers: '{config.speakers}'; auto, folder, pattern:REGEX or csv:FILE expected"
    )


def sound_files(root: Path) -> list[str]:
    """Return every sound file under a folder; refuse a folder without any."""
    if not (found := folders.list_files(root, SOUNDS)):
        others = folders.describe_unread(root, audio.UNREAD)
        lead = f"no recordings ({others})" if others else "no recordings"
        raise Refusal(f"{root}: {lead}; {', '.join(SOUNDS)} files expected in it or below it")
    return found


def recognise(files: Sequence[str]) -> Layout | None:
    """Return the corpus whose layout nearly all files have, or None."""
    for layout in LAYOUTS:
        recordings = [file for file in files if not layout.is_beside(file)]
        matching = sum(layout.match(file) is not None for file in recordings)
        if recordings and matching >= MIN_SHARE * len(recordings):
            return layout
    return None


def speakers_of_corpus(layout: Layout, root: Path, files: Iterable[str]) -> list[Recording]:
    """Return the recordings of a corpus, each with its published split or ''."""
    found = []
    for file in files:
        match = layout.match(file)
        if match is not None:
            subset = split_of_word(match.groupdict().get("subset") or "")
            split = subset or split_of_word(match["above"].split("/")[0]) or ""
            found.append(Recording(file, match["speaker"], split))
        elif not layout.is_beside(file):
            raise Refusal(
                f"{root / file}: lies where {layout.name} has no recording; leave it out, or set"
                " data.speakers=folder"
            )
    return found


def without_speakers(root: Path, found: list[Recording], config: SpeechData) -> str:
    """Return a note that no speaker of the recordings is known, or ''."""
    is_told = config.speakers != "auto" or (root / TABLE).is_file()
    if is_told or any(each.speaker != each.file for each in found):
        return ""
    return (
        "no folders of speakers, so each recording counts as one, and a person may be in several"
        " splits; data.speakers=pattern:REGEX finds speakers in names"
    )


def left_out(root: Path, config: SpeechData) -> str:
    """Return a note on recordings of kinds that are not read, or '' if a table lists the
    recordings.
    """
    has_table = config.speakers == "auto" and (root / TABLE).is_file()
    if has_table or config.speakers.startswith(CSV):
        return ""
    return folders.describe_unread(root, audio.UNREAD)


def skip_broken(
    root: Path, found: list[Recording], config: SpeechData, quiet: bool = True
) -> tuple[list[Recording], str]:
    """Return the recordings without broken and silent ones, if data.skip_broken asks for it, and a
    note on the recordings that are left out.
    """
    splits, skip = {each.file: each.split for each in found}, config.skip_broken
    broken, note = folders.leave_out_broken(root, splits, audio.decode_audible, skip, quiet)
    return [each for each in found if each.file not in broken], note


def _foldered(file: str, speaker: str) -> Recording:
    top, *below = PurePosixPath(file).parts
    return Recording(file, speaker, (split_of_word(top) or "") if below else "")


def _nearest_folder(file: str) -> str:
    """Return the folder whose name begins the file's name, otherwise the folder of the file. The
    top folder of a split does not count.
    """
    *above, _ = PurePosixPath(file).parts
    above = above[1:] if above and split_of_word(above[0]) else above
    if not above:
        return ""
    stem = PurePosixPath(file).stem
    return next(
        (name for name in above if re.match(rf"{re.escape(name)}[^0-9A-Za-z]", stem)), above[-1]
    )


def _matched(file: str, pattern: str) -> str:
    """Return what the one group of a pattern finds in a file's path."""
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise Refusal(f"data.speakers: '{pattern}' is not a regular expression: {error}") from error
    if regex.groups != 1:
        raise Refusal(
            f"data.speakers: '{pattern}' has {regex.groups} groups; one, around the speaker,"
            " expected"
        )
    match = regex.search(file)
    if not match or not match[1]:
        raise Refusal(
            f"data.speakers: '{pattern}' finds no speaker in {file}; one in every file expected"
        )
    return match[1]


def _tabled(root: Path, table: Path) -> list[Recording]:
    """Return the recordings that a table lists in its columns file, speaker and perhaps split."""
    expected = "a table of speakers, CSV in UTF-8,"
    require_regular_file(table, expected)
    with decoding(table, expected), table.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, restval="")
        names, rows = reader.fieldnames or (), list(reader)
    if absent := {"file", "speaker"} - set(names):
        raise Refusal(
            f"{table}: no column {' and no column '.join(sorted(absent))}; file, speaker[, split]"
            " expected"
        )
    if not rows:
        raise Refusal(f"{table}: no rows; a row per recording expected")
    found = []
    for row in rows:
        file, speaker, split = row["file"], row["speaker"], row.get("split", "")
        if not file or not (root / file).is_file():
            raise Refusal(f"{table}: names '{file}', which is not in {root}")
        if not speaker:
            raise Refusal(f"{table}: no speaker for {file}")
        if split and not split_of_word(split):
            raise Refusal(f"{table}: split '{split}' of {file}; train, val or test expected")
        name = PurePosixPath(file).as_posix()
        found.append(Recording(name, speaker, split_of_word(split) or ""))
    if len({recording.file for recording in found}) < len(found):
        raise Refusal(f"{table}: lists a file twice; once expected")
    return found


def assign_splits(found: list[Recording], config: SpeechData) -> list[Recording]:
    """Return the recordings sorted by file, each with its split; refuse a speaker in two splits."""
    if config.split == "loose":
        found = [Recording(r.file, r.speaker, r.split or "test") for r in found]
        return sorted(found, key=lambda each: each.file)
    if config.split == "seeded" or (config.split == "auto" and not any(r.split for r in found)):
        found = [Recording(r.file, r.speaker, "train") for r in found]
    assigned: dict[str, str] = {}
    for file, speaker, split in ((r.file, r.speaker, r.split) for r in found):
        if not split:
            raise Refusal(
                f"{file}: in no split; a top folder or a column naming one, or data.split=seeded,"
                " expected"
            )
        if assigned.setdefault(speaker, split) != split:
            raise Refusal(
                f"speaker '{speaker}' is in {assigned[speaker]} and in {split}; one split per"
                " speaker expected, or data.split=seeded to draw them anew"
            )
    lacking = set(SPLITS) - set(assigned.values())
    if config.split == "given" and lacking:
        raise Refusal(
            f"data.split: 'given' lacks {' and '.join(sorted(lacking))}; all three, or auto,"
            " expected"
        )
    shares = {"val": config.val, "test": config.test}
    whole = draw_missing_splits(assigned, shares, config.split_seed)
    found = [Recording(r.file, r.speaker, whole[r.speaker]) for r in found]
    return sorted(found, key=lambda each: each.file)


def draw_missing_splits(
    splits: Mapping[str, str], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Return the split of each speaker. Every split without speakers gets some of train's.

    The draw depends only on the names of train's speakers and on the seed. A share is rounded to a
    number of those speakers, at least one.
    """
    missing = [name for name in shares if name not in splits.values()]
    pool = sorted(
        (speaker for speaker in splits if splits[speaker] == "train"),
        key=lambda speaker: sha256(f"{seed}:{speaker}".encode()).digest(),
    )
    counts = {name: max(1, round(shares[name] * len(pool))) for name in missing}
    needed = sum(counts.values()) + 1
    if len(pool) < needed:
        who = f"one speaker, '{pool[0]}'," if len(pool) == 1 else f"{len(pool) or 'no'} speakers"
        drawn = " and ".join(f"{count} for {name}" for name, count in counts.items())
        task = f"to draw {drawn} from and to train on" if counts else "to train on"
        raise Refusal(f"{who} {task}; {needed} or more expected")
    result = dict(splits)
    for name, count in counts.items():
        drawn_speakers, pool = pool[:count], pool[count:]
        result |= dict.fromkeys(drawn_speakers, name)
    return result
