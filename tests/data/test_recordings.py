"""Recordings with their speakers and splits, by folders, tables, patterns and published corpora."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.config import SpeechData
from distvae.data import folders, open_dataset, recordings
from distvae.data.audio import decode
from distvae.data.family import survey
from distvae.data.speech import SpeechFamily
from distvae.files.refusal import Refusal
from tests.data.conftest import Write


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def found(root: Path, *table: str, **settings: Any) -> dict[str, tuple[str, str]]:
    """Return the speaker and the split of each file; a table of speakers is written first."""
    if table:
        (root / "speakers.csv").write_text("\n".join(table) + "\n")
    _, each = recordings.find_recordings(SpeechData(path=str(root), **settings))
    return {recording.file: (recording.speaker, recording.split) for recording in each}


def test_the_speaker_comes_from_folders_a_pattern_or_a_table_and_the_split_from_top_folders(
    root: Path, tmp_path: Path
) -> None:
    touch(root, "Train/19/198/19-198-0.flac", "Train/bob/2/1.MP3", "dev/cat/1.wav", "TEST/d/1.wav")
    assert found(root, split="given") == {
        "Train/19/198/19-198-0.flac": ("19", "train"),
        "Train/bob/2/1.MP3": ("2", "train"),
        "dev/cat/1.wav": ("cat", "val"),
        "TEST/d/1.wav": ("d", "test"),
    }
    named = tmp_path / "named"
    touch(named, "0_george_0.wav", "0_lucas_1.wav", "sub/1_nicolas_2.wav")
    speakers = found(named, speakers="pattern:_([a-z]+)_")
    assert [speaker for speaker, _ in speakers.values()] == ["george", "lucas", "nicolas"]
    lines = ["speaker,file,sex,split", "ann,0_george_0.wav,F,train", "bob,0_lucas_1.wav,M,Dev"]
    assert found(named, *lines, "cat,sub/1_nicolas_2.wav,F,test") == {
        "0_george_0.wav": ("ann", "train"),
        "0_lucas_1.wav": ("bob", "val"),
        "sub/1_nicolas_2.wav": ("cat", "test"),
    }


def test_splits_that_are_not_given_are_drawn_from_training_or_all_anew(root: Path) -> None:
    touch(root, *(f"train/{s}/1.wav" for s in "abcdef"), "test/x/1.wav")
    drawn = found(root)
    assert drawn.pop("test/x/1.wav") == ("x", "test")
    assert sorted(split for _, split in drawn.values()) == ["train"] * 5 + ["val"]
    touch(root, "test/a/2.wav")
    anew = set(found(root, split="seeded").values())
    assert {split for _, split in anew} == {"train", "val", "test"}
    assert len(anew) == 7


def test_a_loose_folder_needs_neither_speakers_nor_splits(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav", "train/anna/c.wav")
    assert found(tmp_path, split="loose") == {
        "a.wav": (tmp_path.name, "test"),
        "b.wav": (tmp_path.name, "test"),
        "train/anna/c.wav": ("anna", "train"),
    }


@settings(max_examples=25)
@given(
    spoken=st.sets(st.tuples(st.integers(0, 15), st.integers(0, 9)), min_size=1),
    seed=st.integers(0, 9),
)
def test_no_speaker_is_ever_in_two_splits_and_the_draw_depends_on_names_and_seed_alone(
    spoken: set[tuple[int, int]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("spoken")
    touch(root, *(f"{speaker}/{number}.wav" for speaker, number in spoken))
    speakers = {f"{speaker}" for speaker, _ in spoken}
    if len(speakers) < 3:
        with pytest.raises(Refusal, match="3 or more expected"):
            found(root, split_seed=seed)
        return
    divided = found(root, split_seed=seed)
    assert len(divided) == len(spoken)
    drawn = dict(divided.values())
    assert len(set(divided.values())) == len(drawn) == len(speakers)
    for split in ("val", "test"):
        assert [*drawn.values()].count(split) == max(1, round(0.15 * len(speakers)))
    other = tmp_path_factory.mktemp("other")
    touch(other, *(f"{speaker}/words.flac" for speaker in speakers))
    assert dict(found(other, split_seed=seed).values()) == drawn


def test_the_variable_may_point_above_the_speech_and_to_a_folder_that_is_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(root, "speech/a/1.wav", "speech/b/1.wav", "speech/c/1.wav", "music/x/1.wav")
    monkeypatch.setenv("DISTVAE_DATA", str(root))
    where, each = recordings.find_recordings(SpeechData())
    assert (where, len(each)) == (root / "speech", 3)
    for name, config in {
        "data.path": SpeechData(path=str(root / "gone")),
        "$DISTVAE_DATA": SpeechData(),
    }.items():
        monkeypatch.setenv("DISTVAE_DATA", str(root / "gone"))
        with pytest.raises(Refusal) as refusal:
            recordings.find_recordings(config)
        assert str(refusal.value).startswith(f"{name}: {root}/gone does not exist")


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
    speakers = [{r.speaker for r in found if r.split == split} for split in folders.SPLITS]
    assert [len(each) for each in speakers] == [8, 2, 2]


def test_without_folders_of_speakers_each_recording_counts_as_one(root: Path, write: Write) -> None:
    names = [f"{folder}/{n}.wav" for folder in ("train", "val", "test") for n in range(2)]
    for name in names:
        write(name)
    divided = found(root)
    assert [speaker for speaker, _ in divided.values()] == [*divided] == sorted(names)
    note = "each recording counts as one"
    assert note in open_dataset(SpeechData(path=str(root)), quiet=True).name
    assert note in survey(str(root)).wrong[0]


REFUSED: list[tuple[list[str], list[str], dict[str, str], str]] = [
    (["notes.txt"], [], {}, "no recordings"),
    (["train/a.wav", "test/bob/1.wav"], [], {}, "train/a.wav: in no speaker's folder"),
    (["a.wav", "b.wav"], [], {"speakers": "folder"}, "a.wav: in no speaker's folder"),
    (["ann/1.wav", "ann/2.wav"], [], {}, "one speaker, 'ann'"),
    (["train/a/1.wav", "test/a/2.wav", "val/b/1.wav"], [], {}, "'a' is in test and in train"),
    (["train/ann/1.wav", "noise/x/1.wav"], [], {}, "noise/x/1.wav: in no split"),
    (["train/ann/1.wav", "test/bob/1.wav"], [], {"split": "given"}, "'given' lacks val"),
    (["1.wav"], [], {"speakers": "pattern:("}, "not a regular expression"),
    (["1.wav"], [], {"speakers": "pattern:([a-z])([a-z])"}, "2 groups; one"),
    (["ann_1.wav", "2.wav"], [], {"speakers": "pattern:([a-z]+)_"}, "no speaker in 2.wav"),
    (["1.wav"], [], {"speakers": "csv:who.csv"}, "who.csv: no such file"),
    (["1.wav"], [], {"speakers": "folders"}, "auto, folder, pattern:REGEX or csv:FILE"),
    (["a.wav"], ["file,speaker"], {}, "no rows"),
    (["a.wav"], [""], {}, "no column file and no column speaker"),
    (["a.wav"], ["file,speaker", "gone.wav,ann"], {}, "names 'gone.wav', which is not in"),
    (["a.wav"], ["file,speaker", "a.wav"], {}, "no speaker for a.wav"),
    (["a.wav"], ["file,speaker", "a.wav,ann", "./a.wav,bob"], {}, "lists a file twice"),
    (["a.wav"], ["file,speaker,split", "a.wav,ann,exam"], {}, "split 'exam' of a.wav"),
]


@pytest.mark.parametrize(("files", "table", "options", "words"), REFUSED)
def test_what_cannot_be_divided_is_refused(
    root: Path, files: list[str], table: list[str], options: dict[str, str], words: str
) -> None:
    touch(root, *files)
    with pytest.raises(Refusal) as refusal:
        found(root, *table, **options)
    assert words in str(refusal.value)


TIMIT = [
    f"{place}/DR{k % 8 + 1}/{sex}{place[1]}BC{k}/{sentence}.WAV"
    for place, count in (("TRAIN", 8), ("TEST", 3))
    for k, sex in zip(range(count), "FMFMFMFM", strict=False)
    for sentence in ("SA1", "SI1027")
]
LIBRISPEECH = [
    f"{subset}/{speaker}/{speaker + 100}/{speaker}-{speaker + 100}-{k:04}.flac"
    for subset, speakers in {
        "train-clean-100": (19, 26, 103),
        "dev-clean": (84,),
        "test-other": (367, 533),
    }.items()
    for speaker in speakers
    for k in range(2)
]
TCD = [
    f"{subset}/{speaker}/Clips/straightcam/{sentence}.wav"
    for subset, speakers in {
        "volunteers": ("01M", "13F", "21M", "54M"),
        "lipspeakers": ("Lipspkr1",),
    }.items()
    for speaker in speakers
    for sentence in ("sa1", "si543")
]
CORPORA = {
    "TIMIT": (TIMIT, {"test": {"FEBC0", "MEBC1", "FEBC2"}}),
    "LibriSpeech": (
        LIBRISPEECH,
        {"train": {"19", "26", "103"}, "val": {"84"}, "test": {"367", "533"}},
    ),
    "TCD-TIMIT": (TCD, {}),
}
"""Recordings, and the speakers of the splits that are published."""


@pytest.mark.parametrize("above", ["", "corpora/one/"])
@pytest.mark.parametrize("corpus", CORPORA)
def test_a_corpus_is_recognised_wherever_it_lies_and_keeps_its_published_splits(
    root: Path, corpus: str, above: str
) -> None:
    names, published = CORPORA[corpus]
    files = [above + file for file in names]
    layout = recordings.recognise(files)
    assert layout is not None
    assert layout.name == corpus
    assert recordings.recognise([file.replace("/", "_") for file in files]) is None
    touch(root, *files)
    divided = found(root)
    assert [*divided] == sorted(files)
    by_split: dict[str, set[str]] = {}
    for speaker, split in divided.values():
        by_split.setdefault(split, set()).add(speaker)
    assert by_split.keys() == {"train", "val", "test"}
    assert sum(map(len, by_split.values())) == len(set.union(*by_split.values()))
    assert by_split | published == by_split


def test_folders_above_a_corpus_may_give_the_split(root: Path) -> None:
    split = {"01M": "train", "13F": "dev", "21M": "test", "54M": "train", "Lipspkr1": "train"}
    touch(root, *(f"{split[file.split('/')[1]]}/{file}" for file in TCD))
    expected = {speaker: "val" if name == "dev" else name for speaker, name in split.items()}
    assert dict(found(root).values()) == expected


def test_what_does_not_belong_is_refused_and_may_be_read_otherwise(root: Path) -> None:
    touch(root, *TIMIT, "TRAIN/DR1/FRBC0/extra.wav")
    refused = r"extra\.wav: lies where TIMIT has no recording; leave it out, or set"
    with pytest.raises(Refusal, match=refused):
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
