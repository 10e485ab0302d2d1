"""The page of a sweep in a real browser: a table that sorts, and trials to see and hear."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from distvae import report
from tests.browser import needs_browser, opened
from tests.report import folders
from tests.report.test_sweeps import mixed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, needs_browser]
SECONDS = 8


def test_a_click_on_a_head_sorts_by_that_figure_and_a_second_turns_it_round(tmp_path: Path) -> None:
    results = folders.sweep(tmp_path, mixed)
    errors = {str(each.number): each.figures.get("squared_error", 0) for each in results}
    having = sorted((n for n in errors if errors[n]), key=lambda n: errors[n])
    with opened(report.write(tmp_path).as_uri()) as page:
        table = page.locator("table.sortable").first
        numbers = table.locator("tbody tr td:first-child")
        head = table.locator("thead th", has=page.get_by_role("button", name="squared_error"))
        assert head.get_attribute("aria-sort") == "ascending"
        for order, expected in (("descending", having[::-1]), ("ascending", having)):
            head.get_by_role("button").click()
            assert head.get_attribute("aria-sort") == order
            assert numbers.all_inner_texts()[: len(having)] == expected
        table.get_by_role("button", name="trial").click()
        assert numbers.all_inner_texts() == sorted(errors, key=int)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sweep's page; the third trial in rank has neither sounds nor pictures."""
    folder = tmp_path_factory.mktemp("gallery") / "sweep"
    results = folders.sweep(folder, trials=4)
    for result in (results[0], results[1], results[3]):
        folders.trained(folder / "trials" / str(result.number))
        folders.put_evaluation(folder / "trials" / str(result.number))
        for name, height in (("original", 300), ("reconstruction", 300 + result.number)):
            wave = 0.3 * np.sin(2 * np.pi * height * np.arange(8000 * SECONDS) / 8000)
            path = folder / "trials" / str(result.number) / "evaluation" / "val" / f"{name}.wav"
            soundfile.write(path, wave, 8000)
    return report.write(folder).as_uri()


@pytest.fixture
def page(address: str) -> "Iterator[Page]":
    """The page, which neither fails nor breaks its own policy."""
    with opened(address) as page:
        messages: list[str] = []
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("console", lambda message: messages.append(message.text))
        page.reload()
        yield page
        assert not messages


def test_the_link_in_a_row_opens_its_trial_alone_and_every_control_has_a_name(page: "Page") -> None:
    links = page.locator("table.sortable td a")
    assert links.count() == 3
    for link in links.all():
        link.click()
        (opened_one,) = page.locator("details[open][name=exhibit]").all()
        assert f"#{opened_one.get_attribute('id')}" == link.get_attribute("href")
        assert opened_one.locator("img").first.is_visible()
    snapshot = page.locator("main").aria_snapshot()
    for nameless in ("- button\n", "- link\n", "- img\n"):
        assert nameless not in snapshot


def test_the_reconstruction_goes_on_where_the_original_was(page: "Page") -> None:
    first, second = page.locator("details[open] audio").all()
    first.evaluate("sound => { sound.currentTime = 3; sound.play(); }")
    deadline = time.monotonic() + 60
    while first.evaluate("sound => sound.currentTime") < 3.2:
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)
    second.evaluate("sound => sound.play()")
    assert first.evaluate("sound => sound.paused")
    left = first.evaluate("sound => sound.currentTime")
    assert left <= second.evaluate("sound => sound.currentTime") < SECONDS
