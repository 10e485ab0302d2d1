"""Published corpora of speech, recognised by the layout of their folders.

A layout finds the speaker and the subset of a recording from its path. `distvae data check`
compares a corpus with what was published: how many speakers, at what rate.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from distvae.data import splits
from distvae.data.dataset import Recording
from distvae.data.files import some_names
from distvae.files.refusal import Refusal

MIN_SHARE = 0.9  # of the recordings must lie as a layout says for it to be recognised
SOUND = r"\.(?:wav|flac|ogg|mp3)$"
Roster = Mapping[str, str]
"""The subset of each speaker that a corpus' own table lists."""


def _none(root: Path) -> Roster:
    return {}


@dataclass(frozen=True)
class Layout:
    """The folders of a corpus, and what it should hold."""

    name: str
    path: str
    """A regular expression of a recording's path inside the corpus, with groups `speaker` and
    perhaps `subset`.
    """
    rate: int | None = None
    """The published sampling rate in Hz."""
    speakers: Mapping[str, int] = field(default_factory=dict)
    """The published number of speakers of each subset; '' is all of the corpus."""
    recordings: int | None = None
    whole: bool = True
    """Whether all subsets belong together, or may be had one by one."""
    beside: str = ""
    """Files that come with a corpus and are no recordings of it: a regular expression."""
    lists: Mapping[str, str] = field(default_factory=dict)
    """Files that name the recordings of a split; the rest is to train on."""
    roster: Callable[[Path], Roster] = _none
    """Reads the table of speakers that comes with a corpus, if it is there."""

    def match(self, file: str) -> "re.Match[str] | None":
        """Match the path of a recording; None for a file that is not one of the corpus."""
        return re.match(rf"(?P<above>(?:.*/)?){self.path}{SOUND}", file, re.IGNORECASE)

    def is_beside(self, file: str) -> bool:
        """Return True for a file that comes with the corpus but is no recording of it."""
        return bool(self.beside and re.search(self.beside, file, re.IGNORECASE))


def _timit(root: Path) -> Roster:
    """Read lines of SPKRINFO.TXT, such as `ABC0 M 6 TRN ...`."""
    lines = _lines(root, "DOC/SPKRINFO.TXT") or _lines(root, "SPKRINFO.TXT")
    rows = [line.split() for line in lines if line.strip() and not line.startswith(";")]
    use = {"TRN": "train", "TST": "test"}
    return {
        f"{row[1]}{row[0]}".upper(): use[row[3]] for row in rows if len(row) > 3 and row[3] in use
    }


def _librispeech(root: Path) -> Roster:
    """Read lines of SPEAKERS.TXT, such as `14 | F | train-clean-360 | 25.03 | Kristin LeMoine`."""
    rows = [line.split("|") for line in _lines(root, "SPEAKERS.TXT") if not line.startswith(";")]
    return {row[0].strip(): row[2].strip() for row in rows if len(row) >= 3}


def _vctk(root: Path) -> Roster:
    """Read lines of speaker-info.txt, such as `p225 23 F English Southern England`; older versions
    lack the p.
    """
    rows = [line.split() for line in _lines(root, "speaker-info.txt")[1:] if line.strip()]
    return {f"p{row[0]}" if row[0].isdigit() else row[0]: "" for row in rows}


def _lines(root: Path, name: str) -> list[str]:
    """Return the lines of a text beside the recordings or one folder above them; none if there is
    no such file.
    """
    for place in (root / name, root.parent / name):
        if place.is_file():
            return place.read_text(encoding="utf-8", errors="replace").splitlines()
    return []


LIBRISPEECH_SPEAKERS = {
    "train-clean-100": 251,
    "train-clean-360": 921,
    "train-other-500": 1166,
    "dev-clean": 40,
    "dev-other": 33,
    "test-clean": 40,
    "test-other": 33,
}
LAYOUTS = (
    Layout(
        "TIMIT",
        r"(?P<subset>train|test)/dr[1-8]/(?P<speaker>[fm][a-z]{3}\d)/s[aix]\d+",
        rate=16_000,
        speakers={"train": 462, "test": 168},
        beside=r"\.wav\.wav$",  # copies in another format, in some distributions
        roster=_timit,
    ),
    Layout(
        "TCD-TIMIT",
        r"(?P<subset>volunteers|lipspeakers)/(?P<speaker>\d\d[mf]|lipspkr\d)/(?:[^/]+/)*[^/]+",
        speakers={"volunteers": 59, "lipspeakers": 3},
    ),
    Layout(
        "LibriSpeech",
        r"(?P<subset>(?:train|dev|test)-(?:clean|other)(?:-\d+)?)/(?P<speaker>\d+)/(?P<c>\d+)/(?P=speaker)-(?P=c)-\d+",
        rate=16_000,
        speakers=LIBRISPEECH_SPEAKERS,
        whole=False,
        roster=_librispeech,
    ),
    Layout(
        "VCTK",
        r"wav48(?:_silence_trimmed)?/(?P<speaker>[ps]\d+)/(?P=speaker)_\d+(?:_mic\d)?",
        rate=48_000,
        roster=_vctk,
    ),
    Layout("LJSpeech", r"(?P<speaker>LJ\d{3})-\d{4}", rate=22_050, recordings=13_100),
    Layout(
        "Speech Commands",
        r"[a-z]+/(?P<speaker>[0-9a-f]{8})_nohash_\d+",
        rate=16_000,
        beside=r"(?:^|/)_background_noise_/",
        lists={"val": "validation_list.txt", "test": "testing_list.txt"},
    ),
)
DIGITS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


