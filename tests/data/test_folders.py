"""Folders: the files below them, the cache, and broken files, which are refused or left out."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distvae.config import CropData, DataConfig, ImageData, SpeechData
from distvae.data import folders, labels_of, open_dataset
from distvae.data.dataset import Dataset
from distvae.data.family import examine
from distvae.data.folders import find_broken, some_names
from distvae.data.speech import recordings_of
from distvae.files.paths import MemoryShortage
from distvae.files.refusal import Refusal
from distvae.numerics.metrics import counted
from tests.called import Called

NOBODY = 65534
"""Who may not read all that root may."""


def test_what_is_below_a_folder_is_sorted_without_what_is_hidden_or_of_another_kind(
    tmp_path: Path,
) -> None:
    for name in ("b/2.wav", "b/1.WAV", "a.flac", "c.txt", ".a/1.wav", "b/.2.wav", "d.wav/3.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "lost.wav").symlink_to("nowhere")
    (tmp_path / "linked.wav").symlink_to("a.flac")
    assert folders.list_files(tmp_path, (".wav", ".flac")) == [
        "a.flac",
        "b/1.WAV",
        "b/2.wav",
        "d.wav/3.wav",
        "linked.wav",
    ]


def test_links_to_folders_are_followed_and_no_folder_is_listed_twice(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    for name in ("root/a/1.wav", "root/.b/2.wav", "disk/3.wav", "disk/.hidden/4.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (root / "train").symlink_to(disk)
    (root / "self").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    (root / "train2").symlink_to(disk)
    (root / "a" / "beside").symlink_to(root / ".b")
    (root / ".b" / "beside").symlink_to(root / "a")
    (root / "0").symlink_to(root / "a")
    assert folders.list_files(root, (".wav",)) == ["a/1.wav", "a/beside/2.wav", "train/3.wav"]
    (tmp_path / "linked").symlink_to(root)
    assert folders.list_files(tmp_path / "linked", (".wav",)) == folders.list_files(root, (".wav",))


@pytest.mark.parametrize(
    ("link", "to", "is_refused"),
    [
        ("val", "root/test", True),
        ("val/ann", "root/pool/ann", True),
        ("val", "disk", True),
        ("test/again", "root/test/ann", False),
        ("more", "root/test", False),
        ("more/val", "root/test", False),
        ("test/ann/above", "root/test", False),
        ("val", "", False),
    ],
)
def test_a_link_never_moves_files_to_another_split(
    tmp_path: Path, link: str, to: str, is_refused: bool
) -> None:
    root = tmp_path / "root"
    for name in ("root/test/ann/1.wav", "root/pool/ann/2.wav", "disk/3.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (root / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(root)
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(tmp_path / to)
    if is_refused:
        with pytest.raises(Refusal, match=f"{link}: a link to the files of .*in two splits"):
            folders.list_files(root, (".wav",))
    else:
        found = folders.list_files(root, (".wav",))
        assert {name.partition("/")[0]: Path(name).name for name in found} == {
            "linked": "3.wav",
            "pool": "2.wav",
            "test": "1.wav",
        }


def test_a_folder_that_cannot_be_read_is_refused_instead_of_left_out() -> None:
    with (
        TemporaryDirectory() as name
    ):  # below folders that anybody may enter, which those of pytest are not
        root, me = Path(name), os.geteuid()
        root.chmod(0o755)
        (root / "open").mkdir()
        (root / "open" / "1.wav").touch()
        (root / "closed").mkdir(mode=0)
        os.seteuid(me or NOBODY)
        try:
            with pytest.raises(
                Refusal, match=r"closed: Permission denied; a folder that can be read expected"
            ):
                folders.list_files(root, (".wav",))
        finally:
            os.seteuid(me)


def test_what_fails_half_way_leaves_nothing_that_counts(tmp_path: Path) -> None:
    def fail(part: Path) -> None:
        (part / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folders.build_once(tmp_path / "made", fail)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    (tmp_path / "made.part").mkdir()
    (tmp_path / "made.part" / "stale").touch()  # of a killed build
    folders.build_once(tmp_path / "made", lambda part: (part / "whole").touch())
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["whole"]
    (tmp_path / "file").touch()
    with pytest.raises(Refusal, match=r"file: .*DISTVAE_CACHE"):
        folders.build_once(tmp_path / "file" / "made", lambda part: None)


def test_of_many_at_once_one_builds_and_all_find_it_whole(tmp_path: Path) -> None:
    builds: list[Path] = []
    found: list[bool] = []

    def build(part: Path) -> None:
        builds.append(part)
        (part / "first").touch()
        threading.Event().wait(0.05)
        (part / "last").touch()

    def visit() -> None:
        folders.build_once(tmp_path / "made", build)
        found.append((tmp_path / "made" / "last").exists())

    visitors = [threading.Thread(target=visit) for _ in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert len(builds) == 1
    assert found == [True] * 8


def test_who_waits_for_another_process_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folders, "TOLD_AFTER", 0.05)
    begun, over = threading.Event(), threading.Event()

    def build(part: Path) -> None:
        begun.set()
        over.wait()

    first, second = (
        threading.Thread(target=folders.build_once, args=[tmp_path / "made", build]) for _ in "12"
    )
    first.start()
    begun.wait()
    second.start()
    time.sleep(0.5)
    over.set()
    for each in (first, second):
        each.join()
    told = f"distvae: waiting for another process, which prepares {tmp_path}/made\n"
    assert capsys.readouterr().err == told


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"HOME": "/c/.cache/distvae", "XDG_CACHE_HOME": "/b/distvae", "DISTVAE_CACHE": "/a"}
    monkeypatch.setattr(os, "environ", {})
    for name, place in places.items():
        os.environ[name] = place.removesuffix("/distvae").removesuffix("/.cache")
        assert folders.cache_folder() == Path(place)


SPEAKERS = {"train": "ab", "val": "cd", "test": "ef"}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"these are words, whatever the name of the file says\n" * 9,
    "another kind": lambda content: b"\x7fELF" + content[4:],
}


def write_speech(root: Path) -> None:
    """Write two recordings of each of two speakers for every split, as WAV and as FLAC."""
    for split, speakers in SPEAKERS.items():
        for speaker in speakers:
            (root / split / speaker).mkdir(parents=True)
            for suffix in ("wav", "flac"):
                signal = np.random.default_rng(ord(speaker)).uniform(-0.5, 0.5, 4000)
                soundfile.write(root / split / speaker / f"1.{suffix}", signal, 16000)


def write_pictures(root: Path) -> None:
    """Write two pictures of each of two classes for every split, as PNG and as JPEG."""
    for split in SPEAKERS:
        for name in ("cats", "dogs"):
            (root / split / name).mkdir(parents=True)
            for seed, suffix in enumerate(("png", "jpg")):
                chance = np.random.default_rng([seed, *split.encode(), *name.encode()])
                pixels = chance.integers(0, 256, (20, 16, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"1.{suffix}")


KINDS: dict[str, tuple[Callable[[Path], None], DataConfig]] = {
    "speech": (write_speech, SpeechData(window=256, hop=64, split="given")),
    "images": (write_pictures, ImageData()),
    "crops": (write_pictures, CropData(window=(4, 4), sizes=(200, 20, 20))),
}


def settings_of(config: DataConfig, path: Path, **changes: Any) -> DataConfig:
    """Return settings with another path."""
    return type(config)(**(vars(config) | {"path": str(path)} | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder without fault for each kind of data."""
    folders = {}
    for kind, (write, _) in KINDS.items():
        folders[kind] = tmp_path_factory.mktemp(kind) / "data"
        write(folders[kind])
    return folders


