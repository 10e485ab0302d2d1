"""Published corpora: trees laid out as their documents say are recognised, divided by speaker, and
checked.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from distvae.cli import app
from distvae.config import SpeechData
from distvae.data.dataset import Recording
from distvae.data.speech import recordings
from distvae.data.speech import recordings as layouts
from distvae.files.refusal import Refusal
from tests.data.conftest import Write
from tests.data.mono import read_mono

TIMIT = [
    f"{place}/DR{k % 8 + 1}/{sex}{place[1]}BC{k}/{sentence}.WAV"
    for place, count in (("TRAIN", 8), ("TEST", 3))
    for k, sex in zip(range(count), "FMFMFMFM", strict=False)
    for sentence in ("SA1", "SI1027", "SX37")
]
LIBRISPEECH = [
    f"LibriSpeech/{subset}/{speaker}/{chapter}/{speaker}-{chapter}-{k:04}.flac"
    for subset, speakers in (
        ("train-clean-100", (19, 26, 103)),
        ("dev-clean", (84,)),
        ("test-other", (367, 533)),
    )
    for speaker in speakers
    for chapter in (speaker + 100,)
    for k in range(2)
]
VCTK = [
    f"wav48_silence_trimmed/{s}/{s}_00{k}_mic{k}.flac"
    for s in ("p225", "p226", "p227", "s5")
    for k in (1, 2)
]
TCD = [
    f"{subset}/{speaker}/Clips/straightcam/{sentence}.wav"
    for subset, speakers in (
        ("volunteers", ("01M", "13F", "21M", "54M")),
        ("lipspeakers", ("Lipspkr1",)),
    )
    for speaker in speakers
    for sentence in ("sa1", "si543")
]
LJSPEECH = [
    f"LJSpeech-1.1/wavs/LJ{chapter:03}-{k:04}.wav" for chapter in range(1, 7) for k in range(1, 4)
]
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SPEAKERS = [f"{k:08x}" for k in range(0xABC000, 0xABC008)]
COMMANDS = [
    f"{word}/{who}_nohash_{k}.wav" for word in WORDS for who in SPEAKERS[:6] for k in (0, 1)
]
CORPORA = {
    "TIMIT": TIMIT,
    "LibriSpeech": LIBRISPEECH,
    "VCTK": VCTK,
    "TCD-TIMIT": TCD,
    "LJSpeech": LJSPEECH,
    "Speech Commands": COMMANDS,
}


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def found(root: Path, **settings: Any) -> list[Recording]:
    return recordings.find_recordings(SpeechData(path=str(root), **settings))[1]


def by_split(recordings: list[Recording]) -> dict[str, set[str]]:
    speakers = defaultdict(set)
    for recording in recordings:
        speakers[recording.split].add(recording.speaker)
    return dict(speakers)


def lists(root: Path) -> None:
    for name, who in (("validation_list.txt", SPEAKERS[4]), ("testing_list.txt", SPEAKERS[5])):
        (root / name).write_text("".join(f"{file}\n" for file in COMMANDS if who in file))


@pytest.mark.parametrize("above", ["", "corpora/one/"])
@pytest.mark.parametrize("corpus", CORPORA)
def test_a_corpus_is_recognised_wherever_it_lies(corpus: str, above: str) -> None:
    files = [above + file for file in CORPORA[corpus]]
    layout = layouts.recognise(files)
    assert layout is not None
    assert layout.name == corpus
    assert layouts.recognise([file.replace("/", "_") for file in files]) is None


@pytest.mark.parametrize("corpus", CORPORA)
def test_all_recordings_are_there_and_no_speaker_is_in_two_splits(root: Path, corpus: str) -> None:
    touch(root, *CORPORA[corpus])
    for listed in (False, True) if corpus == "Speech Commands" else (False,):
        if listed:
            lists(root)
        for seed in range(3):
            divided = found(root, split_seed=seed)
            assert [recording.file for recording in divided] == sorted(CORPORA[corpus])
            speakers = by_split(divided)
            assert speakers.keys() == {"train", "val", "test"}
            assert sum(map(len, speakers.values())) == len(set.union(*speakers.values()))


def test_published_splits_are_kept(root: Path, tmp_path: Path) -> None:
    touch(root, *TIMIT)
    assert by_split(found(root))["test"] == {"FEBC0", "MEBC1", "FEBC2"}
    libri = tmp_path / "libri"
    touch(libri, *LIBRISPEECH)
    assert by_split(found(libri)) == {
        "train": {"19", "26", "103"},
        "val": {"84"},
        "test": {"367", "533"},
    }
    commands = tmp_path / "commands"
    touch(commands, *COMMANDS, "_background_noise_/white_noise.wav")
    lists(commands)
    assert by_split(found(commands)) == {
        "train": set(SPEAKERS[:4]),
        "val": {SPEAKERS[4]},
        "test": {SPEAKERS[5]},
    }


def test_chapters_stand_for_the_one_reader_of_ljspeech(root: Path) -> None:
    touch(root, *LJSPEECH)
    assert set.union(*by_split(found(root)).values()) == {
        f"LJ00{chapter}" for chapter in range(1, 7)
    }


def test_folders_above_a_corpus_may_give_the_split(root: Path) -> None:
    split = {"01M": "train", "13F": "dev", "21M": "test", "54M": "train", "Lipspkr1": "train"}
    touch(root, *(f"{split[file.split('/')[1]]}/{file}" for file in TCD))
    assert by_split(found(root)) == {
        "train": {"01M", "54M", "Lipspkr1"},
        "val": {"13F"},
        "test": {"21M"},
    }


def test_what_does_not_belong_is_refused_and_may_be_read_otherwise(root: Path) -> None:
    touch(root, *TIMIT, "TRAIN/DR1/FRBC0/extra.wav")
    with pytest.raises(
        Refusal, match=r"extra\.wav: lies where TIMIT has no recording; leave it out, or set"
    ):
        found(root)
    assert len(found(root, speakers="folder", split="seeded")) == len(TIMIT) + 1
    touch(root, "TRAIN/DR1/FRBC0/SA1.WAV.wav")
    (root / "TRAIN/DR1/FRBC0/extra.wav").unlink()
    assert len(found(root)) == len(TIMIT)


def checked(root: Path) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["data", "check", str(root), "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_missing_speakers_are_counted_and_named_where_the_table_is_there(
    root: Path, write: Write
) -> None:
    for file in TIMIT:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / file, np.full(1600, 0.1), 16000, format="NIST")
    code, facts = checked(root)
    assert (code, facts["layout"]) == (1, "TIMIT")
    assert facts["wrong"] == ["test: 3 speakers; 168 expected", "train: 8 speakers; 462 expected"]
    header = ";comment\n;ID  Sex DR Use  RecDate   BirthDate  Ht    Race Edu  Comments\n"
    rows = [f"{file.split('/')[2][1:]}  {file.split('/')[2][0]}  1  {file[:2]}" for file in TIMIT]
    used = [
        row[:-2] + {"TR": "TRN", "TE": "TST"}[row[-2:]] + "  03/03/86"
        for row in dict.fromkeys(rows)
    ]
    (root / "DOC").mkdir()
    (root / "DOC" / "SPKRINFO.TXT").write_text(
        header + "\n".join([*used, "XYZ9  M  6  TRN  03/03/86", ""])
    )
    assert checked(root)[1]["wrong"] == [
        "test: 3 speakers; 168 expected",
        "train: 8 speakers; 9 expected, without MXYZ9",
    ]


@pytest.mark.parametrize(
    ("table", "text", "files", "wrong"),
    [
        (
            "LibriSpeech/SPEAKERS.TXT",
            (
                ";ID |SEX| SUBSET |MINUTES| NAME\n19 | F | train-clean-100 | 25 | K\n27 | M |"
                " train-clean-100 | 20 | M\n"
            ),
            LIBRISPEECH[:6],
            ["train-clean-100: 3 speakers; 4 expected, without 27"],
        ),
        (
            "speaker-info.txt",
            (
                "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\np225  23  F    English\n228  22  F   "
                " English\n"
            ),
            VCTK,
            ["4 speakers; 5 expected, without p228"],
        ),
    ],
)
def test_a_corpus_table_names_who_is_missing(
    root: Path, table: str, text: str, files: list[str], wrong: list[str]
) -> None:
    touch(root, *files, table)
    (root / table).write_text(text)
    layout = layouts.recognise(files)
    assert layout is not None
    assert list(layouts.departures(layout, root, files, {})) == wrong


def test_subsets_of_librispeech_may_be_had_one_by_one(root: Path) -> None:
    layout = layouts.recognise(LIBRISPEECH)
    assert layout is not None
    assert list(layouts.departures(layout, root, LIBRISPEECH, {})) == [
        "dev-clean: 1 speakers; 40 expected",
        "test-other: 2 speakers; 33 expected",
        "train-clean-100: 3 speakers; 251 expected",
    ]
    many = [f"dev-clean/{k}/9/{k}-9-0000.flac" for k in range(1, 41)]
    assert not list(layouts.departures(layout, root, many, dict.fromkeys(many, 16000)))


def test_another_rate_stray_files_and_missing_lists_are_told(root: Path, write: Write) -> None:
    for file in COMMANDS[:12]:
        write(file, np.full(1600, 0.1), rate=8000 if SPEAKERS[0] in file else 16000)
    write("zero/what.wav", np.full(1600, 0.1))
    code, facts = checked(root)
    assert (code, facts["layout"]) == (1, "Speech Commands")
    assert facts["wrong"] == [
        "1 files lie where Speech Commands has no recording: zero/what.wav",
        "2 recordings at 8,000 Hz; 16,000 expected",
        (
            f"{root}: lacks validation_list.txt and testing_list.txt; speakers are drawn by"
            " data.split_seed instead"
        ),
    ]


def test_the_ten_digits_are_sc09(root: Path, write: Write) -> None:
    for file in COMMANDS:
        write(file, np.full(1600, 0.1))
    lists(root)
    code, facts = checked(root)
    assert (code, facts["wrong"]) == (0, [])
    assert facts["layout"] == "SC09, the digits of Speech Commands"
    assert facts["splits"]["val"]["speakers"] == facts["splits"]["test"]["speakers"] == 1


@pytest.mark.parametrize(
    ("corpus", "change", "wrong"),
    [
        (
            "TCD-TIMIT",
            lambda files: files,
            ["lipspeakers: 1 speakers; 3 expected", "volunteers: 4 speakers; 59 expected"],
        ),
        ("LJSpeech", lambda files: files, ["18 recordings; 13,100 expected"]),
        (
            "LJSpeech",
            lambda files: [f"LJ{k // 9999 + 1:03}-{k % 9999:04}.wav" for k in range(13100)],
            [],
        ),
    ],
)
def test_what_was_published_is_asked_for(
    root: Path, corpus: str, change: Callable[[list[str]], list[str]], wrong: list[str]
) -> None:
    files = change(CORPORA[corpus])
    layout = layouts.recognise(files)
    assert layout is not None
    assert list(layouts.departures(layout, root, files, {})) == wrong


def test_sounds_of_timit_are_read_from_their_sphere_files(root: Path) -> None:

    signal = np.round(np.random.default_rng(0).uniform(-0.5, 0.5, 4000) * 32768) / 32768
    soundfile.write(root / "SA1.WAV", signal, 16000, format="NIST", subtype="PCM_16")
    assert (root / "SA1.WAV").read_bytes()[:7] == b"NIST_1A"
    np.testing.assert_array_equal(read_mono(root / "SA1.WAV", 16000), signal.astype(np.float32))


@pytest.mark.slow
def test_the_speech_at_hand_is_as_its_table_says(real_data: Path) -> None:
    if not (real_data / "speech").is_dir():
        pytest.skip("no speech folder in the data")
    code, facts = checked(real_data / "speech")
    assert (code, facts["layout"]) == (0, "a tree of recordings")
    assert {split: amount["speakers"] for split, amount in facts["splits"].items()} == {
        "train": 160,
        "val": 20,
        "test": 26,
    }
