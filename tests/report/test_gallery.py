"""The sounds and pictures of a sweep's page in a real browser: chosen by row, point and key, heard
in turn at the same place, on wide and narrow screens.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from distvae import report
from tests.browser import needs_browser, opened
from tests.report import folders as sweeps

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.slow, needs_browser]
SECONDS = 8


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sweep's page; the third trial in rank has neither sounds nor pictures."""
    folder = tmp_path_factory.mktemp("gallery") / "sweep"
    results = sweeps.without_a_ledger(folder, trials=4)
    for result in (results[0], results[1], results[3]):
        sweeps.trained(folder / "trials" / str(result.number))
        sweeps.put_evaluation(folder / "trials" / str(result.number))
        for name, height in (("original", 300), ("reconstruction", 300 + result.number)):
            wave = 0.3 * np.sin(2 * np.pi * height * np.arange(8000 * SECONDS) / 8000)
            path = folder / "trials" / str(result.number) / "evaluation" / "val" / f"{name}.wav"
            soundfile.write(path, wave, 8000)
    return report.write(folder).as_uri()


@pytest.fixture
def page(address: str) -> "Iterator[Page]":
    with opened(address) as page:
        messages: list[str] = []
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("console", lambda message: messages.append(message.text))
        page.reload()
        yield page
        assert not messages


def shown(page: "Page") -> str:
    """The exhibit that can be seen."""
    return page.locator("article:visible").get_attribute("id") or ""


def playing(page: "Page") -> list[str]:
    """The names of the sounds that play."""
    names: list[str] = page.evaluate(
        "[...document.querySelectorAll('audio')].filter(a => !a.paused).map(a => a.id)"
    )
    return names


def place(page: "Page", name: str) -> float:
    """The position of a sound in seconds."""
    return float(page.evaluate(f"document.getElementById('{name}').currentTime"))


def wait_until_heard(page: "Page") -> None:
    """Wait for a sound to play; the page's policy lets no script of ours wait inside it."""
    deadline = time.monotonic() + 60
    while not any(place(page, name) > 0.2 for name in playing(page)):
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def rows_with_links(page: "Page") -> "Locator":
    return page.locator("table.sortable tbody tr:has(a)")


def test_a_click_on_a_row_plays_its_trial_and_shows_it(page: "Page") -> None:
    for row in rows_with_links(page).all():
        row.locator("td").nth(1).click()
        wait_until_heard(page)
        number = row.locator("th").inner_text()
        assert shown(page) == f"trial-{number}"
        assert len(playing(page)) == 1
        assert page.locator("tr.chosen th").all_inner_texts() == [number]


def test_a_click_on_a_point_plays_its_trial(page: "Page") -> None:
    points = page.locator(".canvas a")
    assert points.count() == 3
    for point in points.all():
        point.click(force=True)
        wait_until_heard(page)
        assert f"#{shown(page)}" == point.get_attribute("href")


def test_the_original_goes_on_where_the_reconstruction_was(page: "Page") -> None:
    rows_with_links(page).first.locator("a").click()
    wait_until_heard(page)
    page.get_by_label("Position").fill("3")
    (before,) = playing(page)
    page.get_by_role("button", name="Original").click()
    (after,) = playing(page)
    assert before != after
    assert 3 <= place(page, before) <= place(page, after) < SECONDS
    assert page.get_by_role("button", name="Original").get_attribute("aria-pressed") == "true"


def assert_keys_switch_and_stop(page: "Page") -> None:
    (reconstruction,) = playing(page)
    page.keyboard.press("x")
    (original,) = playing(page)
    assert original != reconstruction
    page.keyboard.press("Escape")
    assert playing(page) == []


def test_keys_alone_choose_play_switch_and_stop(page: "Page") -> None:
    trials = page.get_by_label("Trials to see and hear").get_by_role("link")
    first, second = (trials.nth(at).get_attribute("href") for at in (0, 1))
    trials.first.focus()
    page.keyboard.press("Enter")
    wait_until_heard(page)
    assert f"#{shown(page)}" == first
    page.keyboard.press("ArrowRight")
    assert f"#{shown(page)}" == second
    assert_keys_switch_and_stop(page)


def test_keys_switch_and_stop_after_a_click_on_a_row(page: "Page") -> None:
    rows_with_links(page).first.locator("td").nth(1).click()
    wait_until_heard(page)
    assert_keys_switch_and_stop(page)


def test_keys_do_nothing_in_tables_that_choose_no_sounds(page: "Page") -> None:
    rows_with_links(page).first.locator("td").nth(1).click()
    wait_until_heard(page)
    page.keyboard.press("Escape")
    page.locator(".wide:not(:has(a))").first.focus()
    page.keyboard.press("x")
    assert playing(page) == []


def test_every_control_has_a_name_for_screen_readers(page: "Page") -> None:
    snapshot = page.locator("main").aria_snapshot()
    for nameless in ("- button\n", "- link\n", "- slider\n", "- img\n"):
        assert nameless not in snapshot


def test_a_wide_screen_has_the_gallery_beside_and_a_narrow_one_below(page: "Page") -> None:
    table, gallery = page.locator("table.sortable"), page.locator(".gallery")
    page.set_viewport_size({"width": 1600, "height": 1000})
    left, right = page.locator("#trials").bounding_box(), gallery.bounding_box()
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] <= right["x"]
    assert right["x"] + right["width"] > 1500
    page.set_viewport_size({"width": 400, "height": 800})
    above, below = table.bounding_box(), gallery.bounding_box()
    assert above is not None
    assert below is not None
    assert above["y"] < below["y"]
    page.locator("#trials .hint").first.wait_for(state="visible")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 400
    rows_with_links(page).first.locator("a").click()
    player = page.locator(".player").bounding_box()
    assert player is not None
    assert player["y"] + player["height"] == pytest.approx(800, abs=1)


def test_pictures_are_dark_in_the_dark(page: "Page") -> None:
    image = page.locator(".picture:visible img").first
    page.emulate_media(color_scheme="light")
    assert image.evaluate("image => getComputedStyle(image).filter") == "none"
    page.emulate_media(color_scheme="dark")
    assert "invert" in image.evaluate("image => getComputedStyle(image).filter")