def recognise(files: Sequence[str]) -> Layout | None:
    """Return the corpus whose layout nearly all files have, or None."""
    for layout in LAYOUTS:
        recordings = [file for file in files if not layout.is_beside(file)]
        matching = sum(layout.match(file) is not None for file in recordings)
        if recordings and matching >= MIN_SHARE * len(recordings):
            return layout
    return None


def find_speakers(layout: Layout, root: Path, files: Iterable[str]) -> list[Recording]:
    """Return the recordings of a corpus, each with the split that it was published in, or '' if it
    has none.
    """
    listed: dict[str, dict[str, str]] = {}
    found = []
    for file in files:
        match = layout.match(file)
        if match is None:
            if layout.is_beside(file):
                continue
            raise Refusal(
                f"{root / file}: lies where {layout.name} has no recording; leave it out, or set"
                " data.speakers=folder"
            )
        above = match["above"]
        if layout.lists and above not in listed:
            listed[above] = _splits_of_lists(layout, root / above)
        split = (
            listed[above].get(file[len(above) :], "train") if listed.get(above) else _named(match)
        )
        found.append(Recording(file, match["speaker"], split))
    return found


def _named(match: "re.Match[str]") -> str:
    """Return the split that a subset or the top folder stands for."""
    return (
        splits.split_of_word(match.groupdict().get("subset") or "")
        or splits.split_of_word(match["above"].split("/")[0])
        or ""
    )


def _splits_of_lists(layout: Layout, place: Path) -> dict[str, str]:
    """Return the split of every recording that the lists name; nothing if a list is missing."""
    paths = {split: place / name for split, name in layout.lists.items()}
    if not all(path.is_file() for path in paths.values()):
        return {}
    texts = {
        split: path.read_text(encoding="utf-8", errors="replace") for split, path in paths.items()
    }
    return {
        line.strip(): split
        for split, text in texts.items()
        for line in text.splitlines()
        if line.strip()
    }


def title(layout: Layout, files: Sequence[str]) -> str:
    """Return the name of a corpus. The ten digits of Speech Commands are SC09."""
    words = {PurePosixPath(file).parent.name for file in files if layout.match(file)}
    return (
        "SC09, the digits of Speech Commands" if layout.lists and words == DIGITS else layout.name
    )


def departures(
    layout: Layout, root: Path, files: Sequence[str], rates: Mapping[str, int]
) -> Iterator[str]:
    """Yield the differences between a tree and the corpus as it was published."""
    matches = {file: match for file in files if (match := layout.match(file)) is not None}
    stray = [file for file in files if file not in matches and not layout.is_beside(file)]
    if stray:
        yield f"{len(stray)} files lie where {layout.name} has no recording: {some_names(stray)}"
    yield from _missing(layout, root, matches.values())
    if layout.recordings is not None and len(matches) != layout.recordings:
        yield f"{len(matches):,} recordings; {layout.recordings:,} expected"
    others = Counter(rate for rate in rates.values() if layout.rate not in (None, rate))
    for rate, count in others.items():
        yield f"{count:,} recordings at {rate:,} Hz; {layout.rate:,} expected"
    for above in sorted({match["above"] for match in matches.values()}) if layout.lists else ():
        absent = [name for name in layout.lists.values() if not (root / above / name).is_file()]
        if absent:
            yield (
                f"{root / above}: lacks {' and '.join(absent)}; speakers are drawn by"
                " data.split_seed instead"
            )


def _missing(layout: Layout, root: Path, matches: "Iterable[re.Match[str]]") -> Iterator[str]:
    """Yield the speakers that a subset lacks, by name if the corpus' own table is there."""
    present: dict[str, set[str]] = {}
    above = ""
    for match in matches:
        present.setdefault((match.groupdict().get("subset") or "").lower(), set()).add(
            match["speaker"].upper()
        )
        above = match["above"]
    roster = layout.roster(root / above)
    for subset in sorted({*layout.speakers, *roster.values()} if layout.whole else present):
        found = present.get(subset, set())
        expected = layout.speakers.get(subset)
        listed = [name for name, own_subset in roster.items() if own_subset == subset]
        lost = sorted(name for name in listed if name.upper() not in found)
        where = f"{subset}: " if subset else ""
        if lost:
            yield (
                f"{where}{len(found)} speakers; {len(found) + len(lost)} expected, without"
                f" {some_names(lost)}"
            )
        elif expected is not None and len(found) != expected:
            yield f"{where}{len(found)} speakers; {expected} expected"
