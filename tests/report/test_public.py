"""What a page to be published gives away: no recording, no original, no place on the machine it was
made on.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distvae import report
from distvae.report.blocks import Document, Section, Text
from distvae.report.public import redact
from distvae.tune.results import Result
from tests.report import folders as sweeps
from tests.report.reader import Page

LOCAL = re.compile(r"(?<![\w<./])/(?:\w|\.\w)[^\s<>]*/|file:/|\\\\")
"""What looks like a path of some machine."""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep whose settings, data, causes and labels all name places, some with blanks."""
    folder, data = tmp_path / "my sweeps" / "one", tmp_path / "my data" / "speech"

    def judge(number: int, values: dict[str, Any]) -> Result:
        result = sweeps.judged(
            number, values | {"data.path": str(data) if number % 2 else "/srv/other/images"}
        )
        cause = f"cannot read {data}/a/b.wav: see file:///var/log/x.txt and '{Path.home()}/y.log'"
        return replace(result, state="failed", figures={}, cause=cause) if number == 3 else result

    folder.parent.mkdir()
    first, *_ = sweeps.without_a_ledger(
        folder, judge, base="mnist-vae", fixed={"data.path": str(data)}
    )
    run = folder / "trials" / str(first.number)
    sweeps.trained(run, data={"path": str(data)})
    sweeps.put_evaluation(run)
    (run / "evaluation" / "val" / "images.png").write_bytes(
        (run / "evaluation/val/spectrogram.png").read_bytes()
    )
    return folder


def page_text(page: Path) -> str:
    """All that a page says, but for the content of its pictures."""
    return re.sub(r"data:image/\w+;base64,[^\"]*", "", page.read_text())


def test_a_public_page_has_no_recording_no_original_and_no_path(
    sweep: Path, tmp_path: Path
) -> None:
    page = report.write(sweep, publish=True)
    assert page == sweep / "report.public.html"
    for text in (page_text(page), page.with_suffix(".md").read_text()):
        assert "speech" in text
        assert not re.search(r"<audio|data:audio|(original|reconstruction)\.wav", text)
        for place in (str(tmp_path), tmp_path.name, "my sweeps", "/srv", "/var", str(Path.home())):
            assert place not in text
        words = [*Page(text).words, *(str(v) for _, a in Page(text).tags for v in a.values())]
        assert not [word for word in words if LOCAL.search(word)]
    assert (
        len([each for each in Page(page.read_text()).addresses if each.startswith("data:image")])
        == 1
    )
    assert "](" not in page.with_suffix(".md").read_text()


@pytest.mark.slow
def test_the_page_at_home_keeps_all_of_it(sweep: Path, tmp_path: Path) -> None:
    page = report.write(sweep)
    assert "data:audio/ogg" in page.read_text()
    assert (
        len([each for each in Page(page.read_text()).addresses if each.startswith("data:image")])
        == 2
    )
    assert LOCAL.search(page_text(page))
    assert report.write(sweep, publish=True) != page


def test_a_run_is_published_by_names_too(sweep: Path, tmp_path: Path) -> None:
    page = report.write(next((sweep / "trials").iterdir()), tmp_path / "run.html", publish=True)
    assert str(tmp_path) not in page_text(page) + page.with_suffix(".md").read_text()
    assert "data.path" in page_text(page)


KNOWN = ["/known place", "/bob's place", "s3://mine/people/anna", "people/bob"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/x.wav: broken", "x.wav: broken"),
        ("'/a/b c/d'", "'b c/d'"),
        ("data.path=/a/b", "data.path=b"),
        ("sqlite:////srv/runs/mlflow.db", "mlflow.db"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("nats / frame, 1/2 and/or (a)/b, ~/recordings, runs/speech", None),
        ("s3://mine/people/anna, https://example.org", "anna, https://example.org"),
        ("data.path=people/bob", "data.path=bob"),
        ("/known place/x and /known places", "known place/x and known places"),
        ("data.path='/bob'\"'\"'s place/x'", "data.path='bob'\"'\"'s place/x'"),
    ],
)
def test_paths_become_names_and_nothing_else_changes(text: str, expected: str | None) -> None:
    page = redact(
        Document("", "", [Section("", [Text(text)])]),
        [*KNOWN, "relative", "", "/"],
    )
    (block,) = page.sections[0].blocks
    assert block == Text(text if expected is None else expected)
