"""Recordings with their speakers and splits, by folders, tables, patterns and published corpora."""

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from distvae.config import SpeechData
from distvae.data import SpeechFamily, folders, open_dataset, recordings
from distvae.data.audio import decode
from distvae.data.check import survey
from distvae.data.dataset import Recording
from distvae.data.synthesiser import RATE, utterance
from distvae.files.refusal import Refusal
from tests.data.conftest import Write


def table(root: Path, *lines: str) -> SpeechData:
    (root / "speakers.csv").write_text("\n".join(lines) + "\n")
    return SpeechData(path=str(root))


def test_folders_give_the_speaker(root: Path) -> None:
    touch(root, "19/198/19-198-0000.flac", "26/495/26-495-0000.flac", "ann/1.wav", "bob/2/1.MP3")
    _, found = recordings.find_recordings(SpeechData(path=str(root), speakers="folder"))
    assert [recording.speaker for recording in found] == ["19", "26", "ann", "2"]


def test_top_folders_give_the_split(root: Path) -> None:
    touch(root, "Train/ann/1.wav", "Train/bob/1.wav", "dev/cat/1.wav", "TEST/dan/1.wav")
    _, found = recordings.find_recordings(SpeechData(path=str(root), split="given"))
    assert {r.speaker: r.split for r in found} == {
        "ann": "train",
        "bob": "train",
        "cat": "val",
        "dan": "test",
    }


def test_a_validation_split_that_is_not_given_is_drawn_from_training(root: Path) -> None:
    touch(root, *(f"train/{s}/1.wav" for s in "abcdef"), "test/x/1.wav")
    _, found = recordings.find_recordings(SpeechData(path=str(root)))
    assert [r.split for r in found if r.speaker == "x"] == ["test"]
    assert sorted(r.split for r in found if r.speaker != "x") == ["train"] * 5 + ["val"]


def test_given_splits_can_be_drawn_anew(root: Path) -> None:
    touch(root, *(f"train/{s}/1.wav" for s in "abcdef"), "test/a/2.wav")
    _, found = recordings.find_recordings(SpeechData(path=str(root), split="seeded"))
    assert {r.split for r in found} == {"train", "val", "test"}
    assert len({r.split for r in found if r.speaker == "a"}) == 1


def test_a_pattern_finds_the_speaker_in_the_path(root: Path) -> None:
    touch(root, "0_george_0.wav", "0_lucas_1.wav", "sub/1_nicolas_2.wav")
    _, found = recordings.find_recordings(SpeechData(path=str(root), speakers="pattern:_([a-z]+)_"))
    assert [r.speaker for r in found] == ["george", "lucas", "nicolas"]


def test_a_table_decides_what_belongs(root: Path) -> None:
    touch(root, "a.wav", "b.wav", "c.wav", "unlisted.wav")
    config = table(
        root, "speaker,file,sex,split", "ann,a.wav,F,train", "bob,b.wav,M,Dev", "cat,c.wav,F,test"
    )
    _, found = recordings.find_recordings(config)
    assert [(r.file, r.speaker, r.split) for r in found] == [
        ("a.wav", "ann", "train"),
        ("b.wav", "bob", "val"),
        ("c.wav", "cat", "test"),
    ]


