"""The files below a folder, and the cache of what is computed from them."""

import os
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from distvae.data import folders
from distvae.files.refusal import Refusal

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


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"HOME": "/c/.cache/distvae", "XDG_CACHE_HOME": "/b/distvae", "DISTVAE_CACHE": "/a"}
    monkeypatch.setattr(os, "environ", {})
    for name, place in places.items():
        os.environ[name] = place.removesuffix("/distvae").removesuffix("/.cache")
        assert folders.cache_folder() == Path(place)
