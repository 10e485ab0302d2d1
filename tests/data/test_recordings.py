from pathlib import Path, PurePosixPath

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from distvae.config import SpeechData
from distvae.data import SpeechFamily, folders, open_dataset
from distvae.data.check import survey
from distvae.data.speech import recordings
from distvae.data.speech.synthesiser import RATE, utterance
from distvae.files.refusal import Refusal
from tests.data.conftest import Write

LAYOUTS = {
    "one folder per speaker": (
        ["ann/1.wav", "bob/1.flac", "cat/1.ogg", "dan/1.MP3"],
        ["ann", "bob", "cat", "dan"],
    ),
    "LibriSpeech": (
        [
            f"{speaker}/{chapter}/{speaker}-{chapter}-0000.flac"
            for speaker in (19, 26, 103)
            for chapter in (198, 227)
        ],
        ["103", "103", "19", "19", "26", "26"],
    ),
    "LibriSpeech with its splits": (
        [
            f"{top}/{s}/9{s}/{s}-9{s}-0000.flac"
            for top, s in (("dev-clean", 3), ("test-clean", 4), ("train-clean-100", 5))
        ],
        ["3", "4", "5"],
    ),
    "VCTK": (
        [f"wav48_silence_trimmed/{s}/{s}_001_mic1.flac" for s in ("p225", "p226", "s5")],
        ["p225", "p226", "s5"],
    ),
    "TIMIT": (
        ["TEST/DR1/FAKS0/SA1.WAV", "TRAIN/DR1/FCJF0/SA1.WAV", "TRAIN/DR2/FAEM0/SA1.WAV"],
        ["FAKS0", "FCJF0", "FAEM0"],
    ),
}


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def table(root: Path, *lines: str) -> SpeechData:
    (root / "speakers.csv").write_text("\n".join(lines) + "\n")
    return SpeechData(path=str(root))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_speakers_are_read_off_usual_layouts(root: Path, layout: str) -> None:
    files, speakers = LAYOUTS[layout]
    touch(root, *files)
    where, found = recordings.find_recordings(SpeechData(path=str(root)))
    assert where == root
    assert [recording.file for recording in found] == sorted(files)
    assert [recording.speaker for recording in found] == speakers


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


def test_a_table_may_leave_the_split_to_the_seed(root: Path) -> None:
    touch(root, "a.wav", "b.wav", "c.wav")
    _, found = recordings.find_recordings(
        table(root, "file,speaker", "a.wav,ann", "b.wav,bob", "c.wav,cat")
    )
    assert {r.split for r in found} == {"train", "val", "test"}


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


def test_hidden_and_other_files_are_left_out(root: Path) -> None:
    touch(
        root,
        "a/1.wav",
        "b/1.wav",
        "c/1.wav",
        "a/._1.wav",
        ".trash/d/1.wav",
        "notes.txt",
        "a/cover.jpg",
    )
    (root / "d.wav").mkdir()
    assert recordings.sound_files(root) == ["a/1.wav", "b/1.wav", "c/1.wav"]


def test_the_variable_may_point_above_the_speech(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(root, "speech/a/1.wav", "speech/b/1.wav", "speech/c/1.wav", "music/x/1.wav")
    monkeypatch.setenv("DISTVAE_DATA", str(root))
    where, found = recordings.find_recordings(SpeechData())
    assert where == root / "speech"
    assert len(found) == 3


def test_the_path_comes_before_the_variable(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(root, "a/1.wav", "b/1.wav", "c/1.wav")
    monkeypatch.setenv("DISTVAE_DATA", str(tmp_path))
    assert recordings.find_recordings(SpeechData(path=str(root)))[0] == root


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


def test_a_table_that_is_no_text_is_refused(root: Path) -> None:
    touch(root, "a.wav")
    (root / "speakers.csv").write_bytes(bytes(range(256)))
    with pytest.raises(Refusal, match=r"speakers\.csv: cannot be read"):
        recordings.find_recordings(SpeechData(path=str(root)))


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