@given(
    spoken=st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 99)), min_size=1, unique=True
    ),
    seed=st.integers(0, 9),
)
def test_no_speaker_is_ever_in_two_splits(
    spoken: list[tuple[str, int]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("spoken")
    touch(root, *(f"{speaker}/{number}.wav" for speaker, number in spoken))
    config = SpeechData(path=str(root), split_seed=seed)
    if len({speaker for speaker, _ in spoken}) < 3:
        with pytest.raises(Refusal, match="3 or more expected"):
            recordings.find_recordings(config)
        return
    _, found = recordings.find_recordings(config)
    assert len(found) == len(spoken)
    assert len({(r.speaker, r.split) for r in found}) == len({r.speaker for r in found})


def test_the_variable_may_point_above_the_speech(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(root, "speech/a/1.wav", "speech/b/1.wav", "speech/c/1.wav", "music/x/1.wav")
    monkeypatch.setenv("DISTVAE_DATA", str(root))
    where, found = recordings.find_recordings(SpeechData())
    assert where == root / "speech"
    assert len(found) == 3


def test_speech_of_a_uri_is_found_by_it_again(write: Write, root: Path, cache: Path) -> None:
    """Whatever reads it first: training, a trial of a sweep, or judging."""
    for name in ("a/1.wav", "b/1.wav", "c/1.wav"):
        write(name)
    config = SpeechData(path=root.as_uri())
    where, found = SpeechFamily(config).recordings()
    assert where.is_relative_to(cache)
    assert found == recordings.find_recordings(SpeechData(path=str(root)))[1]
    dataset = open_dataset(config, quiet=True)
    assert (dataset.origin, dataset.name) == (root.as_uri(), root.name)


@pytest.mark.slow
def test_without_data_the_built_in_speech_is_found() -> None:
    root, found = recordings.find_recordings(SpeechData())
    assert root.is_relative_to(folders.cache_folder())
    speakers = {
        split: len({r.speaker for r in found if r.split == split})
        for split in ("train", "val", "test")
    }
    assert speakers == {"train": 8, "val": 2, "test": 2}


@pytest.mark.parametrize("folders", [[""], ["train", "val", "test"]])
def test_without_folders_of_speakers_each_recording_counts_as_one(
    tmp_path: Path, folders: list[str]
) -> None:
    names = [PurePosixPath(folder, f"{n}.wav").as_posix() for folder in folders for n in range(5)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, utterance(0, 0), RATE)
    config = SpeechData(path=str(tmp_path))
    _, found = recordings.find_recordings(config)
    assert [each.speaker for each in found] == [each.file for each in found] == sorted(names)
    assert {each.split for each in found} == {"train", "val", "test"}
    note = "each recording counts as one"
    assert note in open_dataset(config, quiet=True).name
    assert note in survey(str(tmp_path)).wrong[0]


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ([], {}, "no recordings"),
        (["notes.txt"], {}, "no recordings"),
        (["a.wav", "ann/1.wav"], {}, "a.wav: in no speaker's folder"),
        (["train/a.wav", "test/bob/1.wav"], {}, "train/a.wav: in no speaker's folder"),
        (["a.wav", "b.wav"], {"speakers": "folder"}, "a.wav: in no speaker's folder"),
        (["a.wav"], {}, "one speaker, 'a.wav'"),
        (["ann/1.wav", "ann/2.wav"], {}, "one speaker, 'ann'"),
        (
            ["train/ann/1.wav", "test/ann/2.wav", "val/bob/1.wav"],
            {},
            "'ann' is in test and in train",
        ),
        (["train/ann/1.wav", "noise/x/1.wav"], {}, "noise/x/1.wav: in no split"),
        (["train/ann/1.wav", "test/bob/1.wav"], {"split": "given"}, "'given' lacks val"),
        (["ann/1.wav", "bob/1.wav"], {"split": "given"}, "ann/1.wav: in no split"),
        (["1.wav"], {"speakers": "pattern:("}, "not a regular expression"),
        (["1.wav"], {"speakers": "pattern:[a-z]+"}, "0 groups; one"),
        (["1.wav"], {"speakers": "pattern:([a-z])([a-z])"}, "2 groups; one"),
        (["ann_1.wav", "2.wav"], {"speakers": "pattern:([a-z]+)_"}, "no speaker in 2.wav"),
        (["1.wav"], {"speakers": "csv:who.csv"}, "who.csv: no such file"),
        (["1.wav"], {"speakers": "csv:"}, "auto, folder, pattern:REGEX or csv:FILE"),
        (["1.wav"], {"speakers": "folders"}, "auto, folder, pattern:REGEX or csv:FILE"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    root: Path, files: list[str], options: dict[str, str], words: str
) -> None:
    touch(root, *files)
    with pytest.raises(Refusal) as refusal:
        recordings.find_recordings(SpeechData(path=str(root), **options))  # type: ignore[arg-type]
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["file,speaker"], "no rows"),
        ([""], "no column file and no column speaker"),
        (["file,who", "a.wav,ann"], "no column speaker"),
        (["file,speaker", "gone.wav,ann"], "names 'gone.wav', which is not in"),
        (["file,speaker", ",ann"], "names ''"),
        (["file,speaker", "a.wav"], "no speaker for a.wav"),
        (["file,speaker", "a.wav,ann", "./a.wav,bob"], "lists a file twice"),
        (["file,speaker,split", "a.wav,ann,exam"], "split 'exam' of a.wav"),
        (["file,speaker,split", "a.wav,ann,train", "b.wav,bob,"], "b.wav: in no split"),
        (
            ["file,speaker,split", "a.wav,ann,train", "b.wav,ann,val"],
            "'ann' is in train and in val",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(root: Path, lines: list[str], words: str) -> None:
    touch(root, "a.wav", "b.wav")
    with pytest.raises(Refusal) as refusal:
        recordings.find_recordings(table(root, *lines))
    assert words in str(refusal.value)


def test_a_missing_folder_is_refused_with_its_source(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refusal, match=r"data\.path: .*gone does not exist"):
        recordings.find_recordings(SpeechData(path=str(root / "gone")))
    monkeypatch.setenv("DISTVAE_DATA", str(root / "gone"))
    with pytest.raises(Refusal, match=r"\$DISTVAE_DATA: .*gone does not exist"):
        recordings.find_recordings(SpeechData())


def test_a_loose_folder_needs_neither_speakers_nor_splits(tmp_path: Path) -> None:
    for file in ("a.wav", "b.wav", "train/anna/c.wav"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    _, found = recordings.find_recordings(SpeechData(path=str(tmp_path), split="loose"))
    assert [(r.file, r.speaker, r.split) for r in found] == [
        ("a.wav", tmp_path.name, "test"),
        ("b.wav", tmp_path.name, "test"),
        ("train/anna/c.wav", "anna", "train"),
    ]


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


def by_split(divided: list[Recording]) -> dict[str, set[str]]:
    speakers = defaultdict(set)
    for recording in divided:
        speakers[recording.split].add(recording.speaker)
    return dict(speakers)


def lists(root: Path) -> None:
    for name, who in (("validation_list.txt", SPEAKERS[4]), ("testing_list.txt", SPEAKERS[5])):
        (root / name).write_text("".join(f"{file}\n" for file in COMMANDS if who in file))


@pytest.mark.parametrize("above", ["", "corpora/one/"])
@pytest.mark.parametrize("corpus", CORPORA)
def test_a_corpus_is_recognised_wherever_it_lies(corpus: str, above: str) -> None:
    files = [above + file for file in CORPORA[corpus]]
    layout = recordings.recognise(files)
    assert layout is not None
    assert layout.name == corpus
    assert recordings.recognise([file.replace("/", "_") for file in files]) is None


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


def test_sounds_of_timit_are_read_from_their_sphere_files(root: Path) -> None:

    signal = np.round(np.random.default_rng(0).uniform(-0.5, 0.5, 4000) * 32768) / 32768
    soundfile.write(root / "SA1.WAV", signal, 16000, format="NIST", subtype="PCM_16")
    assert (root / "SA1.WAV").read_bytes()[:7] == b"NIST_1A"
    np.testing.assert_array_equal(decode(root / "SA1.WAV")[0][:, 0], signal.astype(np.float32))


SHARES = {"val": 0.15, "test": 0.15}
names = st.sets(st.text(min_size=1, max_size=8), min_size=3, max_size=40)


@given(speakers=names, seed=st.integers(0, 2**40), data=st.data())
def test_the_draw_depends_on_names_and_seed_alone(
    speakers: set[str], seed: int, data: st.DataObject
) -> None:
    one, other = sorted(speakers), data.draw(st.permutations(sorted(speakers)))
    drawn = [
        recordings.draw_missing_splits(dict.fromkeys(order, "train"), SHARES, seed)
        for order in (one, other)
    ]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("speakers", "val", "test"), [(12, 2, 2), (100, 15, 15), (3, 1, 1), (56, 8, 8)]
)
def test_shares_are_of_the_speakers_rounded(speakers: int, val: int, test: int) -> None:
    drawn = list(
        recordings.draw_missing_splits(
            dict.fromkeys(map(str, range(speakers)), "train"), SHARES, 0
        ).values()
    )
    assert (drawn.count("val"), drawn.count("test")) == (val, test)
