import threading
from pathlib import Path

import pytest

from distvae.data import folders
from distvae.files.refusal import Refusal


def test_what_fails_half_way_leaves_nothing_that_counts(tmp_path: Path) -> None:
    def fail(part: Path) -> None:
        (part / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folders.build_once(tmp_path / "made", fail)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_remains_of_a_killed_build_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "made.part").mkdir()
    (tmp_path / "made.part" / "stale").touch()
    folders.build_once(tmp_path / "made", lambda part: (part / "whole").touch())
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["whole"]


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


def test_a_cache_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refusal, match=r"file: .*DISTVAE_CACHE"):
        folders.build_once(tmp_path / "file" / "made", lambda part: None)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DISTVAE_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/distvae"),
        ({"HOME": "/c"}, "/c/.cache/distvae"),
    ],
)
def test_the_cache_follows_the_environment(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISTVAE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert folders.cache_folder() == Path(expected)