@pytest.fixture
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Copies a folder to a new place, under the same name."""
    return lambda source: shutil.copytree(source, tmp_path_factory.mktemp("copy") / source.name)


def file_names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))


def damage(root: Path, damages: dict[str, str]) -> None:
    """Damage files of a folder."""
    for name, kind in damages.items():
        path = root / name
        path.write_bytes(DAMAGES[kind](path.read_bytes()))


def assert_same_data(one: Dataset, other: Dataset) -> None:
    """Assert that two data sets have the same rows by split and the same digest."""
    assert one.digest == other.digest
    assert (one.recordings, one.lengths, one.shape) == (
        other.recordings,
        other.lengths,
        other.shape,
    )
    assert one.splits.keys() == other.splits.keys()
    for name, rows in one.splits.items():
        np.testing.assert_array_equal(rows[:], other.splits[name][:])


some_damages = st.dictionaries(st.integers(0, 11), st.sampled_from(sorted(DAMAGES)), max_size=4)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6)
@given(places=some_damages)
def test_a_folder_with_broken_files_is_the_folder_without_them(
    kind: str,
    places: dict[int, str],
    whole: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    config, source = KINDS[kind][1], whole[kind]
    names = file_names(source)
    damages = {names[place]: how for place, how in places.items()}
    lost = {
        split for split in SPEAKERS if {n for n in names if n.startswith(split)} <= set(damages)
    }
    broken, good = (
        shutil.copytree(source, tmp_path_factory.mktemp("copy") / "data") for _ in range(2)
    )
    damage(broken, damages)
    for name in damages:
        (good / name).unlink()
    if lost and kind != "crops":
        with pytest.raises(Refusal, match=r"every file of \w+ is broken, such as"):
            open_dataset(settings_of(config, broken, skip_broken=True), quiet=True)
        return
    skipping = settings_of(config, broken, skip_broken=True)
    found, expected = (
        open_dataset(skipping, quiet=True),
        open_dataset(settings_of(config, good), quiet=True),
    )
    assert_same_data(found, expected)
    count = counted(len(damages), "broken file")
    note = f": {count} skipped: {some_names(sorted(damages))}" if damages else ""
    assert found.name == f"data{note}"
    labels, expected_labels = labels_of(skipping), labels_of(settings_of(config, good))
    np.testing.assert_equal(labels, expected_labels)
    if (recordings := recordings_of(skipping)) is not None:
        assert recordings.recordings()[1] == list(expected.recordings)


@settings(max_examples=10)
@given(broken=st.sets(st.integers(0, 19), max_size=8), seed=st.integers(0, 9))
@pytest.mark.slow
def test_a_broken_picture_moves_no_other_to_another_split(
    broken: set[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("pictures")
    for number in range(20):
        Image.new("L", (4, 4), number).save(root / f"{number:02}.png")
    config = ImageData(path=str(root), sizes=(10, 5), split_seed=seed)
    before = open_dataset(config, quiet=True)
    names = [f"{number:02}.png" for number in broken]
    damage(root, dict.fromkeys(names, "truncated"))
    expected = {
        split: [n for n in (rows[:, 0] * 255).round().astype(int) if n not in broken]
        for split, rows in ((name, rows[:]) for name, rows in before.splits.items())
    }
    skipping = settings_of(config, root, skip_broken=True)
    if not all(expected.values()):
        with pytest.raises(Refusal, match=r"data\.skip_broken: leaves no image in"):
            open_dataset(skipping, quiet=True)
        return
    after = open_dataset(skipping, quiet=True)
    for split, numbers in expected.items():
        assert (after.splits[split][:][:, 0] * 255).round().astype(int).tolist() == numbers
    assert (after.digest == before.digest) == (not broken)


@pytest.mark.slow
def test_a_broken_recording_moves_no_other_to_another_split(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"speaker{number}").mkdir()
        for take in "ab":
            signal = np.random.default_rng(number).uniform(-0.5, 0.5, 4000)
            soundfile.write(tmp_path / f"speaker{number}" / f"{take}.flac", signal, 16000)
    config = SpeechData(path=str(tmp_path), window=256, hop=64, test=0.3)
    before = open_dataset(config, quiet=True).recordings
    # one speaker loses all recordings, and speakers are what is drawn
    lost = [each.file for each in before if each.speaker == "speaker3"] + ["speaker5/a.flac"]
    damage(tmp_path, dict.fromkeys(lost, "truncated"))
    after = open_dataset(settings_of(config, tmp_path, skip_broken=True), quiet=True).recordings
    assert list(after) == [each for each in before if each.file not in lost]


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_says_what_finds_and_what_skips_broken_files(
    kind: str, whole: dict[str, Path], new_folder: Callable[[Path], Path]
) -> None:
    root = new_folder(whole[kind])
    name = file_names(root)[5]
    damage(root, {name: "truncated"})
    with pytest.raises(
        Refusal,
        match=rf"{name}: .*; 'distvae data check .*/data' names .* data"
        r"\.skip_broken=true leaves them out",
    ) as refusal:
        open_dataset(settings_of(KINDS[kind][1], root), quiet=True)
    assert str(root) in str(refusal.value)


def test_a_silent_recording_is_found_and_skipped_as_a_broken_one_is(
    whole: dict[str, Path], new_folder: Callable[[Path], Path]
) -> None:
    root = new_folder(whole["speech"])
    name = file_names(root)[5]
    soundfile.write(root / name, np.zeros(4000), 16000)
    with pytest.raises(Refusal, match=rf"{name}: silent; .*skip_broken=true leaves them out"):
        open_dataset(settings_of(KINDS["speech"][1], root), quiet=True)
    assert examine(str(root)).unreadable == (f"{root / name}: silent; a sound expected",)
    skipped = open_dataset(settings_of(KINDS["speech"][1], root, skip_broken=True), quiet=True)
    assert name not in [recording.file for recording in skipped.recordings]


def test_the_check_of_data_names_what_is_skipped(
    whole: dict[str, Path], new_folder: Callable[[Path], Path]
) -> None:
    root = new_folder(whole["images"])
    damages = dict(zip(file_names(root)[1::3], sorted(DAMAGES), strict=True))
    damage(root, damages)
    found = examine(str(root))
    assert found.exit_code == 2
    named = [line.partition(f"{root}/")[2].partition(":")[0] for line in found.unreadable]
    assert sorted(named) == sorted(damages)
    skipped = examine(str(root), ["data.skip_broken=true"])
    note = f"4 broken files skipped: {', '.join(sorted(damages))}"
    assert (skipped.unreadable, skipped.facts["left out"]) == ((), note)


def test_each_content_is_decoded_once_and_a_shortage_of_memory_is_no_fault_of_a_file(
    tmp_path: Path, cache: Path
) -> None:
    names = ["a.wav", "b.wav", "c.wav", "d.mp3"]
    for name in names:
        (tmp_path / name).write_bytes(b"good" if name == "c.wav" else b"bad")
    decoded: list[str] = []

    def decode(path: Path) -> None:
        decoded.append(path.name)
        if len(decoded) == 1:
            raise MemoryShortage(f"{path}: its samples need 9 GB")
        if path.read_bytes() == b"bad":
            raise Refusal(f"{path}: truncated")

    with pytest.raises(MemoryShortage):
        find_broken(tmp_path, names[:1], decode, quiet=True)
    moved = shutil.copytree(tmp_path, tmp_path / "moved", ignore=shutil.ignore_patterns("cache"))
    for folder in (tmp_path, moved):
        found = find_broken(folder, names, decode, quiet=True)
        assert found == {n: f"{folder / n}: truncated" for n in ("a.wav", "b.wav", "d.mp3")}
        assert len(decoded) == 4  # a.wav and b.wav are the same bytes of the same kind
    (tmp_path / "a.wav").write_bytes(b"good")
    assert "a.wav" not in find_broken(tmp_path, names, decode, quiet=True)


@pytest.mark.slow
def test_a_run_leaves_out_broken_files(
    whole: dict[str, Path], new_folder: Callable[[Path], Path], tmp_path: Path, call: Called
) -> None:
    root, run = new_folder(whole["images"]), tmp_path / "run"
    damage(root, {"train/cats/1.png": "truncated", "test/dogs/1.jpg": "empty"})
    words = ["train", "mnist-vae", "data.kind=images", "train.epochs=1", "--data", str(root)]
    words += ["--out", str(run), "--no-track", "--quiet"]
    code, _, err = call(*words)
    assert (code, "data.skip_broken=true" in err) == (2, True)
    assert call(*words, "data.skip_broken=true")[0] == 0
    info = json.loads((run / "run.json").read_text())
    assert info["data"] == "data: 2 broken files skipped: test/dogs/1.jpg, train/cats/1.png"
    assert info["rows"] == {"train": 3, "val": 4, "test": 3}
    codes = tmp_path / "codes.parquet"
    assert call("encode", str(run), str(root), "-o", str(codes))[0] == 0
    assert pq.read_metadata(codes).num_rows == 10
