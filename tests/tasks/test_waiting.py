"""Work that takes long says how far it is, also where nobody sees a bar."""

import re
import time

import pytest

from distvae.tasks import waiting
from distvae.tasks.waiting import announce, with_news


def test_lines_tell_how_much_is_done_and_how_long_the_rest_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each item takes four seconds by this clock, and a line comes every ten."""
    seconds = iter(range(0, 1000, 4))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(seconds)))
    assert list(with_news("abcdefgh", 8, "scoring", wanted=True)) == list("abcdefgh")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["scoring: 3 of 8, 0:20 left", "scoring: 6 of 8, 0:08 left"]


def test_work_that_is_soon_done_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_news(range(1000), 1000, "scoring", wanted=True)) == list(range(1000))
    assert capsys.readouterr() == ("", "")


def test_nothing_is_printed_unless_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "LINE_SECONDS", 0.0)
    assert list(with_news(range(9), 9, "scoring", wanted=False)) == list(range(9))
    announce("drawing", wanted=False)
    assert capsys.readouterr() == ("", "")
    list(with_news(range(9), 9, "scoring", wanted=True))
    assert re.fullmatch(r"(scoring: \d of 9, 0:00 left\n){8}", capsys.readouterr().err)
