"""The recordings of a dataset, their speakers, and the split of each."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NoReturn

from distvae.config import SpeechData
from distvae.config.data.speech import CSV
from distvae.data import audio, broken, files, folders, splits
from distvae.data.audio import UNREAD
from distvae.data.dataset import BUILT_IN, Recording
from distvae.data.speech import layouts
from distvae.files.kinds import SOUNDS
from distvae.files.refusal import Refusal
from distvae.files.untrusted import decoding, require_regular_file

TABLE = "speakers.csv"


def find_recordings(config: SpeechData) -> tuple[Path, list[Recording]]:
    """Return the root of a dataset and its recordings, sorted by file.

    The root is data.path, otherwise $DISTVAE_DATA (or its sub-folder `speech`), otherwise the
    built-in speech.

    The speaker comes from the table or the pattern, otherwise from the layout of a published
    corpus, otherwise from the folder whose name begins the file's name
    (103/1240/103-1240-0000.flac), otherwise from the folder of the file. If no recording is in a
    speaker's folder, each counts as a speaker.

    The split comes from the table, the corpus or the top folders (train, val, test; TRAIN,
    dev-clean). A missing split is drawn from train's speakers; if none is given, all are drawn.
    `seeded` draws all in any case, `given` draws none.
    """
    root = None if config.path == BUILT_IN else folders.find_data_folder(config.path, "speech")
    if root is None:
        from distvae.data.speech import synthesiser

        root = synthesiser.folder()
    return root, assign_splits(find_speakers(root, config), config)


def find_speakers(root: Path, config: SpeechData) -> list[Recording]:
    """Return every recording with its speaker and the split it was given, which may be ''."""
    rule, _, argument = config.speakers.partition(":")
    if rule == "auto":
        rule, argument = ("csv", TABLE) if (root / TABLE).is_file() else ("folder", "")
        if rule == "folder" and (layout := layouts.recognise(names := sound_files(root))):
            return layouts.find_speakers(layout, root, names)
    if rule == "csv" and argument:
        return _tabled(root, root / argument)
    if rule == "pattern" and argument:
        return [_foldered(file, _matched(file, argument)) for file in sound_files(root)]
    if rule == "folder" and not argument:
        names = sound_files(root)
        fallback = root.name if config.split == "loose" else ""
        if config.speakers == "auto" and not fallback and not any(map(_nearest_folder, names)):
            return [_foldered(file, file) for file in names]
        return [
            _foldered(file, _nearest_folder(file) or fallback or _homeless(file)) for file in names
        ]
    raise Refusal(
        f"data.speakers: '{config.speakers}'; auto, folder, pattern:REGEX or csv:FILE expected"
    )


def sound_files(root: Path) -> list[str]:
    """Return every sound file under a folder; refuse a folder without any."""
    if not (found := files.list_files(root, SOUNDS)):
        others = files.describe_unread(root, UNREAD)
        lead = f"no recordings ({others})" if others else "no recordings"
        raise Refusal(f"{root}: {lead}; {', '.join(SOUNDS)} files expected in it or below it")
    return found


def without_speakers(root: Path, found: list[Recording], config: SpeechData) -> str:
    """Return a note on recordings of which no speaker is known, or ''."""
    is_told = config.speakers != "auto" or (root / TABLE).is_file()
    if is_told or any(each.speaker != each.file for each in found):
        return ""
    return (
        "no folders of speakers, so each recording counts as one, and a person may be in several"
        " splits; data.speakers=pattern:REGEX finds speakers in names"
    )


def left_out(root: Path, config: SpeechData) -> str:
    """Return a note on recordings that are not read, unless a table lists those that are."""
    listed = config.speakers.startswith(CSV) or (
        config.speakers == "auto" and (root / TABLE).is_file()
    )
    return "" if listed else files.describe_unread(root, UNREAD)


def skip_broken(
    root: Path, found: list[Recording], config: SpeechData, quiet: bool = True
) -> tuple[list[Recording], str]:
    """Return the recordings that can be decoded and are not silent, if the others are to be left
    out, and a note on these.
    """
    if not config.skip_broken:
        return found, ""
    lost = broken.find_broken(root, [each.file for each in found], audio.decode_audible, quiet)
    kept = [each for each in found if each.file not in lost]
    broken.refuse_lost_splits(
        root, lost, (each.split for each in found), (each.split for each in kept)
    )
    return kept, broken.describe_skipped(lost)


def _foldered(file: str, speaker: str) -> Recording:
    top, *below = PurePosixPath(file).parts
    return Recording(file, speaker, (splits.split_of_word(top) or "") if below else "")


def _nearest_folder(file: str) -> str:
    """Return the folder whose name begins the file's name, otherwise the folder of the file. A
    split's folder on top does not count.
    """
    *above, _ = PurePosixPath(file).parts
    above = above[1:] if above and splits.split_of_word(above[0]) else above
    if not above:
        return ""
    stem = PurePosixPath(file).stem
    return next(
        (name for name in above if re.match(rf"{re.escape(name)}[^0-9A-Za-z]", stem)), above[-1]
    )


def _homeless(file: str) -> NoReturn:
    raise Refusal(
        f"{file}: in no speaker's folder; folders, {TABLE} or data.speakers=pattern:REGEX expected"
    )


def _matched(file: str, pattern: str) -> str:
    """Return what the pattern's one group finds in a file's path."""
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
    """Return the recordings that a table lists, in columns file, speaker and perhaps split. Other
    files are left out.
    """
    rows = _rows(table)
    recordings = [_recording_of_row(root, table, row) for row in rows]
    if len({recording.file for recording in recordings}) < len(recordings):
        raise Refusal(f"{table}: lists a file twice; once expected")
    return recordings


def _rows(table: Path) -> list[dict[str, str]]:
    expected = "a table of speakers, CSV in UTF-8,"
    require_regular_file(table, expected)
    with (
        decoding(table, expected),
        table.open(newline="", encoding="utf-8-sig") as stream,
    ):
        reader = csv.DictReader(stream, restval="")
        names, rows = reader.fieldnames or (), list(reader)
    if absent := {"file", "speaker"} - set(names):
        raise Refusal(
            f"{table}: no column {' and no column '.join(sorted(absent))}; file, speaker[, split]"
            " expected"
        )
    if not rows:
        raise Refusal(f"{table}: no rows; a row per recording expected")
    return rows


def _recording_of_row(root: Path, table: Path, row: dict[str, str]) -> Recording:
    file, speaker, split = row["file"], row["speaker"], row.get("split", "")
    if not file or not (root / file).is_file():
        raise Refusal(f"{table}: names '{file}', which is not in {root}")
    if not speaker:
        raise Refusal(f"{table}: no speaker for {file}")
    if split and not splits.split_of_word(split):
        raise Refusal(f"{table}: split '{split}' of {file}; train, val or test expected")
    return Recording(PurePosixPath(file).as_posix(), speaker, splits.split_of_word(split) or "")


def assign_splits(found: list[Recording], config: SpeechData) -> list[Recording]:
    """Return the recordings sorted by file, each with its split; refuse a speaker in two splits."""
    if config.split == "loose":
        return _sorted(Recording(r.file, r.speaker, r.split or "test") for r in found)
    if config.split == "seeded" or (config.split == "auto" and not any(r.split for r in found)):
        found = [Recording(r.file, r.speaker, "train") for r in found]
    for recording in found:
        if not recording.split:
            raise Refusal(
                f"{recording.file}: in no split; a top folder or a column naming one, or"
                " data.split=seeded, expected"
            )
    assigned = splits.split_by_speaker((r.speaker, r.split) for r in found)
    lacking = set(splits.SPLITS) - set(assigned.values())
    if config.split == "given" and lacking:
        raise Refusal(
            f"data.split: 'given' lacks {' and '.join(sorted(lacking))}; all three, or auto,"
            " expected"
        )
    whole = splits.draw_missing_splits(
        assigned, {"val": config.val, "test": config.test}, config.split_seed
    )
    return _sorted(Recording(r.file, r.speaker, whole[r.speaker]) for r in found)


def _sorted(found: Iterable[Recording]) -> list[Recording]:
    return sorted(found, key=lambda recording: recording.file)
